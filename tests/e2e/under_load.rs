//! What happens while much else does: swaps, followers, a log that nobody reads, crashes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use harness::policies;
use harness::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn no_request_fails_while_policies_and_configuration_change() {
    let origin = Origin::answering(|request| ok(request.target.clone()).cache_control("max-age=600")).await;
    let host = Host::with(vhost("a.test").origin(&origin).wasm("p.wasm", &policies::next(), json!({}))).await;
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (call, stop) = (host.call("GET", "/x"), stop.clone());
            tokio::spawn(async move {
                let mut statuses = BTreeMap::new();
                while !stop.load(Ordering::Relaxed) {
                    let answer = call.clone().send().await;
                    *statuses.entry(answer.status.as_u16()).or_insert(0u32) += 1;
                }
                statuses
            })
        })
        .collect();
    for (wasm, status) in [(policies::deny(), 403), (policies::next(), 200)].iter().cycle().take(6) {
        host.write("policies/p.wasm", wasm);
        host.reload().await.status(200);
        // What a reload has read is in force when it answers.
        host.get("/x").await.status(*status);
    }
    stop.store(true, Ordering::Relaxed);
    let mut all = BTreeMap::new();
    for client in clients {
        for (status, count) in client.await.expect("a client that fails has panicked") {
            *all.entry(status).or_insert(0) += count;
        }
    }
    assert!(all.keys().all(|status| matches!(status, 200 | 403)), "{all:?}");
    assert!(all.len() == 2, "both policies were at work: {all:?}");
}

#[tokio::test]
async fn fifty_followers_of_a_slow_fill_cost_one_request() {
    let reply = ok(generated(1, 2_000_000)).cache_control("max-age=600").slowly(50_000, millis(10));
    let origin = Origin::serving("/a", reply).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    let whole = pattern(1, 0..2_000_000);
    let calls = (0..50).map(|_| host.call("GET", "/a").send());
    for answer in futures_util::future::join_all(calls).await {
        answer.expect(200, &whole);
    }
    assert_eq!(origin.requests(), 1);
}

/// Each of them has the head and the first byte, and none the last, before the origin goes on: so all are there at once. The
/// origin counts what it is asked.
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_followers_cost_one_request() {
    use http_body_util::BodyExt as _;
    const CONNECTIONS: usize = 800;
    const STREAMS: usize = 125;
    const LENGTH: u64 = 20_000;
    // Those who come in the first second wait for the head too.
    let (reply, gate) = ok(generated(1, LENGTH)).cache_control("max-age=600").late(secs(1)).gated(1);
    let origin = Origin::serving("/a", reply).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    let connect = async || {
        let stream = tokio::net::TcpStream::connect(host.address()).await.unwrap();
        let (io, executor) = (hyper_util::rt::TokioIo::new(stream), hyper_util::rt::TokioExecutor::new());
        let (sender, driver) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
        tokio::spawn(driver);
        sender
    };
    let mut clients = tokio::task::JoinSet::new();
    let (started, mut waiting) = tokio::sync::mpsc::unbounded_channel();
    for _ in 0..CONNECTIONS {
        let sender = connect().await;
        for _ in 0..STREAMS {
            let (mut sender, started) = (sender.clone(), started.clone());
            clients.spawn(async move {
                let request = http::Request::get("http://a.test/a");
                let body = http_body_util::Empty::<Bytes>::new();
                let response = sender.send_request(request.body(body).unwrap()).await.unwrap();
                assert_eq!(response.status(), 200);
                let mut body = response.into_body();
                let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
                assert!((first.len() as u64) < LENGTH, "the origin has not gone on yet");
                started.send(()).unwrap();
                let mut all = first.to_vec();
                all.extend_from_slice(&body.collect().await.unwrap().to_bytes());
                assert_eq!(all, pattern(1, 0..LENGTH));
            });
        }
    }
    let all_are_there = async {
        for _ in 0..CONNECTIONS * STREAMS {
            waiting.recv().await.unwrap();
        }
    };
    tokio::time::timeout(secs(120), all_are_there).await.expect("all get the first byte");
    assert_eq!(origin.requests(), 1);
    gate.open();
    let all_are_done = async {
        while let Some(done) = clients.join_next().await {
            done.expect("a client that gets anything else has panicked");
        }
    };
    tokio::time::timeout(secs(120), all_are_done).await.expect("all get the last byte");
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn a_stdout_that_nobody_reads_holds_no_request() {
    let origin = Origin::serving("/a", ok("hello").cache_control("max-age=600")).await;
    let host = setup().vhost(vhost("a.test").origin(&origin)).stdout_unread().start().await;
    host.get("/a").await.expect(200, "hello");
    // Each line is as long as its user agent: the pipe, the writer's batch and the queue are full soon.
    let request = format!("GET /a HTTP/1.1\r\nhost: a.test\r\nuser-agent: {}\r\n\r\n", "x".repeat(1000)).repeat(50);
    let mut sent = 0;
    while host.metric("proxyhost_telemetry_log_records_dropped_total").await == 0.0 {
        assert!(sent < 60_000, "{sent} lines and none was dropped");
        let answers = futures_util::future::join_all((0..40).map(|_| host.raw_for(&request, millis(300)))).await;
        for answer in answers {
            assert_eq!(answer.statuses(), [200; 50]);
            sent += 50;
        }
    }
    let start = std::time::Instant::now();
    host.get("/a").await.expect(200, "hello").cache("hit");
    assert!(start.elapsed() < secs(2), "{:?}", start.elapsed());
    host.signal(libc::SIGTERM);
    let mut host = host;
    assert_eq!(host.ended().await, 0, "nor does it hold the end");
}

#[tokio::test]
async fn a_crash_in_the_middle_of_a_fill_leaves_no_half_of_it() {
    let fine = ok(generated(1, 5_000_000)).cache_control("max-age=600").etag("\"1\"").conditional().ranged();
    let (reply, _gate) = fine.clone().gated(2_500_000);
    let origin = Origin::serving("/a", reply).await;
    let mut host = Host::with(vhost("a.test").origin(&origin)).await;
    let mut stream = host.call("GET", "/a").open().await.unwrap();
    stream.read(2_000_000).await.unwrap();
    host.crash_and_restart().await;
    // "Within a second" is for an idle machine; two cores with many plays on them get more.
    assert!(host.started_in() < secs(5), "{:?}", host.started_in());
    origin.set("/a", fine);
    host.get("/a").await.expect(200, pattern(1, 0..5_000_000));
    host.get("/a").await.expect(200, pattern(1, 0..5_000_000)).cache("hit");
}

#[tokio::test]
async fn many_misses_of_many_paths_at_once_are_all_right() {
    let origin = Origin::answering(|request| {
        let seed: u64 = request.target.trim_start_matches("/").parse().unwrap_or(0);
        ok(generated(seed, 10_000 + seed * 1000)).cache_control("max-age=600")
    })
    .await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    for _ in 0..2 {
        let calls = (0..200u64).map(|seed| host.call("GET", &format!("/{seed}")).send());
        for (seed, answer) in (0u64..).zip(futures_util::future::join_all(calls).await) {
            answer.expect(200, pattern(seed, 0..10_000 + seed * 1000));
        }
    }
    assert_eq!(origin.requests(), 200);
}

/// Bodies of this size lie in memory that the kernel sends from; with so little of it, places are used again and again.
#[tokio::test]
async fn slow_readers_get_their_bytes_while_others_take_the_memory() {
    const LENGTH: u64 = 300_000;
    let origin = Origin::answering(|request| {
        let seed: u64 = request.target.trim_start_matches("/").parse().unwrap_or(0);
        ok(generated(seed, LENGTH)).cache_control("max-age=600").etag(&format!("\"{seed}\""))
    })
    .await;
    let host =
        setup().vhost(vhost("a.test").origin(&origin)).config(json!({ "cache": { "memory": "8MB" } })).start().await;
    let seeds = 0..12u64;
    for _ in 0..2 {
        for seed in seeds.clone() {
            host.get(&format!("/{seed}")).await.expect(200, pattern(seed, 0..LENGTH));
        }
    }
    let mut slow = Vec::new();
    for seed in seeds.clone() {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        // Most of the body stays in the sender's socket, pages of the memory and all.
        socket.set_recv_buffer_size(4096).unwrap();
        let mut stream = socket.connect(host.address()).await.unwrap();
        stream
            .write_all(format!("GET /{seed} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut first = vec![0; 1000];
        stream.read_exact(&mut first).await.unwrap();
        slow.push((seed, stream, first));
    }
    for seed in 100..220 {
        host.get(&format!("/{seed}")).await.expect(200, pattern(seed, 0..LENGTH));
    }
    for (seed, mut stream, mut bytes) in slow {
        stream.read_to_end(&mut bytes).await.unwrap();
        let body = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        assert!(bytes[body..] == pattern(seed, 0..LENGTH)[..], "the body of {seed} is not its own");
    }
}
