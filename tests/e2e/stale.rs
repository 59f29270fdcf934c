//! Stale answers (RFC 5861, RFC 9111 section 4.2.4): when the origin fails, and not when it forbade them.

use harness::prelude::*;

async fn expired(cache_control: &str) -> (Origin, Host) {
    let origin = Origin::serving("/a", ok("old").cache_control(cache_control).etag("\"1\"").conditional()).await;
    let with = origin.with(json!({ "timeouts": { "first_byte": "1s" } }));
    let host = Host::with(vhost("a.test").origin(&with).set("client_cache_control", "honor")).await;
    host.get("/a").await.expect(200, "old");
    tokio::time::sleep(millis(2100)).await;
    (origin, host)
}

#[tokio::test]
async fn served_when_the_origin_cannot_be_had() {
    let (mut origin, host) = expired("max-age=1").await;
    for failure in [raw(""), raw("no HTTP"), hang()] {
        origin.set("/a", failure);
        let answer = host.get("/a").await;
        answer.expect(200, "old");
        assert!(answer.number("age") >= 1, "{answer:?}");
    }
    origin.stop();
    tokio::time::sleep(millis(50)).await;
    host.get("/a").await.expect(200, "old");
    origin.restart().await;
    origin.set("/a", ok("new").cache_control("max-age=60"));
    host.get_until("/a", |answer| answer.text() == "new").await;
}

#[tokio::test]
async fn a_status_of_the_origin_is_an_answer_unless_stale_if_error_stands_before_it() {
    let (origin, host) = expired("max-age=1").await;
    origin.set("/a", reply(500, "broken"));
    host.get("/a").await.expect(500, "broken");
    let (origin, host) = expired("max-age=1, stale-if-error=60").await;
    for failure in [reply(500, "broken"), reply(503, "busy")] {
        origin.set("/a", failure);
        host.get("/a").await.expect(200, "old").cache("stale");
    }
}

#[tokio::test]
async fn never_when_the_origin_forbade_it() {
    for forbidden in ["max-age=1, must-revalidate", "max-age=1, proxy-revalidate", "s-maxage=1", "no-cache"] {
        let (origin, host) = expired(forbidden).await;
        origin.set("/a", raw(""));
        let answer = host.get("/a").await;
        assert!(matches!(answer.status.as_u16(), 502..=504), "{forbidden}: {answer:?}");
    }
}

#[tokio::test]
async fn a_404_is_an_answer_and_no_failure() {
    let (origin, host) = expired("max-age=1").await;
    origin.set("/a", reply(404, "gone"));
    host.get("/a").await.expect(404, "gone");
}

#[tokio::test]
async fn served_at_once_while_it_is_revalidated() {
    let (origin, host) = expired("max-age=1, stale-while-revalidate=60").await;
    // Well within the second that the origin is given for its first byte.
    origin.set("/a", ok("new").cache_control("max-age=60").late(millis(700)));
    let start = std::time::Instant::now();
    host.get("/a").await.expect(200, "old").cache("stale");
    assert!(start.elapsed() < millis(600), "{:?}", start.elapsed());
    host.get_until("/a", |answer| answer.text() == "new").await;
}

#[tokio::test]
async fn many_who_are_served_stale_make_one_refresh() {
    let (origin, host) = expired("max-age=1, stale-while-revalidate=60").await;
    origin.set("/a", ok("new").cache_control("max-age=60").late(millis(700)));
    let answers = futures_util::future::join_all((0..30).map(|_| host.get("/a"))).await;
    for answer in &answers {
        answer.expect(200, "old").cache("stale");
    }
    host.get_until("/a", |answer| answer.text() == "new").await;
    assert_eq!(origin.requests(), 2);
}

#[tokio::test]
async fn who_may_not_have_it_does_not_get_it_by_waiting_for_one_who_may() {
    let (origin, host) = expired("max-age=1, stale-if-error=60").await;
    origin.set("/a", reply(503, "busy").late(millis(500)));
    let (leads, follows) = tokio::join!(host.get("/a"), async {
        tokio::time::sleep(millis(200)).await;
        host.call("GET", "/a").header("cache-control", "no-cache").send().await
    });
    leads.expect(200, "old").cache("stale");
    follows.expect(503, "busy");
}
