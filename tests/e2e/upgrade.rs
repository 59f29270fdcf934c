//! A new program takes over from the running one (issue 4, line 8).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use harness::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

mod addresses;
mod meanwhile;
mod purges;

/// Asks over one connection for as long as it is kept, then over another, until it is told to stop. How many answers came.
async fn keep_asking(address: std::net::SocketAddr, stop: Arc<AtomicBool>, asked: Arc<AtomicUsize>) {
    while !stop.load(Ordering::Relaxed) {
        let mut stream = TcpStream::connect(address).await.expect("somebody always listens");
        loop {
            let request = "GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n";
            stream.write_all(request.as_bytes()).await.expect("a connection is not closed without a word");
            let mut answer = Vec::new();
            while !answer.ends_with(b"body of x") {
                let mut piece = [0; 4096];
                let read = stream.read(&mut piece).await.expect("a request is not answered by a reset");
                assert!(read > 0, "a request was not answered: {:?}", String::from_utf8_lossy(&answer));
                answer.extend_from_slice(&piece[..read]);
            }
            assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
            asked.fetch_add(1, Ordering::Relaxed);
            if String::from_utf8_lossy(&answer).to_lowercase().contains("connection: close") {
                break;
            }
            if stop.load(Ordering::Relaxed) {
                return;
            }
        }
    }
}

/// The same over HTTP/2, as a client does it that knows GOAWAY.
async fn keep_asking_http2(address: std::net::SocketAddr, stop: Arc<AtomicBool>, asked: Arc<AtomicUsize>) {
    use hyper_util::client::legacy::Client;
    let client = Client::builder(hyper_util::rt::TokioExecutor::new()).http2_only(true).build_http();
    while !stop.load(Ordering::Relaxed) {
        let request = http::Request::get(format!("http://{address}/x"));
        let request = request.body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
        let answer = match client.request(request).await {
            // It came between two steps of the client: the request was not sent, or not worked on, and a client that knows
            // GOAWAY asks again (RFC 9113 section 6.8).
            Err(error) if format!("{error:?}").contains("GoAway(b\"\", NO_ERROR, Remote)") => continue,
            answer => answer.expect("a request is answered"),
        };
        assert_eq!(answer.status(), 200);
        let body = http_body_util::BodyExt::collect(answer.into_body()).await.expect("the whole body comes");
        assert_eq!(body.to_bytes(), "body of x");
        asked.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_program_takes_over_under_load_and_no_request_fails() {
    let origin =
        Origin::answering(|request| ok(format!("body of {}", &request.target[1..])).cache_control("max-age=600")).await;
    let setup = setup().vhost(vhost("a.test").origin(&origin)).vhost(vhost("*").origin(&origin));
    let mut host = setup.own_program().start().await;
    host.get("/x").await.expect(200, "body of x");
    host.get("/kept").await.expect(200, "body of kept");
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(tokio::spawn(keep_asking(host.address(), stop.clone(), asked.clone())));
        clients.push(tokio::spawn(keep_asking_http2(host.address(), stop.clone(), asked.clone())));
    }
    // One that says nothing until it is all over asks the old program, which has waited for it.
    let mut idle = TcpStream::connect(host.address()).await.unwrap();
    let before = host.pid();
    let said = host.upgrade().await;
    said.code(0);
    assert_ne!(host.successor(), libc::pid_t::try_from(before).unwrap(), "{}", said.stdout);
    let since = asked.load(Ordering::Relaxed);
    tokio::time::sleep(millis(700)).await;
    idle.write_all(b"GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n").await.unwrap();
    let mut last = String::new();
    idle.read_to_string(&mut last).await.unwrap();
    assert!(last.starts_with("HTTP/1.1 200 ") && last.to_lowercase().contains("connection: close"), "{last}");
    assert_eq!(host.ended().await, 0);
    assert!(asked.load(Ordering::Relaxed) > since, "they go on with the new one");
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.expect("no request failed");
    }
    // The index has passed over: the origin is not asked again.
    host.get("/kept").await.expect(200, "body of kept").cache("hit");
    // And the new one can be upgraded in its turn, by signal.
    host.purge(json!({ "host": "a.test", "path": "/x" })).await;
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(host.successor()).unwrap(),
        rustix::process::Signal::USR2,
    )
    .unwrap();
    let first = host.successor();
    host.succeeded_by_signal().await;
    assert_ne!(host.successor(), first);
    host.get("/kept").await.expect(200, "body of kept").cache("hit");
}

#[tokio::test]
async fn what_does_not_come_up_leaves_the_old_program_serving() {
    let origin = Origin::serving("/x", ok("x").cache_control("max-age=600")).await;
    let mut host = Setup::from(vhost("a.test").origin(&origin)).own_program().start().await;
    host.get("/x").await.expect(200, "x");
    let program = host.path("proxyhost");
    let put = |text: &str| {
        std::fs::remove_file(&program).unwrap();
        std::fs::write(&program, text).unwrap();
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    };
    let good = std::fs::read(&program).unwrap();
    // No program at all, one that ends, and a hosts.json that the new one does not take.
    put("nonsense");
    host.upgrade().await.code(2);
    put("#!/bin/sh\nexit 3\n");
    host.upgrade().await.code(2).says(&["3"]);
    std::fs::remove_file(&program).unwrap();
    host.upgrade().await.code(2).says(&["proxyhost"]);
    std::fs::write(&program, good).unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let config = host.config().clone();
    host.rewrite(json!({ "hosts": { "b.test": { "origin": "nowhere" } } }));
    host.upgrade().await.code(2).says(&["b.test", "nowhere"]);
    // One that fails when the index and the sockets were given over already: the address is another's.
    host.write_config(&config);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    host.rewrite(json!({
        "listen": { "http": ["127.0.0.1:0", taken.local_addr().unwrap().to_string()] },
        "hosts": { "b.test": config["hosts"]["a.test"] },
    }));
    host.upgrade().await.code(2).says(&["cannot listen", &taken.local_addr().unwrap().port().to_string()]);
    host.get("/x").await.expect(200, "x").cache("hit");
    host.get("/fresh").await;
    assert!(host.purge(json!({ "host": "a.test", "path": "/x" })).await > 0);
    host.get("/x").await.expect(200, "x").cache("miss");
    // What is kept now survives a crash: the index is open again.
    host.get("/x").await.expect(200, "x").cache("hit");
    tokio::time::sleep(millis(500)).await;
    host.write_config(&config);
    host.crash_and_restart().await;
    host.get("/x").await.expect(200, "x").cache("hit");
}
