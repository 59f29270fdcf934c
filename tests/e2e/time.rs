//! What takes hours and days, with a clock that is turned by hand (RFC 9111 section 4.2, RFC 5861).

use harness::prelude::*;
use harness::timed::TimedHost;

const HOUR: Duration = secs(3600);
const DAY: Duration = secs(86_400);

async fn serving(reply: Reply) -> (Origin, TimedHost) {
    let origin = Origin::serving("/a", reply.no_date()).await;
    let host = TimedHost::with(vhost("a.test").origin(&origin)).await;
    (origin, host)
}

#[tokio::test]
async fn a_life_of_a_day_is_a_day() {
    let (origin, host) = serving(ok("hello").cache_control("max-age=86400")).await;
    host.get("/a").await.expect(200, "hello").cache("miss");
    host.advance(DAY - secs(1));
    host.get("/a").await.expect(200, "hello").cache("hit").header("age", "86399");
    host.advance(secs(2));
    host.get("/a").await.expect(200, "hello").cache("expired");
    host.get("/a").await.expect(200, "hello").cache("hit");
    assert_eq!(origin.requests(), 2);
}

#[tokio::test]
async fn a_304_begins_the_life_anew() {
    let (origin, host) = serving(ok("hello").cache_control("max-age=3600").etag("\"1\"").conditional()).await;
    host.get("/a").await.expect(200, "hello");
    for _ in 0..3 {
        host.advance(HOUR + secs(1));
        host.get("/a").await.expect(200, "hello").cache("revalidated").header("age", "0");
        host.advance(HOUR - secs(1));
        host.get("/a").await.expect(200, "hello").cache("hit");
    }
    assert_eq!(origin.requests(), 4);
}

#[tokio::test]
async fn age_grows_over_a_restart() {
    let (origin, mut host) = serving(ok("hello").cache_control("max-age=86400")).await;
    host.get("/a").await.expect(200, "hello");
    host.advance(HOUR);
    host.restart().await;
    host.get("/a").await.expect(200, "hello").cache("hit").header("age", "3600");
    host.advance(DAY);
    host.restart().await;
    host.get("/a").await.expect(200, "hello").cache("expired");
    assert_eq!(origin.requests(), 2);
}

#[tokio::test]
async fn the_ttl_of_hosts_json_is_for_what_says_nothing() {
    let origin =
        Origin::serving("/a", ok("a").no_date()).await.and("/b", ok("b").cache_control("max-age=60").no_date());
    let missing = reply(403, "no").no_date();
    let origin = origin.and("/c", missing);
    let host = TimedHost::with(vhost("a.test").origin(&origin).set("ttl", "1d")).await;
    for path in ["/a", "/b"] {
        host.get(path).await.status(200);
    }
    host.get("/c").await.status(403);
    host.get("/c").await.status(403);
    assert_eq!(origin.requests_to("/c"), 2, "a refusal is never kept by ttl");
    host.advance(HOUR);
    host.get("/a").await.expect(200, "a").cache("hit");
    host.get("/b").await.expect(200, "b").cache("expired");
    host.advance(DAY);
    host.get("/a").await.expect(200, "a").cache("expired");
}

#[tokio::test]
async fn stale_while_revalidate_lasts_as_long_as_it_says() {
    let (origin, host) =
        serving(ok("old").cache_control("max-age=60, stale-while-revalidate=3600").etag("\"1\"")).await;
    host.get("/a").await.expect(200, "old");
    host.advance(secs(61));
    origin.set("/a", ok("new").cache_control("max-age=60, stale-while-revalidate=3600").no_date());
    host.get("/a").await.expect(200, "old").cache("stale");
    origin.wait_for_requests(2).await;
    let start = std::time::Instant::now();
    while host.get("/a").await.text() != "new" {
        assert!(start.elapsed() < secs(20), "what was fetched in the background never came");
        tokio::time::sleep(millis(20)).await;
    }
    // Beyond its time nobody gets the old one: the request waits for the origin.
    host.advance(secs(60) + HOUR + secs(1));
    origin.set("/a", ok("newest").cache_control("max-age=60").no_date());
    host.get("/a").await.expect(200, "newest");
}

#[tokio::test]
async fn stale_if_error_lasts_as_long_as_it_says() {
    let (origin, host) = serving(ok("old").cache_control("max-age=60, stale-if-error=3600")).await;
    host.get("/a").await.expect(200, "old");
    origin.set("/a", reply(503, "busy").no_date());
    host.advance(HOUR);
    host.get("/a").await.expect(200, "old").cache("stale");
    host.advance(secs(61));
    host.get("/a").await.expect(503, "busy");
}

#[tokio::test]
async fn what_has_not_changed_for_long_lives_a_tenth_of_that_and_at_most_a_day() {
    let at = std::time::SystemTime::now() - HOUR * 10;
    let (origin, host) = serving(ok("x").last_modified(at).conditional()).await;
    host.get("/a").await.expect(200, "x");
    host.advance(secs(3590));
    host.get("/a").await.expect(200, "x").cache("hit");
    host.advance(secs(20));
    host.get("/a").await.expect(200, "x").cache("revalidated");
    assert_eq!(origin.requests(), 2);
    let at = std::time::SystemTime::now() - DAY * 100;
    let (origin, host) = serving(ok("x").last_modified(at).conditional()).await;
    host.get("/a").await.expect(200, "x");
    host.advance(DAY - secs(10));
    host.get("/a").await.expect(200, "x").cache("hit");
    host.advance(secs(20));
    host.get("/a").await.expect(200, "x").cache("revalidated");
    assert_eq!(origin.requests(), 2);
}

#[tokio::test]
async fn a_request_may_ask_for_something_younger_where_the_host_honours_it() {
    let (origin, host) = serving(ok("x").cache_control("max-age=86400")).await;
    host.get("/a").await.expect(200, "x");
    host.advance(HOUR);
    for wish in ["max-age=60", "no-cache", "min-fresh=90000"] {
        host.call("GET", "/a").header("cache-control", wish).send().await.expect(200, "x").cache("hit");
    }
    host.call("GET", "/a").header("pragma", "no-cache").send().await.expect(200, "x").cache("hit");
    assert_eq!(origin.requests(), 1);

    let origin = Origin::serving("/a", ok("x").cache_control("max-age=86400").no_date()).await;
    let host = TimedHost::with(vhost("a.test").origin(&origin).set("client_cache_control", "honor")).await;
    host.get("/a").await.expect(200, "x");
    for (wish, word) in [
        ("max-age=3600", "hit"),
        ("max-age=3599", "fwd=request"),
        ("min-fresh=82800", "hit"),
        ("min-fresh=82801", "fwd=request"),
        ("no-cache", "fwd=request"),
    ] {
        host.get("/a").await.expect(200, "x");
        host.advance(HOUR);
        let before = origin.requests();
        let asked = host.call("GET", "/a").header("cache-control", wish).send().await;
        assert_eq!(origin.requests() - before, usize::from(word != "hit"), "{wish}: {asked:?}");
        assert!(asked.field("cache-status").contains(word), "{wish}: {asked:?}");
        host.call("GET", "/a").header("cache-control", "no-cache").send().await.expect(200, "x");
    }
    assert_eq!(origin.last().header("cache-control"), "no-cache");
    // A client may take what is stale, until it says how stale; an origin that fails is no reason to take what is unchecked.
    host.advance(DAY + secs(10));
    let before = origin.requests();
    let asked = host.call("GET", "/a").header("cache-control", "max-stale=60").send().await;
    asked.expect(200, "x").cache("stale");
    assert_eq!(origin.requests(), before);
    origin.set("/a", raw(""));
    host.call("GET", "/a").header("cache-control", "no-cache").send().await.status(502);
    host.call("GET", "/a").header("cache-control", "max-stale=5").send().await.expect(200, "x").cache("stale");
}
