//! After an upgrade two programs answer for a while: what is purged in one is purged in both.

use super::*;

/// A program whose cache holds `/x`, and an origin that counts.
async fn with_x() -> (Origin, Host) {
    let origin = Origin::answering(|_| ok("x").cache_control("max-age=600")).await;
    let virtual_host = vhost("a.test").origin(&origin).set("methods", "all");
    let virtual_host = virtual_host.set("purge_method", "PURGE").set("purge_allow", json!(["127.0.0.1"]));
    let host = Setup::from(virtual_host).own_program().start().await;
    host.get("/x").await.expect(200, "x").cache("miss");
    host.get("/x").await.expect(200, "x").cache("hit");
    (origin, host)
}

/// The beginning of a request, which the old program will answer when the rest has come.
async fn begun(host: &Host, start: &str) -> TcpStream {
    let mut stream = TcpStream::connect(host.address()).await.unwrap();
    stream.write_all(start.as_bytes()).await.unwrap();
    // Accepted and read, before the listeners pass over.
    tokio::time::sleep(millis(200)).await;
    stream
}

async fn ended(mut stream: TcpStream, rest: &str) -> String {
    stream.write_all(rest.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(secs(20), stream.read_to_string(&mut answer)).await.expect("it is answered").unwrap();
    answer
}

#[tokio::test]
async fn a_purge_in_the_new_program_is_in_force_in_the_old_one() {
    let (origin, mut host) = with_x().await;
    let kept = begun(&host, "GET /x HTTP/1.1\r\n").await;
    host.upgrade().await.code(0);
    host.get("/x").await.expect(200, "x").cache("hit");
    let asked = origin.requests();
    host.purge(json!({ "host": "a.test", "path": "/x" })).await;
    let answer = ended(kept, "Host: a.test\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && !answer.contains("hit"), "{answer}");
    assert_eq!(origin.requests(), asked + 1, "{answer}");
    assert_eq!(host.ended().await, 0);
}

#[tokio::test]
async fn what_is_stale_by_a_purge_is_so_in_both_programs() {
    let reply = ok("x").cache_control("max-age=600").etag("\"1\"").conditional();
    let origin = Origin::serving("/x", reply).await;
    let mut host = Setup::from(vhost("a.test").origin(&origin)).own_program().start().await;
    host.get("/x").await.expect(200, "x").cache("miss");
    host.purge(json!({ "host": "a.test", "glob": "/?", "mode": "soft" })).await;
    let (before, after) = (begun(&host, "GET /x HTTP/1.1\r\n").await, begun(&host, "GET /x HTTP/1.1\r\n").await);
    host.upgrade().await.code(0);
    // What was purged before it passed over is stale for the new program.
    host.get("/x").await.expect(200, "x").cache("revalidated");
    // The old one has what it had, and is told of what is purged now.
    let answer = ended(before, "Host: a.test\r\n\r\n").await;
    assert!(answer.contains("fwd=stale") && answer.contains("fwd-status=304"), "{answer}");
    host.purge(json!({ "host": "a.test", "mode": "soft" })).await;
    host.get("/x").await.expect(200, "x").cache("revalidated");
    host.get("/x").await.expect(200, "x").cache("hit");
    let answer = ended(after, "Host: a.test\r\n\r\n").await;
    assert!(answer.contains("fwd=stale") && answer.contains("fwd-status=304"), "{answer}");
    assert_eq!(host.ended().await, 0);
}

#[tokio::test]
async fn a_post_that_ends_in_the_old_program_invalidates_in_the_new_one() {
    let (_origin, mut host) = with_x().await;
    let head = "POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\nConnection: close\r\n\r\n";
    let posting = begun(&host, &format!("{head}ab")).await;
    host.upgrade().await.code(0);
    host.get("/x").await.expect(200, "x").cache("hit");
    let answer = ended(posting, "cd").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    host.get("/x").await.expect(200, "x").cache("miss");
    host.get("/x").await.expect(200, "x").cache("hit");
    assert_eq!(host.stats().await["cache"]["purge_sequence"], 1, "it is recorded");
}

#[tokio::test]
async fn a_purge_over_a_connection_from_before_is_in_force_in_both_and_honest_when_it_is_not() {
    let (_origin, mut host) = with_x().await;
    let purge = "PURGE /x HTTP/1.1\r\nHost: a.test\r\n";
    let (first, second) = (begun(&host, purge).await, begun(&host, purge).await);
    host.upgrade().await.code(0);
    host.get("/x").await.expect(200, "x").cache("hit");
    let answer = ended(first, "\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    host.get("/x").await.expect(200, "x").cache("miss");
    // The new one is gone: nobody records it.
    let new = rustix::process::Pid::from_raw(host.successor()).unwrap();
    rustix::process::kill_process(new, rustix::process::Signal::KILL).unwrap();
    let answer = ended(second, "\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    host.stderr_line("the program that took over may not know of it").await;
}

#[tokio::test]
async fn a_purge_at_the_admin_endpoint_over_a_connection_from_before_gets_its_number() {
    let (_origin, mut host) = with_x().await;
    let body = r#"{"host":"a.test","path":"/x"}"#;
    let head = format!("POST /purge HTTP/1.1\r\nHost: admin\r\nAuthorization: Bearer {}\r\n", host.token());
    let mut admin = TcpStream::connect(host.admin_address()).await.unwrap();
    admin.write_all(format!("{head}Content-Length: {}\r\n\r\n", body.len()).as_bytes()).await.unwrap();
    tokio::time::sleep(millis(200)).await;
    host.upgrade().await.code(0);
    let answer = ended(admin, body).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"sequence\":1"), "{answer}");
    host.get("/x").await.expect(200, "x").cache("miss");
    assert_eq!(host.purge(json!({ "all": true })).await, 2);
}
