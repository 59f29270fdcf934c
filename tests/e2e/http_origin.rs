//! HTTP origins on good days and bad ones (issue lines 7 and 11).

use harness::prelude::*;

async fn host(origin: &(impl AsOrigin + ?Sized)) -> Host {
    Host::with(vhost("a.test").origin(origin).set("methods", "all")).await
}

#[tokio::test]
async fn the_host_field_is_the_origins_the_clients_or_a_literal() {
    let origin = Origin::answering(|request| ok(request.header("host").to_owned())).await;
    let with = |value: &str| origin.with(json!({ "http": { "host": value } }));
    host(&origin).await.get("/").await.expect(200, origin.address().to_string());
    host(&with("origin")).await.get("/").await.expect(200, origin.address().to_string());
    host(&with("client")).await.get("/").await.expect(200, "a.test");
    host(&with("inner.example")).await.get("/").await.expect(200, "inner.example");
}

#[tokio::test]
async fn every_framing_of_a_body() {
    let big = || ok(generated(1, 200_000)).cache_control("max-age=60");
    let origin =
        Origin::serving("/length", big()).await.and("/chunked", big().chunked()).and("/close", big().until_close());
    let host = host(&origin).await;
    for path in ["/length", "/chunked", "/close"] {
        host.get(path).await.expect(200, pattern(1, 0..200_000));
        host.get(path).await.expect(200, pattern(1, 0..200_000)).cache("hit").header("content-length", "200000");
    }
}

#[tokio::test]
async fn interim_answers_are_passed_over() {
    let early = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
    let origin = Origin::serving("/a", ok("hello").early(early)).await;
    host(&origin).await.get("/a").await.expect(200, "hello");
}

#[tokio::test]
async fn a_body_shorter_than_promised_is_cut_for_the_client_and_not_kept() {
    let fine = ok(generated(1, 100_000)).cache_control("max-age=60");
    for bad in
        [fine.clone().claim_length(150_000), fine.clone().cut_after(50_000), fine.clone().chunked().cut_after(50_000)]
    {
        let origin = Origin::serving("/a", bad).await;
        let host = host(&origin).await;
        let cut = host.call("GET", "/a").attempt().await;
        assert!(cut.as_ref().is_err() || cut.as_ref().is_ok_and(|answer| answer.status == 502), "{cut:?}");
        origin.set("/a", fine.clone());
        host.get("/a").await.expect(200, pattern(1, 0..100_000)).cache("miss");
    }
}

#[tokio::test]
async fn a_body_longer_than_promised_ends_where_it_was_promised_to() {
    let origin = Origin::serving("/a", ok("hello and more").claim_length(5).cache_control("max-age=60")).await;
    let host = host(&origin).await;
    host.get("/a").await.expect(200, "hello");
    // What stood behind it is nobody's answer.
    origin.set("/b", ok("b"));
    host.get("/b").await.expect(200, "b");
    let origin = Origin::serving("/a", ok("hello").garbage("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")).await;
    let host = self::host(&origin).await;
    host.get("/a").await.expect(200, "hello");
    origin.set("/b", ok("b"));
    host.get("/b").await.expect(200, "b");
}

#[tokio::test]
async fn refused_hanging_and_nonsense_are_told_apart() {
    let mut origin = Origin::serving("/nonsense", raw("this is not HTTP\r\n\r\n"))
        .await
        .and("/hang", hang())
        .and("/nothing", raw(""))
        .and("/huge-head", ok("x").header("x-big", &"a".repeat(2_000_000)));
    let with = origin.with(json!({ "timeouts": { "first_byte": "1s", "connect": "1s" } }));
    let host = host(&with).await;
    for (path, status, error) in [
        ("/nonsense", 502, "http_protocol_error"),
        ("/nothing", 502, "connection_terminated"),
        ("/huge-head", 502, "http_protocol_error"),
        ("/hang", 504, "http_response_timeout"),
    ] {
        let told = format!("proxyhost; error={error}");
        host.get(path).await.status(status).header("proxy-status", &told);
    }
    assert_eq!(origin.requests_to("/nothing"), 2, "one retry");
    assert_eq!(origin.requests_to("/hang"), 1, "who waited once has waited long enough");
    origin.stop();
    tokio::time::sleep(millis(50)).await;
    host.get("/refused").await.status(502).header("proxy-status", "proxyhost; error=connection_refused");
    let unknown = json!({ "http": { "url": "http://no-such-name.invalid" } });
    let nowhere = self::host(&origin.with(unknown)).await;
    nowhere.get("/").await.status(502).header("proxy-status", "proxyhost; error=dns_error");
}

#[tokio::test]
async fn what_nobody_asked_for_is_passed_on_to_nobody() {
    let origin = Origin::serving("/304", reply(304, "").etag("\"1\"")).await.and("/206", reply(206, "part"));
    let host = host(&origin).await;
    host.get("/304").await.status(502);
    host.get("/206").await.status(502);
    host.call("GET", "/304").header("if-none-match", "\"1\"").header("cache-control", "no-store").send().await;
}

#[tokio::test]
async fn a_missing_part_that_cannot_be_had_is_an_error_and_no_body_that_breaks_off() {
    let big = ok(generated(1, 5_000_000)).cache_control("max-age=600").etag("\"1\"");
    let mut origin = Origin::serving("/a", big.ranged()).await;
    let host = host(&origin).await;
    host.call("GET", "/a").range("3000000-3000009").send().await.status(206).cache("miss");
    host.call("GET", "/a").range("3000000-3000009").send().await.status(206).cache("hit");
    origin.stop();
    tokio::time::sleep(millis(50)).await;
    let answer = host.get("/a").await;
    answer.status(502).header("proxy-status", "proxyhost; error=connection_refused");
    host.call("GET", "/a").range("3000000-3000009").send().await.status(206).cache("hit");
}

#[tokio::test]
async fn an_origin_that_stalls_in_the_middle_of_its_body_does_not_hold_the_client_for_ever() {
    let (reply, _gate) = ok(generated(1, 100_000)).cache_control("max-age=60").gated(1000);
    let origin = Origin::serving("/a", reply).await;
    let host = host(&origin.with(json!({ "timeouts": { "idle": "1s" } }))).await;
    let start = std::time::Instant::now();
    assert!(host.call("GET", "/a").attempt().await.is_err());
    assert!(start.elapsed() < secs(20), "{:?}", start.elapsed());
}

#[tokio::test]
async fn connections_are_kept_and_a_dead_one_is_no_502() {
    let origin = Origin::answering(|request| ok(request.target.clone())).await;
    let host = host(&origin).await;
    for n in 0..20 {
        host.get(&format!("/{n}")).await.status(200);
    }
    // A client may have its last byte, and ask again, before the connection is back in the pool.
    assert!(origin.connections() <= 5, "connections are used again: {}", origin.connections());
    origin.drop_idle_connections();
    tokio::time::sleep(millis(100)).await;
    host.get("/after").await.expect(200, "/after");
    // One that dies with the request on it.
    origin.once("/x", ok("x").swallow_next());
    host.get("/x").await.expect(200, "x");
    host.get("/y").await.expect(200, "/y");
    // And one that closes right after its answer, again and again.
    origin.set("*", ok("z").close_silently());
    for n in 0..20 {
        host.get(&format!("/silent{n}")).await.expect(200, "z");
    }
}

#[tokio::test]
async fn what_is_not_idempotent_is_never_sent_twice_and_no_dead_connection_is_a_502() {
    let origin = Origin::answering(|request| ok(request.body.to_vec())).await;
    let host = host(&origin).await;
    for n in 0..10 {
        host.call("POST", "/p").body(format!("first {n}")).send().await.expect(200, format!("first {n}"));
        origin.drop_idle_connections();
        host.call("POST", "/p").body(format!("second {n}")).send().await.expect(200, format!("second {n}"));
    }
    let mut bodies: Vec<_> = origin.seen().into_iter().map(|seen| seen.body).collect();
    assert_eq!(bodies.len(), 20);
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len(), 20, "a request was sent twice");
    // A fresh connection that dies with the request on it is an honest 502, and one request.
    origin.set("/q", raw(""));
    host.call("POST", "/q").body("once").send().await.status(502);
    assert_eq!(origin.requests_to("/q"), 1);
}

#[tokio::test]
async fn bodies_stream_to_the_origin() {
    let origin = Origin::answering(|request| ok(format!("{} {}", request.method, request.body.len()))).await;
    let host = host(&origin).await;
    for method in ["POST", "PUT", "PATCH"] {
        host.call(method, "/a").body(pattern(1, 0..3_000_000)).send().await.expect(200, format!("{method} 3000000"));
    }
    host.call("DELETE", "/a").send().await.expect(200, "DELETE 0");
    let request = "POST /a HTTP/1.1\r\nhost: a.test\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    assert!(host.raw(request).await.text().ends_with("POST 3"));
}

#[tokio::test]
async fn a_body_beyond_max_body_is_413() {
    let origin = Origin::answering(|request| ok(format!("{}", request.body.len()))).await;
    let a = vhost("a.test").origin(&origin).set("methods", "all").set("max_body", 1000);
    let host = Host::with(a).await;
    host.call("POST", "/a").body(vec![b'x'; 1000]).send().await.expect(200, "1000");
    host.raw("POST /a HTTP/1.1\r\nhost: a.test\r\ncontent-length: 1001\r\n\r\n").await;
    let answer = host.raw("POST /a HTTP/1.1\r\nhost: a.test\r\ncontent-length: 1001\r\n\r\n").await;
    assert_eq!(answer.status(), 413, "{}", answer.text());
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn expect_continue_is_answered_when_the_body_is_wanted() {
    let origin = Origin::answering(|request| ok(request.body.to_vec())).await;
    let host = host(&origin).await;
    let head =
        "POST /a HTTP/1.1\r\nhost: a.test\r\ncontent-length: 3\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n";
    let answer = host.raw(format!("{head}abc")).await;
    assert_eq!(answer.statuses(), [100, 200], "{}", answer.text());
    assert!(answer.text().ends_with("abc"));
}

#[tokio::test]
async fn an_unsafe_method_invalidates_what_is_kept() {
    let origin = Origin::serving("/a", ok("hello").cache_control("max-age=60")).await;
    let host = host(&origin).await;
    host.get("/a").await.expect(200, "hello");
    host.call("POST", "/a").body("x").send().await.status(200);
    host.get("/a").await.expect(200, "hello").cache("miss");
}

#[tokio::test]
async fn tls_and_http2_to_the_origin() {
    let origin = Origin::start_tls().await;
    origin.set_handler("*", |request| ok(request.version.clone()).cache_control("max-age=60").etag("\"1\"").ranged());
    let host = host(&origin).await;
    host.get("/a").await.expect(200, "HTTP/2.0");
    host.call("GET", "/b").range("0-3").send().await.expect(206, "HTTP");
    // Without the authority that signed it, the origin is nobody.
    let strangers = json!({ "http": { "url": origin.url() } });
    let told = "proxyhost; error=tls_certificate_error";
    self::host(&strangers).await.get("/a").await.status(502).header("proxy-status", told);
}

#[tokio::test]
async fn forwarded_fields_come_from_us_unless_the_peer_is_trusted() {
    let origin = Origin::answering(|request| ok(request.header("x-forwarded-for").to_owned())).await;
    let from = async |host: &Host| host.call("GET", "/a").header("x-forwarded-for", "198.51.100.7").send().await.text();
    let plain = host(&origin).await;
    assert!(!from(&plain).await.contains("198.51.100.7"));
    let trusting = setup().vhost(vhost("a.test").origin(&origin)).config(json!({ "trusted_proxies": ["127.0.0.0/8"] }));
    assert!(from(&trusting.start().await).await.contains("198.51.100.7"));
}

#[tokio::test]
async fn what_is_told_of_the_authority_is_part_of_the_key() {
    let origin = Origin::answering(|request| {
        ok(format!("{} {}", request.header("host"), request.header("x-forwarded-host"))).cache_control("max-age=60")
    })
    .await;
    let host = Host::with(vhost("a.test").origin(&origin.with(json!({ "http": { "host": "client" } })))).await;
    host.get_from("A.test.:1337", "/a").await.expect(200, "a.test:1337 a.test:1337");
    host.get("/a").await.expect(200, "a.test a.test");
    host.get_from("A.TEST", "/a").await.expect(200, "a.test a.test").cache("hit");
    // A purge of the path takes all of them.
    host.purge(json!({ "host": "a.test", "path": "/a" })).await;
    for name in ["a.test:1337", "a.test"] {
        host.get_from(name, "/a").await.cache("miss");
    }
}
