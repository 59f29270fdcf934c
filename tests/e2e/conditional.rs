//! What clients ask under conditions (RFC 9110 section 13), answered from the cache.

use harness::prelude::*;

async fn kept() -> (Origin, Host, std::time::SystemTime) {
    let at = std::time::SystemTime::now() - secs(86_400);
    let origin = Origin::serving("/a", ok("hello").cache_control("max-age=60").etag("\"1\"").last_modified(at)).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    host.get("/a").await.expect(200, "hello");
    (origin, host, at)
}

async fn asked(host: &Host, fields: &[(&str, &str)]) -> Answer {
    let mut call = host.call("GET", "/a");
    for (name, value) in fields {
        call = call.header(name, value);
    }
    call.send().await
}

#[tokio::test]
async fn if_none_match() {
    let (origin, host, _) = kept().await;
    let same = asked(&host, &[("if-none-match", "\"1\"")]).await;
    same.expect(304, "").header("etag", "\"1\"").cache("hit");
    for tags in ["*", "W/\"1\"", "\"0\", \"1\"", "\"a,b\", \"1\""] {
        asked(&host, &[("if-none-match", tags)]).await.expect(304, "");
    }
    asked(&host, &[("if-none-match", "\"2\"")]).await.expect(200, "hello");
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn if_modified_since() {
    let (_origin, host, at) = kept().await;
    let text = |at| httpdate::fmt_http_date(at);
    asked(&host, &[("if-modified-since", &text(at))]).await.expect(304, "");
    asked(&host, &[("if-modified-since", &text(at + secs(60)))]).await.expect(304, "");
    asked(&host, &[("if-modified-since", &text(at - secs(60)))]).await.expect(200, "hello");
    asked(&host, &[("if-modified-since", "yesterday")]).await.expect(200, "hello");
    // If-None-Match counts before it.
    asked(&host, &[("if-modified-since", &text(at)), ("if-none-match", "\"2\"")]).await.expect(200, "hello");
}

#[tokio::test]
async fn if_match_and_if_unmodified_since() {
    let (_origin, host, at) = kept().await;
    let text = |at| httpdate::fmt_http_date(at);
    asked(&host, &[("if-match", "\"1\"")]).await.expect(200, "hello");
    asked(&host, &[("if-match", "*")]).await.expect(200, "hello");
    asked(&host, &[("if-match", "\"2\"")]).await.status(412);
    asked(&host, &[("if-match", "W/\"1\"")]).await.status(412);
    asked(&host, &[("if-unmodified-since", &text(at))]).await.expect(200, "hello");
    asked(&host, &[("if-unmodified-since", &text(at - secs(60)))]).await.status(412);
}

#[tokio::test]
async fn a_condition_on_a_miss_is_answered_and_the_whole_is_kept() {
    let origin = Origin::serving("/a", ok("hello").cache_control("max-age=60").etag("\"1\"").conditional()).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    asked(&host, &[("if-none-match", "\"1\"")]).await.expect(304, "");
    host.get("/a").await.expect(200, "hello");
    let before = origin.requests();
    host.get("/a").await.expect(200, "hello").cache("hit");
    assert_eq!(origin.requests(), before);
}

#[tokio::test]
async fn head_takes_conditions_as_well() {
    let (_origin, host, _) = kept().await;
    host.call("HEAD", "/a").header("if-none-match", "\"1\"").send().await.expect(304, "");
}
