//! Reloading hosts.json: all or nothing (issue line 4).

use harness::policies;
use harness::prelude::*;
use harness::setup::merge;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn by_signal_and_by_request() {
    let origin = Origin::answering(|request| ok(request.target.clone()).cache_control("max-age=600")).await;
    let mut host = Host::with(vhost("a.test").origin(&origin)).await;
    host.get("/x").await.expect(200, "/x");
    host.get_from("b.test", "/x").await.status(421);
    host.rewrite(json!({ "hosts": { "b.test": { "origin": "origin1" } } }));
    host.reload().await.status(200);
    host.get_from("b.test", "/x").await.expect(200, "/x");
    // The cache stays.
    host.get("/x").await.cache("hit");
    host.rewrite(json!({ "hosts": { "c.test": { "origin": "origin1" } } }));
    host.signal(libc::SIGHUP);
    for _ in 0..200 {
        if host.get_from("c.test", "/x").await.status == 200 {
            return;
        }
        tokio::time::sleep(millis(50)).await;
    }
    panic!("SIGHUP changed nothing: {:?}", host.stderr());
}

#[tokio::test]
async fn a_bad_file_keeps_the_old_one_and_says_why() {
    let origin = Origin::answering(|request| ok(request.target.clone()).cache_control("max-age=600")).await;
    let mut host = Host::with(vhost("a.test").origin(&origin)).await;
    host.rewrite(
        json!({ "hosts": { "b.test": { "origin": "nowhere" }, "c.test": { "origin": "origin1" } }, "wrong": 1 }),
    );
    let answer = host.reload().await;
    assert!(answer.status.is_client_error() || answer.status.is_server_error(), "{answer:?}");
    for word in ["nowhere", "wrong"] {
        assert!(answer.text().contains(word), "{word:?} is not told: {}", answer.text());
    }
    // Whoever has no token learns that something is wrong, and not what.
    let ready = host.admin_without_token("GET", "/readyz").send().await.status(200).json();
    assert_eq!(ready["failed_reload"], json!(true), "{ready}");
    assert!(host.stats().await.to_string().contains("nowhere"));
    host.get("/x").await.expect(200, "/x");
    host.get_from("c.test", "/x").await.status(421);
    host.signal(libc::SIGHUP);
    host.stderr_line("nowhere").await;
    host.get("/x").await.expect(200, "/x");
}

#[tokio::test]
async fn requests_in_flight_finish_on_the_old_configuration() {
    let (reply, gate) = ok(generated(1, 200_000)).gated(1000);
    let origin = Origin::serving("/a", reply).await;
    let mut host = Host::with(vhost("a.test").origin(&origin)).await;
    let mut stream = host.call("GET", "/a").open().await.unwrap();
    let first = stream.read(1).await.unwrap();
    host.rewrite(json!({ "hosts": { "b.test": { "origin": "origin1" } } }));
    host.reload().await.status(200);
    gate.open();
    assert_eq!(first.len() + stream.read(usize::MAX).await.unwrap().len(), 200_000);
}

#[tokio::test]
async fn a_reload_that_fails_half_way_forgets_no_policy() {
    let origin = Origin::answering(|request| ok(request.target.clone())).await;
    let setup = setup().vhost(vhost("a.test").origin(&origin)).file("policies/a.test.wasm", policies::deny());
    let mut host = setup.file("ca.pem", "no certificate").start().await;
    host.get("/x").await.status(403);
    let good = std::fs::read(host.path("hosts.json")).unwrap();
    // Nothing is wrong with the file; what it names turns out to be unfit only when the origins are made.
    host.rewrite(json!({
        "origins": { "bad": { "http": { "url": "https://127.0.0.1:1", "ca": "ca.pem" } } },
        "hosts": { "a.test": { "policy": null } },
    }));
    let answer = host.reload().await;
    assert!(answer.status.as_u16() >= 400, "{answer:?}");
    host.get("/x").await.status(403);
    host.write("hosts.json", &good);
    std::fs::remove_file(host.path("policies/a.test.wasm")).unwrap();
    host.restart().await;
    // It was never told to do without.
    host.get("/x").await.status(503);
}

#[tokio::test]
async fn listeners_and_the_admin_token_change_at_a_reload() {
    let origin = Origin::answering(|request| ok(request.target.clone())).await;
    let mut host = setup().vhost(vhost("a.test").origin(&origin)).start().await;
    let old = host.address();
    let mut kept = TcpStream::connect(old).await.unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = taken.local_addr().unwrap().to_string();
    host.rewrite(json!({ "listen": { "http": [busy] } }));
    let answer = host.reload().await;
    assert!(answer.status.as_u16() >= 400 && answer.text().contains(&busy), "{answer:?}");
    host.get("/x").await.expect(200, "/x");

    // The same loopback network, another door.
    let first = host.token();
    let with = |token: &str, method: &str, target: &str| {
        host.admin_without_token(method, target).header("authorization", &format!("Bearer {token}"))
    };
    let mut changed = host.config().clone();
    merge(&mut changed, &json!({ "listen": { "http": ["127.0.0.3:0"] }, "admin": { "token": "another-token" } }));
    host.write_config(&changed);
    let answer = with(&first, "POST", "/reload").send().await;
    answer.status(200);
    let told = answer.text();
    let at: std::net::SocketAddr = told
        .split(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':'))
        .find_map(|word| word.parse().ok())
        .unwrap_or_else(|| panic!("it does not tell where it listens: {told}"));
    let mut fresh = TcpStream::connect(at).await.unwrap();
    for stream in [&mut fresh, &mut kept] {
        stream.write_all(b"GET /y HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("/y"), "{answer}");
    }
    with(&first, "GET", "/stats").send().await.status(401);
    with("another-token", "GET", "/stats").send().await.status(200);
    let start = std::time::Instant::now();
    while TcpStream::connect(old).await.is_ok() {
        assert!(start.elapsed() < secs(10), "the old address still accepts");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
