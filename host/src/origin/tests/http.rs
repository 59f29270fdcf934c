//! HTTP servers that misbehave, and connections that die.

use std::time::Duration;

use ::http::Method;

use super::server::{Act, Scripted};
use super::{Built, TIMEOUTS, request, with_body};
use crate::origin::{HostField, HttpSettings, OriginError, Place};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Gives the connection time to go back to the pool.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

#[tokio::test]
async fn connections_are_kept() {
    let server = Scripted::start(vec![Act::Say(OK)]).await;
    let origin = Built::http(&server.url).await;
    for _ in 0..5 {
        assert_eq!(&origin.get("/", &[]).await.body[..], b"ok");
        settle().await;
    }
    assert_eq!((server.asked(), server.connected()), (5, 1));
}

#[tokio::test]
async fn a_kept_connection_that_dies_under_a_request_is_replaced() {
    for death in ["", "HTTP/1.1 200 OK\r\ncontent-le"] {
        let server = Scripted::start(vec![Act::Say(OK), Act::SayAndClose(death), Act::Say(OK)]).await;
        let origin = Built::http(&server.url).await;
        origin.get("/", &[]).await;
        settle().await;
        assert_eq!(origin.get("/", &[]).await.status, 200, "{death:?}");
        assert_eq!((server.asked(), server.connected()), (3, 2));
    }
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_is_not_used() {
    let server = Scripted::start(vec![Act::SayAndClose(OK), Act::Say(OK)]).await;
    let origin = Built::http(&server.url).await;
    origin.get("/", &[]).await;
    settle().await;
    origin.get("/", &[]).await;
    assert_eq!((server.asked(), server.connected()), (2, 2));
}

#[tokio::test]
async fn what_is_not_idempotent_goes_out_on_a_fresh_connection_and_never_twice() {
    let server = Scripted::start(vec![Act::Say(OK), Act::SayAndClose(""), Act::Say(OK)]).await;
    let origin = Built::http(&server.url).await;
    origin.get("/", &[]).await;
    settle().await;
    let post = with_body(request(Method::POST, "/", &[]), Some(2), vec!["hi"]);
    let error = origin.ask(post).await.unwrap_err();
    assert!(matches!(error, OriginError::Ended { .. }), "{error}");
    assert_eq!((server.asked(), server.connected()), (2, 2));
    let empty = origin.ask(request(Method::POST, "/", &[])).await.unwrap();
    assert_eq!(empty.status, 200);
    assert_eq!((server.asked(), server.connected()), (3, 3));
    assert!(server.requests.lock()[2].contains("content-length: 0\r\n"));
}

#[tokio::test]
async fn a_read_that_breaks_before_its_head_is_tried_once_more() {
    let server = Scripted::start(vec![Act::SayAndClose(""), Act::Say(OK)]).await;
    let origin = Built::http(&server.url).await;
    assert_eq!(origin.get("/", &[]).await.status, 200);
    assert_eq!(server.asked(), 2);

    let server = Scripted::start(vec![Act::SayAndClose("")]).await;
    let origin = Built::http(&server.url).await;
    let error = origin.fail("/").await;
    assert!(matches!(error, OriginError::Ended { .. }), "{error}");
    assert_eq!(server.asked(), 2);
    assert_eq!(origin.counted("reset"), 1);
}

#[tokio::test]
async fn one_retry_is_all_whatever_connection_the_first_try_went_out_on() {
    let server = Scripted::start(vec![Act::Say(OK), Act::Say(OK), Act::SayAndClose("")]).await;
    let origin = Built::http(&server.url).await;
    // Two kept connections, both of which will turn out dead.
    let (first, second) = tokio::join!(origin.get("/", &[]), origin.get("/", &[]));
    drop((first, second));
    settle().await;
    let before = server.asked();
    let error = origin.fail("/").await;
    assert!(matches!(error, OriginError::Ended { idle: false, .. }), "{error}");
    assert_eq!(server.asked(), before + 2);
}

#[tokio::test]
async fn a_408_to_a_kept_connection_is_for_nobody() {
    let late = "HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let server = Scripted::start(vec![Act::Say(OK), Act::SayAndClose(late), Act::Say(OK)]).await;
    let origin = Built::http(&server.url).await;
    for _ in 0..2 {
        assert_eq!(origin.get("/", &[]).await.status, 200);
        settle().await;
    }
    assert_eq!((server.asked(), server.connected()), (3, 2));
    let server = Scripted::start(vec![Act::SayAndClose(late)]).await;
    assert_eq!(Built::http(&server.url).await.get("/", &[]).await.status, 408, "on a fresh connection it is an answer");
    assert_eq!(server.asked(), 1);
}

#[tokio::test]
async fn a_body_that_is_cut_is_an_error_and_not_an_end() {
    for cut in [
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ] {
        let server = Scripted::start(vec![Act::SayAndClose(cut)]).await;
        let origin = Built::http(&server.url).await;
        let error = origin.fail("/").await;
        assert!(matches!(error, OriginError::Broken { .. }), "{cut:?}: {error}");
        assert_eq!(server.asked(), 1, "a body is not asked for again here");
        assert_eq!((origin.counted("ok"), origin.counted("reset")), (1, 1));
    }
}

#[tokio::test]
async fn what_is_no_http_is_an_error() {
    let huge = "x".repeat(1_000_000);
    let huge: &'static str = Box::leak(format!("HTTP/1.1 200 OK\r\nx: {huge}\r\n\r\n").into_boxed_str());
    for (text, what) in [
        ("SSH-2.0-OpenSSH_9.2\r\n\r\n", "another protocol"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx", "two lengths"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: xchunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "a coding that nobody knows"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "a coding that was not asked for"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nx", "a coding that nobody asked for"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: nonsense, gzip\r\n\r\nx", "the same behind a word"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: a\r\ntransfer-encoding: b\r\n\r\nx", "two codings"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: a;b\r\n\r\nx", "a coding with a parameter"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding:\r\n\r\nx", "a coding without a name"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: a\r\ncontent-length: 1\r\n\r\nxy", "two ends"),
        ("HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\nx", "a negative length"),
        ("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", "an upgrade"),
        (huge, "a head of 1 MB"),
    ] {
        let server = Scripted::start(vec![Act::SayAndClose(text)]).await;
        let error = Built::http(&server.url).await.fail("/").await;
        assert!(matches!(error, OriginError::Broken { .. }), "{what}: {error}");
    }
}

#[tokio::test]
async fn a_transfer_coding_that_is_none_codes_nothing() {
    for name in ["nonsense", "Identity", "store-value-1"] {
        let text: &'static str =
            Box::leak(format!("HTTP/1.1 200 OK\r\ntransfer-encoding: {name}\r\n\r\n3\r\nabc").into_boxed_str());
        let server = Scripted::start(vec![Act::SayAndClose(text), Act::Say(OK)]).await;
        let origin = Built::http(&server.url).await;
        let answer = origin.get("/", &[]).await;
        assert_eq!((answer.status, &answer.body[..]), (200, &b"3\r\nabc"[..]), "{name}");
        assert!(!answer.headers.contains_key("transfer-encoding"), "{name}");
        origin.get("/", &[]).await;
        assert_eq!(server.connected(), 2, "its end was the connection's");
    }
}

#[tokio::test]
async fn a_body_longer_than_its_length_ends_at_its_length_and_the_connection_with_it() {
    let server = Scripted::start(vec![Act::Say(
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
    )])
    .await;
    let origin = Built::http(&server.url).await;
    for _ in 0..2 {
        assert_eq!(&origin.get("/", &[]).await.body[..], b"ok");
        settle().await;
    }
    assert_eq!(server.connected(), 2);
}

#[tokio::test]
async fn waiting_has_an_end() {
    let long = TIMEOUTS.first_byte * 10;
    let phases = [
        (Act::SayLater("", long, OK), "first byte"),
        (Act::SayLater("HTTP/1.1 200 OK\r\n", long, ""), "first byte"),
        (Act::SayLater("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nok", long, "ok"), "idle"),
    ];
    for (act, expected) in phases {
        let server = Scripted::start(vec![act]).await;
        let origin = Built::http(&server.url).await;
        match origin.fail("/").await {
            OriginError::Timeout { phase, .. } => assert_eq!(phase, expected),
            error => panic!("{expected}: {error}"),
        }
        assert_eq!(server.asked(), 1, "a timeout is not tried again");
        assert_eq!(origin.counted("timeout"), 1);
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_cannot_be_connected_to() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    for url in [url.as_str(), "http://no-such-host.invalid/"] {
        let origin = Built::http(url).await;
        let error = origin.fail("/").await;
        assert!(matches!(error, OriginError::Connect { .. }), "{error}");
        assert_eq!(origin.counted("connect"), 1);
    }
}

#[tokio::test]
async fn interim_answers_are_passed_over() {
    let text = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let server = Scripted::start(vec![Act::Say(text)]).await;
    let answer = Built::http(&server.url).await.get("/", &[]).await;
    assert_eq!((answer.status, &answer.body[..], answer.field("link")), (200, &b"ok"[..], ""));
}

#[tokio::test]
async fn fields_of_the_hop_stay_on_it() {
    let text = "HTTP/1.1 200 OK\r\nconnection: keep-alive, x-hop\r\nx-hop: 1\r\nx-end: 2\r\nkeep-alive: timeout=5\r\ncontent-length: 99\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-trailer: 3\r\n\r\n";
    let server = Scripted::start(vec![Act::Say(text)]).await;
    let origin = Built::http(&server.url).await;
    let fields =
        [("connection", "x-mine"), ("x-mine", "1"), ("expect", "100-continue"), ("te", "trailers"), ("accept", "a/b")];
    let answer = origin.get("/", &fields).await;
    assert_eq!((&answer.body[..], answer.length), (&b"ok"[..], None));
    assert_eq!(answer.headers.len(), 2, "{:?}", answer.headers);
    assert_eq!((answer.field("x-end"), answer.field("via")), ("2", "1.1 proxyhost"));
    let asked = server.requests.lock()[0].to_ascii_lowercase();
    assert!(asked.contains("accept: a/b\r\n"), "{asked}");
    for gone in ["x-mine", "expect", "te:", "connection", "content-length", "transfer-encoding"] {
        assert!(!asked.contains(gone), "{gone} in {asked}");
    }
}

#[tokio::test]
async fn bodies_end_where_the_connection_does_when_no_length_is_told() {
    let server = Scripted::start(vec![Act::SayAndClose("HTTP/1.0 200 OK\r\n\r\nto the end")]).await;
    let answer = Built::http(&server.url).await.get("/", &[]).await;
    assert_eq!((&answer.body[..], answer.length), (&b"to the end"[..], None));
}

#[tokio::test]
async fn the_target_and_the_host_are_as_configured() {
    for (path, host, target, field) in [
        ("", HostField::Origin, "GET /a%20b?x=%20y HTTP/1.1", None),
        ("/base/", HostField::Client, "GET /base/a%20b?x=%20y HTTP/1.1", Some("host: client.test\r\n")),
        ("/base", HostField::Literal("l.test:8".into()), "GET /base/a%20b?x=%20y HTTP/1.1", Some("host: l.test:8\r\n")),
    ] {
        let server = Scripted::start(vec![Act::Say(OK)]).await;
        let url = format!("{}{path}", server.url).parse().unwrap();
        let origin = Built::new(Place::Http(HttpSettings { url, host, ca: None })).await;
        let mut asked = request(Method::GET, "/a b", &[("host", "forged.test")]);
        asked.query = Some("x=%20y".to_owned());
        origin.ask(asked).await.unwrap();
        let head = server.requests.lock()[0].clone();
        assert!(head.starts_with(target), "{head}");
        let own = format!("host: {}\r\n", server.url.trim_start_matches("http://"));
        assert!(head.contains(field.unwrap_or(&own)), "{head}");
        assert!(!head.contains("forged"), "{head}");
    }
}

#[tokio::test]
async fn request_bodies_stream() {
    let server = Scripted::start(vec![Act::ReadThenSay(10, OK), Act::ReadThenSay(20, OK)]).await;
    let origin = Built::http(&server.url).await;
    let known = with_body(request(Method::PUT, "/", &[("content-length", "77")]), Some(10), vec!["01234", "56789"]);
    assert_eq!(origin.ask(known).await.unwrap().status, 200);
    let unknown = with_body(request(Method::POST, "/", &[]), None, vec!["01234", "56789"]);
    assert_eq!(origin.ask(unknown).await.unwrap().status, 200);
    let requests = server.requests.lock();
    assert!(
        requests[0].contains("content-length: 10\r\n") && requests[0].ends_with("\r\n\r\n0123456789"),
        "{}",
        requests[0]
    );
    assert!(requests[1].contains("transfer-encoding: chunked\r\n"), "{}", requests[1]);
    assert!(requests[1].ends_with("5\r\n01234\r\n5\r\n56789\r\n0\r\n\r\n"), "{}", requests[1]);
}

#[tokio::test]
async fn a_request_body_that_misses_its_length_is_the_clients_fault() {
    for pieces in [vec!["01234"], vec!["01234", "56789", "x"]] {
        let server = Scripted::start(vec![Act::ReadThenSay(10, OK)]).await;
        let origin = Built::http(&server.url).await;
        let count = pieces.len();
        let asked = origin.ask(with_body(request(Method::POST, "/", &[]), Some(10), pieces)).await;
        match asked {
            Err(OriginError::RequestBody { status, .. }) => assert_eq!(status, 400),
            // What is too much is never sent; the origin may have answered what came before.
            Ok(answer) if count == 3 => assert_eq!(answer.status, 200),
            other => panic!("{other:?}"),
        }
        assert!(server.asked() <= 1);
    }
}

#[tokio::test]
async fn a_client_that_is_slow_to_send_is_not_the_origins_fault() {
    let server = Scripted::start(vec![Act::ReadThenSay(8, OK)]).await;
    let origin = Built::http(&server.url).await;
    let pause = TIMEOUTS.idle * 3 / 4;
    let slow = futures_util::stream::unfold(0, move |sent| async move {
        tokio::time::sleep(pause).await;
        (sent < 4).then(|| (Ok(bytes::Bytes::from_static(b"ab")), sent + 1))
    });
    let mut asked = request(Method::POST, "/", &[]);
    asked.body = Some(crate::origin::RequestBody { length: Some(8), stream: Box::pin(slow) });
    assert_eq!(origin.ask(asked).await.unwrap().status, 200);

    let mut asked = request(Method::POST, "/", &[]);
    asked.body =
        Some(crate::origin::RequestBody { length: Some(8), stream: Box::pin(futures_util::stream::pending()) });
    match origin.ask(asked).await {
        Err(OriginError::RequestBody { status, .. }) => assert_eq!(status, 408),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn statuses_are_answers() {
    for (text, status) in [
        ("HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno", 404),
        ("HTTP/1.1 503 Busy\r\ncontent-length: 2\r\n\r\nno", 503),
        ("HTTP/1.1 302 Found\r\nlocation: /b\r\ncontent-length: 0\r\n\r\n", 302),
    ] {
        let server = Scripted::start(vec![Act::Say(text)]).await;
        assert_eq!(Built::http(&server.url).await.get("/", &[]).await.status, status);
        assert_eq!(server.asked(), 1);
    }
}
