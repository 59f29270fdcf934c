//! Request targets that mean to be two things at once ("Bad input"): one identity of a path.

use harness::prelude::*;

async fn host() -> (Origin, Host) {
    let origin = Origin::answering(|request| ok(request.target.clone()).cache_control("max-age=60")).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    (origin, host)
}

async fn asked(host: &Host, target: &str) -> RawAnswer {
    host.raw(format!("GET {target} HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n")).await
}

#[tokio::test]
async fn what_decoding_would_lose_is_400() {
    let (origin, host) = host().await;
    for target in [
        "/a%2fb",
        "/a%2Fb",
        "/a%00b",
        "/..",
        "/../a",
        "/a/../b",
        "/a/..",
        "/./a",
        "/a/.",
        "/%2e%2e/a",
        "/a/%2E%2e/b",
        "/a/.%2e",
        "/%c0%af",
        "/%c0%ae%c0%ae/a",
        "/%ff",
        "/%ed%a0%80",
        "/%",
        "/%2",
        "/%zz",
    ] {
        assert_eq!(asked(&host, target).await.status(), 400, "{target}");
    }
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn what_stays_what_it_is() {
    let (_origin, host) = host().await;
    for (target, reaches) in [
        ("//a", "//a"),
        ("/a//b", "/a//b"),
        ("/%252f", "/%252f"),
        ("/%252e%252e/", "/%252e%252e/"),
        ("/...", "/..."),
        ("/.a", "/.a"),
    ] {
        let answer = asked(&host, target).await;
        assert!(answer.text().to_lowercase().ends_with(reaches), "{target}: {}", answer.text());
    }
}

#[tokio::test]
async fn one_path_is_one_entry_however_it_is_written() {
    let (origin, host) = host().await;
    host.get("/caf%C3%A9~x").await.cache("miss");
    for same in ["/caf%c3%a9~x", "/caf%C3%A9%7Ex", "/c%61f%C3%A9~x"] {
        host.get(same).await.cache("hit");
    }
    assert_eq!(origin.requests(), 1);
    assert_eq!(origin.last().target.to_uppercase(), "/CAF%C3%A9~X".to_uppercase());
}

#[tokio::test]
async fn the_absolute_form_names_the_host() {
    let (origin, host) = host().await;
    let absolute = host.raw("GET http://a.test/x HTTP/1.1\r\nhost: other.test\r\nconnection: close\r\n\r\n").await;
    assert!(matches!(absolute.status(), 200 | 400), "{}", absolute.text());
    let same = host.raw("GET http://a.test/x HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n").await;
    assert_eq!(same.status(), 200);
    let unknown = host.raw("GET http://other.test/x HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n").await;
    assert!(matches!(unknown.status(), 400 | 421), "{}", unknown.text());
    assert!(origin.seen().iter().all(|seen| seen.target == "/x"), "{:?}", origin.seen());
}

#[tokio::test]
async fn targets_that_are_none() {
    let (origin, host) = host().await;
    for target in ["a", "*", "?x", "", "/a b", "/a\x01", "http://"] {
        let answer = asked(&host, target).await;
        assert!(matches!(answer.status(), 400 | 404 | 405 | 421 | 0), "{target:?}: {}", answer.text());
    }
    // hyper drops a fragment before anyone sees it: then the path is what stands before it, for key and origin alike.
    let fragment = asked(&host, "/a#b").await;
    assert!(matches!(fragment.status(), 200 | 400), "{}", fragment.text());
    assert!(origin.seen().iter().all(|seen| seen.target == "/a"), "{:?}", origin.seen());
}
