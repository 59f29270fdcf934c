//! The origin without a proxy before it: whether it does what the script says.

use super::*;
use crate::client::{Call, send_raw};
use crate::millis;

fn call(origin: &Origin, method: &str, path: &str) -> Call {
    Call::new(origin.address(), method, path, "o.test")
}

#[tokio::test]
async fn replies_by_path_and_notes_what_was_asked() {
    let origin = Origin::serving("/a", ok("hello").cache_control("max-age=60")).await.and("/b?x=1", reply(404, "none"));
    call(&origin, "GET", "/a?y").header("x-test", "1").send().await.expect(200, "hello").header("content-length", "5");
    call(&origin, "GET", "/b?x=1").send().await.expect(404, "none");
    call(&origin, "POST", "/c").body("some body").send().await.status(404);
    call(&origin, "HEAD", "/a").send().await.expect(200, "").header("content-length", "5");
    assert_eq!((origin.requests(), origin.requests_to("/a")), (4, 2));
    assert_eq!((origin.seen()[0].header("x-test"), &origin.seen()[2].body[..]), ("1", &b"some body"[..]));
}

#[tokio::test]
async fn conditions_ranges_and_framing() {
    let origin = Origin::serving("/a", ok("0123456789").etag("\"v1\"").conditional().ranged()).await;
    call(&origin, "GET", "/a").header("if-none-match", "\"v1\"").send().await.expect(304, "");
    call(&origin, "GET", "/a").range("2-4").send().await.expect(206, "234").header("content-range", "bytes 2-4/10");
    call(&origin, "GET", "/a").range("2-4").header("if-range", "\"v0\"").send().await.expect(200, "0123456789");
    call(&origin, "GET", "/a").range("20-").send().await.status(416);
    origin.set("/a", ok("hello").chunked().slowly(2, millis(1)));
    call(&origin, "GET", "/a").send().await.expect(200, "hello").header("transfer-encoding", "chunked");
    origin.set("/a", ok("hello").until_close());
    call(&origin, "GET", "/a").send().await.expect(200, "hello").no_header("content-length");
}

#[tokio::test]
async fn misbehaves_as_told() {
    let origin = Origin::serving("/short", ok("hello").claim_length(9)).await.and("/cut", ok("hello").cut_after(2));
    assert!(call(&origin, "GET", "/short").attempt().await.is_err());
    assert!(call(&origin, "GET", "/cut").attempt().await.is_err());
    let (gated, gate) = ok("hello").gated(2);
    origin.set("/gated", gated);
    let mut stream = call(&origin, "GET", "/gated").open().await.unwrap();
    assert_eq!(stream.read(2).await.unwrap(), "he");
    gate.open();
    assert_eq!(stream.read(9).await.unwrap(), "llo");
    origin.once("/early", ok("x").early("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"));
    let answer =
        send_raw(origin.address(), b"GET /early HTTP/1.1\r\n\r\nGET /early HTTP/1.1\r\n\r\n", millis(200)).await;
    assert_eq!(answer.statuses(), [103, 200, 404]);
    origin.set("/swallow", ok("x").swallow_next());
    let two = b"GET /swallow HTTP/1.1\r\n\r\nGET /a HTTP/1.1\r\n\r\n";
    let answer = send_raw(origin.address(), two, millis(1000)).await;
    assert_eq!((answer.statuses(), answer.closed), (vec![200], true));
}

#[tokio::test]
async fn takes_chunked_bodies_and_says_continue() {
    let origin = Origin::serving("/a", ok("hello")).await;
    let request = b"POST /a HTTP/1.1\r\nexpect: 100-continue\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    let answer = send_raw(origin.address(), request, millis(200)).await;
    assert_eq!(answer.statuses(), [100, 200]);
    assert_eq!(origin.last().body, "abcde");
}

#[tokio::test]
async fn stops_and_comes_back_at_the_same_address() {
    let mut origin = Origin::serving("/a", ok("hello")).await;
    origin.stop();
    tokio::time::sleep(millis(20)).await;
    assert!(call(&origin, "GET", "/a").attempt().await.is_err());
    origin.restart().await;
    call(&origin, "GET", "/a").send().await.expect(200, "hello");
}
