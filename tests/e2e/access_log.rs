//! The access log (issue line 10): combined lines with the true status and bytes.

use harness::prelude::*;

#[tokio::test]
async fn true_status_and_bytes() {
    let origin = Origin::serving("/a", ok("hello").cache_control("max-age=60").etag("\"1\"")).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    host.call("GET", "/a?q=x").header("referer", "http://r/").header("user-agent", "a \"b\"").send().await.status(200);
    let line = host.stdout_line("GET /a?q=x").await;
    assert!(line.starts_with("127.0.0.1 - - ["), "{line}");
    assert!(line.contains("HTTP/1.1\" 200 5 \"http://r/\""), "{line}");
    assert!(line.contains(r#"a \"b\""#) || line.contains(r"a \x22b\x22"), "{line}");
    host.get("/a").await;
    host.call("GET", "/a").range("0-1").send().await.status(206);
    host.stdout_line("\"GET /a HTTP/1.1\" 206 2 ").await;
    host.call("GET", "/a").header("if-none-match", "\"1\"").send().await.status(304);
    host.stdout_line("\"GET /a HTTP/1.1\" 304 ").await;
    host.head("/a").await;
    host.stdout_line("\"HEAD /a HTTP/1.1\" 200 ").await;
    host.get_from("nobody.test", "/a").await.status(421);
    host.stdout_line("\"GET /a HTTP/1.1\" 421 ").await;
    host.call("GET", "/a").http2().send().await.status(200);
    host.stdout_line("\"GET /a HTTP/2.0\" 200 5 ").await;
}

#[tokio::test]
async fn the_client_is_the_one_behind_trusted_proxies() {
    let origin = Origin::serving("/a", ok("hello")).await;
    let setup = setup().vhost(vhost("a.test").origin(&origin)).config(json!({ "trusted_proxies": ["127.0.0.1/32"] }));
    let host = setup.start().await;
    host.call("GET", "/a").header("x-forwarded-for", "1.2.3.4, 203.0.113.9").send().await.status(200);
    let line = host.stdout_line("GET /a").await;
    assert!(line.starts_with("203.0.113.9 "), "{line}");
}

#[tokio::test]
async fn no_client_writes_lines_of_its_own() {
    let origin = Origin::serving("/a", ok("hello")).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    // hyper's client sends no such field values; what arrives is bytes.
    for agent in ["x\u{85}\tevil", "x\u{1b}[31m", "x\n127.0.0.1 - - evil"] {
        let request = format!("GET /b HTTP/1.1\r\nhost: a.test\r\nuser-agent: {agent}\r\nconnection: close\r\n\r\n");
        host.raw(request).await;
    }
    host.raw("GET /a%0a HTTP/1.1\r\nhost: a.test\r\nuser-agent: \x1b[2J\r\nconnection: close\r\n\r\n").await;
    host.get("/a").await;
    host.stdout_line("\"GET /a HTTP/1.1\" 200").await;
    let lines = host.stdout();
    assert!(lines.iter().all(|line| !line.contains(['\u{1b}', '\u{85}', '\t'])), "{lines:?}");
    assert!(
        lines.iter().all(|line| {
            let read = line.contains(" HTTP/1.1\"") || line.contains("\"-\" 400 - \"-\" \"-\"");
            line.matches("127.0.0.1 - - ").count() == 1 && read
        }),
        "{lines:?}"
    );
}

#[tokio::test]
async fn a_request_cut_by_the_client_is_logged_with_what_was_sent() {
    let (reply, gate) = ok(generated(1, 10_000_000)).gated(100_000);
    let origin = Origin::serving("/a", reply).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    let mut stream = host.call("GET", "/a").open().await.unwrap();
    stream.read(50_000).await.unwrap();
    drop(stream);
    gate.open();
    let line = host.stdout_line("GET /a").await;
    let bytes: u64 = line.split(' ').nth(9).and_then(|bytes| bytes.parse().ok()).expect("bytes stand in field ten");
    assert!((50_000..10_000_000).contains(&bytes), "{line}");
}

#[tokio::test]
async fn what_cannot_be_read_as_a_request_has_a_line_too() {
    let origin = Origin::answering(|request| ok(request.target.clone())).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    let large = format!("GET /x HTTP/1.1\r\nHost: a.test\r\nX: {}\r\n\r\n", "a".repeat(100_000));
    assert_eq!(host.raw(large).await.status(), 431);
    host.stdout_line("\"-\" 431 - \"-\" \"-\"").await;
    assert_eq!(host.raw("GET /x HTTP/1.1\r\nHost: a.test\r\nBad Header\r\n\r\n").await.status(), 400);
    host.stdout_line("\"-\" 400 - \"-\" \"-\"").await;
}
