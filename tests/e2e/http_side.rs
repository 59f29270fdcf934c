//! The HTTP side (issue line 11): versions, methods, limits, framing.

use harness::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn host() -> (Origin, Host) {
    let origin = Origin::answering(|_| ok("hello").cache_control("max-age=60")).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    (origin, host)
}

#[tokio::test]
async fn http2_with_prior_knowledge() {
    let (_origin, host) = host().await;
    let answer = host.call("GET", "/a").http2().send().await;
    answer.expect(200, "hello");
    assert_eq!(answer.version, http::Version::HTTP_2);
    host.get("/a").await.expect(200, "hello").cache("hit");
}

#[tokio::test]
async fn one_connection_serves_many_requests() {
    let (_origin, host) = host().await;
    let one = "GET /a HTTP/1.1\r\nhost: a.test\r\n\r\n";
    let answer = host.raw(one.repeat(10)).await;
    assert_eq!(answer.statuses(), [200; 10]);
    let answer = host.raw("GET /a HTTP/1.0\r\nhost: a.test\r\n\r\n").await;
    assert!(answer.text().starts_with("HTTP/1.") && answer.text().ends_with("hello") && answer.closed, "{answer:?}");
}

#[tokio::test]
async fn methods_that_a_host_does_not_take_are_405() {
    let (origin, host) = host().await;
    for method in ["POST", "PUT", "DELETE", "PATCH", "PURGE", "TRACE", "CONNECT", "BREW"] {
        let answer = host.raw(format!("{method} /a HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n")).await;
        let fine = if method == "CONNECT" { matches!(answer.status(), 400 | 405) } else { answer.status() == 405 };
        assert!(fine, "{method}: {}", answer.text());
    }
    assert!(host.call("POST", "/a").send().await.status(405).field("allow").contains("GET"));
    assert_eq!(origin.requests(), 0);
    let options = host.call("OPTIONS", "/a").send().await;
    assert!(options.status.is_success(), "{options:?}");
}

#[tokio::test]
async fn a_request_that_brings_a_body_to_a_reading_host_is_refused() {
    let (origin, host) = host().await;
    let answer = host.raw("GET /a HTTP/1.1\r\nhost: a.test\r\ncontent-length: 5\r\n\r\nhello").await;
    assert!(matches!(answer.status(), 400 | 413), "{}", answer.text());
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn a_head_of_a_megabyte_is_431() {
    let (_origin, host) = host().await;
    let huge = "a".repeat(1_000_000);
    let answer = host.raw(format!("GET /a HTTP/1.1\r\nhost: a.test\r\nx-big: {huge}\r\n\r\n")).await;
    assert!(matches!(answer.status(), 431 | 0) && answer.closed, "{}", answer.status());
    let many: String = (0..5000).map(|n| format!("x-{n}: y\r\n")).collect();
    let answer = host.raw(format!("GET /a HTTP/1.1\r\nhost: a.test\r\n{many}\r\n")).await;
    assert!(matches!(answer.status(), 431 | 0) && answer.closed, "{}", answer.status());
    let answer = host.raw(format!("GET /{huge} HTTP/1.1\r\nhost: a.test\r\n\r\n")).await;
    assert!(matches!(answer.status(), 414 | 431 | 0) && answer.closed, "{}", answer.status());
    host.get("/a").await.expect(200, "hello");
}

#[tokio::test]
async fn framing_that_can_be_read_in_two_ways_is_refused() {
    let origin = Origin::answering(|_| ok("hello")).await;
    let host = Host::with(vhost("a.test").origin(&origin).set("methods", "all")).await;
    for fields in [
        "content-length: 5\r\ncontent-length: 6\r\n",
        "content-length: 5, 6\r\n",
        "content-length: -1\r\n",
        "content-length: +5\r\n",
        "content-length: 99999999999999999999\r\n",
        "transfer-encoding: gzip\r\n",
        "transfer-encoding: chunked, gzip\r\n",
        "transfer-encoding : chunked\r\n",
    ] {
        let answer = host.raw(format!("POST /a HTTP/1.1\r\nhost: a.test\r\n{fields}\r\nhello")).await;
        assert!(matches!(answer.status(), 400 | 413 | 501), "{fields:?}: {}", answer.text());
    }
    let both = "POST /a HTTP/1.1\r\nhost: a.test\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: a.test\r\n\r\n";
    host.raw(both).await;
    // Whatever was answered: what the origin got was framed in one way.
    for seen in origin.seen() {
        assert!(!(seen.has("content-length") && seen.has("transfer-encoding")), "{seen:?}");
    }
}

#[tokio::test]
async fn host_fields_that_are_none_are_400() {
    let (_origin, host) = host().await;
    for head in [
        "GET /a HTTP/1.1\r\n\r\n",
        "GET /a HTTP/1.1\r\nhost: a.test\r\nhost: b.test\r\n\r\n",
        "GET /a HTTP/1.1\r\nhost: a.test/x\r\n\r\n",
        "GET /a HTTP/1.1\r\nhost: a test\r\n\r\n",
        "GET /a HTTP/1.1\r\nhost: \r\n\r\n",
        "GET /a HTTP/1.1\r\nhost: user@a.test\r\n\r\n",
    ] {
        let answer = host.raw(head).await;
        assert!(matches!(answer.status(), 400 | 421), "{head:?}: {}", answer.text());
    }
}

#[tokio::test]
async fn a_slow_head_is_cut() {
    let (_origin, host) = host().await;
    let answer = host.raw_for("GET /a HTTP/1.1\r\nhost: a.t", secs(20)).await;
    assert!(answer.closed && matches!(answer.status(), 408 | 0), "{answer:?}");
    let nothing = host.raw_for("", secs(20)).await;
    assert!(nothing.closed, "a connection that says nothing is kept for ever");
}

#[tokio::test]
async fn date_and_no_surprises() {
    let (_origin, host) = host().await;
    let answer = host.get("/a").await;
    assert!(httpdate::parse_http_date(&answer.field("date")).is_ok(), "{answer:?}");
    assert_eq!(answer.headers.get_all("date").iter().count(), 1);
    assert_eq!(answer.headers.get_all("content-length").iter().count(), 1);
}

#[tokio::test]
async fn many_streams_of_one_http2_connection() {
    let origin = Origin::answering(|request| {
        let seed: u64 = request.target.trim_start_matches('/').parse().unwrap_or(0);
        ok(generated(seed, 200_000)).cache_control("max-age=60")
    })
    .await;
    let host = Host::with(vhost("a.test").origin(&origin).set("methods", "all")).await;
    let stream = tokio::net::TcpStream::connect(host.address()).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (sender, driver) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    let driver = tokio::spawn(driver);
    let one = |seed: u64| {
        let mut sender = sender.clone();
        async move {
            use http_body_util::BodyExt as _;
            let request = http::Request::get(format!("http://a.test/{}", seed % 20));
            let body = http_body_util::Empty::<Bytes>::new();
            let response = sender.send_request(request.body(body).unwrap()).await.unwrap();
            assert_eq!(response.status(), 200);
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body, pattern(seed % 20, 0..200_000), "{seed}");
        }
    };
    futures_util::future::join_all((0..60).map(one)).await;
    assert_eq!(origin.requests(), 20);
    driver.abort();
    // A body on a stream of its own, to the origin and back.
    origin.set_handler("/echo", |request| ok(request.body.to_vec()));
    let posted = host.call("POST", "/echo").body(pattern(1, 0..1_000_000)).http2().send().await;
    posted.expect(200, pattern(1, 0..1_000_000));
}

#[tokio::test]
async fn what_strangers_claim_reaches_no_origin_and_no_other_client() {
    let origin = Origin::answering(|request| {
        let told: Vec<String> = request
            .headers
            .iter()
            .filter(|(name, _)| name != "host" && name != "via")
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        ok(told.join("\n")).cache_control("max-age=600")
    })
    .await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    let claims = [
        "x-forwarded-scheme",
        "x-forwarded-ssl",
        "x-original-host",
        "x-rewrite-url",
        "x-host",
        "true-client-ip",
        "x_forwarded_host",
        "x-http-method-override",
    ];
    let mut call = host.call("GET", "/a");
    for name in claims {
        call = call.header(name, "evil");
    }
    let answer = call.send().await;
    answer.status(200);
    assert!(!answer.text().contains("evil"), "{}", answer.text());
}

#[tokio::test]
async fn targets_without_a_path_are_the_root_or_refused() {
    let origin = Origin::answering(|request| ok(request.target.clone())).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    for (target, status, body) in [
        ("http://a.test?x=1", 200, "/?x=1"),
        ("http://a.test", 200, "/"),
        ("a.test:80", 400, ""),
        ("ftp://a.test/", 400, ""),
    ] {
        let answer = host.raw(format!("GET {target} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")).await;
        assert_eq!(answer.status(), status, "{target}");
        assert!(answer.text().contains(body), "{target}: {}", answer.text());
    }
}

#[tokio::test]
async fn a_client_that_closes_its_sending_side_gets_its_answer() {
    let origin = Origin::serving("/a", ok("at last").late(secs(12))).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    let mut stream = tokio::net::TcpStream::connect(host.address()).await.unwrap();
    stream.write_all(b"GET /a HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("at last"), "{answer}");
}

#[tokio::test]
async fn a_transfer_coding_other_than_chunked_is_refused() {
    let origin = Origin::answering(|_| ok("taken")).await;
    let host = Host::with(vhost("a.test").origin(&origin).set("methods", "all")).await;
    let post = |codings: &str| {
        format!("POST /x HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n{codings}\r\n2\r\nhi\r\n0\r\n\r\n")
    };
    assert_eq!(host.raw(post("Transfer-Encoding: chunked\r\n")).await.status(), 200);
    assert_eq!(host.raw(post("Transfer-Encoding: Chunked\r\n")).await.status(), 200);
    for codings in [
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: identity, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    ] {
        let status = host.raw(post(codings)).await.status();
        assert!(matches!(status, 400 | 501), "{codings}: {status}");
    }
    assert_eq!(origin.requests(), 2);
}

#[tokio::test]
async fn requests_in_frames_are_like_those_in_lines_to_an_origin() {
    let origin = Origin::answering(|request| ok(format!("{:?}", request.headers("cookie")))).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    let h2 = |target: &str| host.call("GET", target).http2();
    let cookies = h2("/x").header("cookie", "a=1").header("cookie", "b=2").send().await;
    cookies.expect(200, r#"["a=1; b=2"]"#);
    for name in ["content_length", "content.length", "transfer_encoding", "transfer.encoding"] {
        h2("/x").header(name, "0").send().await.status(400);
    }
    h2(&format!("/{}", "x".repeat(17 << 10))).send().await.status(414);
    let asked = origin.requests();
    // Who asks for https comes by https (RFC 9110 section 7.4).
    let clear = host.raw("GET https://a.test/x HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").await;
    assert_eq!(clear.status(), 421, "{}", clear.text());
    assert_eq!(origin.requests(), asked);
}

#[tokio::test]
async fn max_forwards_is_counted_down_and_ends_here() {
    let origin = Origin::answering(|request| ok(request.header("max-forwards").to_owned())).await;
    let host = Host::with(vhost("a.test").origin(&origin).set("methods", "all")).await;
    host.call("OPTIONS", "/x").header("max-forwards", "2").send().await.expect(200, "1");
    host.call("OPTIONS", "/x").header("max-forwards", "0").send().await.status(204);
    host.call("TRACE", "/x").header("max-forwards", "0").send().await.status(405);
    assert_eq!(origin.requests(), 1);
}
