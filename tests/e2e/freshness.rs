//! How long things live (RFC 9111 section 4.2). Lives are a second or two, so that no clock need be turned.

use harness::prelude::*;

async fn with_ttl(reply: Reply) -> (Origin, Host) {
    let origin = Origin::serving("/a", reply).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    (origin, host)
}

#[tokio::test]
async fn what_has_expired_is_fetched_again() {
    let (origin, host) = with_ttl(ok("hello").cache_control("max-age=1")).await;
    host.get("/a").await.expect(200, "hello");
    tokio::time::sleep(millis(2100)).await;
    host.get("/a").await.expect(200, "hello").cache("expired");
    assert_eq!(origin.requests(), 2);
}

#[tokio::test]
async fn an_expired_entry_with_an_etag_is_revalidated() {
    let (origin, host) = with_ttl(ok("hello").cache_control("max-age=1").etag("\"1\"").conditional()).await;
    host.get("/a").await.expect(200, "hello");
    tokio::time::sleep(millis(2100)).await;
    host.get("/a").await.expect(200, "hello").cache("revalidated");
    host.get("/a").await.expect(200, "hello").cache("hit");
    assert_eq!(origin.seen()[1].header("if-none-match"), "\"1\"");
    assert_eq!(origin.requests(), 2);
}

#[tokio::test]
async fn an_expired_entry_with_last_modified_is_revalidated() {
    let at = std::time::SystemTime::now() - secs(86_400);
    let (origin, host) = with_ttl(ok("hello").cache_control("max-age=1").last_modified(at).conditional()).await;
    host.get("/a").await.expect(200, "hello");
    tokio::time::sleep(millis(2100)).await;
    host.get("/a").await.expect(200, "hello").cache("revalidated");
    assert_eq!(origin.seen()[1].header("if-modified-since"), httpdate::fmt_http_date(at));
}

#[tokio::test]
async fn a_304_updates_the_stored_fields() {
    let (origin, host) = with_ttl(ok("hello").cache_control("max-age=1").etag("\"1\"").header("x-n", "1")).await;
    host.get("/a").await.header("x-n", "1");
    origin.set("/a", reply(304, "").cache_control("max-age=60").etag("\"1\"").header("x-n", "2"));
    tokio::time::sleep(millis(2100)).await;
    host.get("/a").await.expect(200, "hello").header("x-n", "2");
    host.get("/a").await.expect(200, "hello").header("x-n", "2").cache("hit");
    assert_eq!(origin.requests(), 2);
}

#[tokio::test]
async fn a_changed_object_replaces_the_old_one() {
    let (origin, host) = with_ttl(ok("old").cache_control("max-age=1").etag("\"1\"").conditional()).await;
    host.get("/a").await.expect(200, "old");
    origin.set("/a", ok("new").cache_control("max-age=60").etag("\"2\"").conditional());
    tokio::time::sleep(millis(2100)).await;
    host.get("/a").await.expect(200, "new");
    host.get("/a").await.expect(200, "new").cache("hit");
}

#[tokio::test]
async fn s_maxage_counts_before_max_age_and_max_age_before_expires() {
    let past = httpdate::fmt_http_date(std::time::SystemTime::now() - secs(100));
    let origin = Origin::serving("/s", ok("x").cache_control("max-age=0, s-maxage=60"))
        .await
        .and("/m", ok("x").cache_control("max-age=60").header("expires", &past))
        .and("/e", ok("x").header("expires", &past))
        .and("/0", ok("x").header("expires", "0"));
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    for path in ["/s", "/m", "/e", "/0"] {
        host.get(path).await.expect(200, "x");
        host.get(path).await.expect(200, "x");
    }
    assert_eq!(["/s", "/m", "/e", "/0"].map(|path| origin.requests_to(path)), [1, 1, 2, 2]);
}

#[tokio::test]
async fn expires_is_a_life_when_nothing_else_is_said() {
    let future = httpdate::fmt_http_date(std::time::SystemTime::now() + secs(100));
    let (origin, host) = with_ttl(ok("x").header("expires", &future)).await;
    host.get("/a").await.expect(200, "x");
    host.get("/a").await.expect(200, "x").cache("hit");
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn the_age_that_a_response_comes_with_counts() {
    let (origin, host) = with_ttl(ok("x").cache_control("max-age=60").header("age", "100")).await;
    host.get("/a").await.expect(200, "x");
    host.get("/a").await.expect(200, "x");
    assert_eq!(origin.requests(), 2);
    origin.set("/b", ok("x").cache_control("max-age=600").header("age", "100"));
    host.get("/b").await.expect(200, "x");
    let hit = host.get("/b").await;
    hit.cache("hit");
    assert!((100..110).contains(&hit.number("age")), "{hit:?}");
}

#[tokio::test]
async fn no_cache_is_kept_and_asked_about_each_time() {
    let (origin, host) = with_ttl(ok("x").cache_control("no-cache").etag("\"1\"").conditional()).await;
    host.get("/a").await.expect(200, "x");
    for _ in 0..2 {
        host.get("/a").await.expect(200, "x").cache("revalidated");
    }
    assert_eq!(origin.requests(), 3);
}

#[tokio::test]
async fn a_304_that_forbids_keeping_is_handed_on_with_its_word() {
    let origin = Origin::answering(|request| {
        let first = !request.has("if-none-match");
        ok("x").etag("\"v\"").conditional().cache_control(if first { "max-age=0" } else { "private, max-age=60" })
    })
    .await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    host.get("/a").await.expect(200, "x").header("cache-control", "max-age=0");
    host.get("/a").await.expect(200, "x").header("cache-control", "private, max-age=60");
}

#[tokio::test]
async fn expires_counts_from_the_arrival_of_an_answer_without_date() {
    let later = httpdate::fmt_http_date(std::time::SystemTime::now() + std::time::Duration::from_secs(600));
    let origin = Origin::serving("/a", ok("x").header("expires", &later).no_date()).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    let made = host.get("/a").await.expect(200, "x").field("date");
    assert!(!made.is_empty());
    host.get("/a").await.expect(200, "x").cache("hit").header("date", &made);
}
