//! The server without a proxy before it: whether it does what S3 does.

use super::*;
use crate::client::{Answer, Call};
use crate::content::generated;
use crate::content::pattern;
use crate::sign::sigv4;

fn call(server: &S3Server, method: &str, path: &str) -> Call {
    Call::new(server.address(), method, path, &server.address().to_string())
}

fn signed(server: &S3Server, method: &str, path: &str, secret: &str) -> Call {
    let mut call = call(server, method, path);
    for (name, value) in sigv4(method, &server.address().to_string(), path, ACCESS_KEY, secret) {
        call = call.header(&name, &value);
    }
    call
}

async fn get(server: &S3Server, path: &str) -> Answer {
    signed(server, "GET", path, SECRET_KEY).send().await
}

#[tokio::test]
async fn signatures_are_checked() {
    let server = S3Server::with_bucket("site").await;
    server.put("site", "a.txt", object("hello").content_type("text/plain").meta("colour", "blue"));
    let answer = get(&server, "/site/a.txt").await;
    answer.expect(200, "hello").header("content-type", "text/plain").header("x-amz-meta-colour", "blue");
    answer.header("etag", "\"5d41402abc4b2a76b9719d911017c592\"");
    signed(&server, "GET", "/site/a.txt", "wrong").send().await.status(403);
    call(&server, "GET", "/site/a.txt").send().await.status(403);
    server.publish("site");
    call(&server, "GET", "/site/a.txt").send().await.expect(200, "hello");
    assert_eq!(server.count("GET", "a.txt"), 4);
    assert_eq!(server.seen()[1].status, 403);
}

#[tokio::test]
async fn what_is_not_there_is_told_apart() {
    let server = S3Server::with_bucket("site").await;
    let answer = get(&server, "/site/nothing").await;
    answer.status(404);
    assert!(answer.text().contains("NoSuchKey"), "{}", answer.text());
    let answer = get(&server, "/elsewhere/nothing").await;
    answer.status(404);
    assert!(answer.text().contains("NoSuchBucket"), "{}", answer.text());
    server.refuse("site", true);
    get(&server, "/site/nothing").await.status(403);
}

#[tokio::test]
async fn ranges_and_conditions() {
    let server = S3Server::with_bucket("site").await;
    server.publish("site");
    server.put("site", "big", generated(1, 1_000_000).into());
    let whole = pattern(1, 0..1_000_000);
    let ranged = async |range: &str| call(&server, "GET", "/site/big").range(range).send().await;
    ranged("0-9").await.expect(206, &whole[..10]).header("content-range", "bytes 0-9/1000000");
    ranged("999990-").await.expect(206, &whole[999_990..]);
    ranged("-5").await.expect(206, &whole[999_995..]).header("content-length", "5");
    ranged("1000000-").await.status(416);
    let head = call(&server, "HEAD", "/site/big").send().await;
    head.expect(200, "").header("content-length", "1000000");
    let (etag, modified) = (head.field("etag"), head.field("last-modified"));
    let asked = async |name: &str, value: &str| call(&server, "GET", "/site/big").header(name, value).send().await;
    asked("if-none-match", &etag).await.expect(304, "").header("etag", &etag);
    asked("if-none-match", "\"other\"").await.status(200);
    asked("if-match", "\"other\"").await.status(412);
    asked("if-match", &etag).await.status(200);
    asked("if-modified-since", &modified).await.status(304);
    asked("if-unmodified-since", &modified).await.status(200);
}

#[tokio::test]
async fn faults_come_when_they_are_ordered() {
    let server = S3Server::with_bucket("site").await;
    server.publish("site");
    server.put("site", "big", generated(1, 300_000).into());
    let get = || call(&server, "GET", "/site/big");
    server.fail_next(1, Fault::SlowDown);
    get().send().await.status(503);
    server.fail_key("other", Fault::AccessDenied);
    get().send().await.status(200);
    server.heal();
    server.fail_next(1, Fault::CloseAfter(100_000));
    let mut stream = get().open().await.unwrap();
    assert_eq!(stream.status, 200);
    let mut received = 0;
    let error = loop {
        match stream.next().await {
            Ok(piece) => received += piece.expect("the end is not an end").len(),
            Err(error) => break error,
        }
    };
    assert_eq!(received, 100_000, "{error}");
    server.fail_next(1, Fault::ClaimMore(7));
    assert!(get().attempt().await.is_err());
    server.fail_next(1, Fault::ReplaceAfterwards(Box::new(object("new"))));
    get().send().await.expect(200, pattern(1, 0..300_000));
    get().send().await.expect(200, "new");
}
