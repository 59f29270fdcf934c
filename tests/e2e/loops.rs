//! Requests that come back (RFC 8586), and what is said of the way that a message took (Via, RFC 9110 section 7.6.3).

use harness::prelude::*;

/// An origin at this address, which is asked for the host that the client asked for.
fn at(address: std::net::SocketAddr) -> Value {
    json!({ "http": { "url": format!("http://{address}"), "host": "client" } })
}

/// A host that is its own origin for a.test; `inner.test` and `honest.test` have an honest one.
async fn in_front_of_itself(origin: &Origin) -> Host {
    let mut host = setup()
        .vhost(vhost("a.test").origin(origin))
        .vhost(vhost("inner.test").origin(origin))
        .vhost(vhost("outer.test").set("origin", "inner"))
        .origin("inner", origin)
        .start()
        .await;
    let own = host.address();
    host.rewrite(json!({
        "origins": { "itself": at(own), "inner": { "http": { "url": format!("http://{own}"), "host": "inner.test" } } },
        "hosts": { "a.test": { "origin": "itself" } },
    }));
    host.reload().await.status(200);
    host
}

#[tokio::test]
async fn a_host_that_is_its_own_origin_refuses_at_once() {
    let origin = Origin::serving("/a", ok("x").cache_control("max-age=600")).await;
    let mut host = in_front_of_itself(&origin).await;
    let begun = std::time::Instant::now();
    // Also those who wait for each other.
    let answers = futures_util::future::join_all((0..20).map(|_| host.get("/a"))).await;
    assert!(begun.elapsed() < secs(10), "{:?}", begun.elapsed());
    for answer in &answers {
        answer.status(508).header("proxy-status", "proxyhost; error=proxy_loop_detected");
        let said = answer.field("cache-status");
        assert!(said.starts_with("proxyhost; detail=loop, proxyhost; fwd=uri-miss; fwd-status=508"), "{said}");
    }
    host.call("POST", "/a").host("a.test").send().await.status(405);
    // Nothing of it is kept.
    host.rewrite(json!({ "hosts": { "a.test": { "origin": "origin1" } } }));
    host.reload().await.status(200);
    host.get("/a").await.expect(200, "x");
    host.stderr_line("a request came back").await;
}

#[tokio::test]
async fn a_cache_before_a_cache_is_no_loop() {
    let origin = Origin::serving("/a", ok("x").cache_control("max-age=600")).await;
    let host = in_front_of_itself(&origin).await;
    let answer = host.get_from("outer.test", "/a").await;
    answer.expect(200, "x").header("via", "1.1 proxyhost, 1.1 proxyhost");
    let said = answer.field("cache-status");
    assert_eq!(said.matches("fwd=uri-miss; fwd-status=200").count(), 2, "{said}");
    let seen = origin.last();
    assert_eq!(seen.headers("cdn-loop").len(), 2, "{seen:?}");
    assert_eq!(seen.headers("via"), ["1.1 proxyhost", "1.1 proxyhost"]);
    host.get_from("outer.test", "/a").await.expect(200, "x").cache("hit");
}

#[tokio::test]
async fn two_programs_in_a_circle_find_out() {
    let placeholder = Origin::start().await;
    let mut one = Host::with(vhost("a.test").origin(&placeholder)).await;
    let two = Host::with(vhost("a.test").origin(&at(one.address()))).await;
    one.rewrite(json!({ "origins": { "origin1": at(two.address()) } }));
    one.reload().await.status(200);
    for host in [&one, &two] {
        let begun = std::time::Instant::now();
        host.get("/a").await.status(508);
        assert!(begun.elapsed() < secs(10), "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn who_writes_our_pseudonym_is_refused_and_nobody_else() {
    let origin =
        Origin::answering(|request| ok(request.header("cdn-loop").to_owned()).cache_control("max-age=60")).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    let own = host.get("/echo").await.text();
    assert!(own.starts_with("proxyhost-"), "{own}");
    for line in [own.clone(), format!("x; a=\"{own}"), format!(",,;{own} \u{e9}"), own.to_uppercase()] {
        let call = || host.call("GET", "/a").header("cdn-loop", &line);
        call().send().await.status(508).header("cache-status", "proxyhost; detail=loop");
        call().header("connection", "cdn-loop").send().await.status(508);
    }
    host.get("/a").await.status(200);
    // The cache is not asked for what comes back, not even for what it has.
    host.call("GET", "/a").header("cdn-loop", &own).send().await.status(508);
    host.get("/a").await.cache("hit");
    // What others wrote goes on, before ours.
    let told = host.call("GET", "/b").header("cdn-loop", "other.example; x=1, third").send().await;
    told.expect(200, "other.example; x=1, third");
    assert_eq!(origin.last().headers("cdn-loop"), ["other.example; x=1, third", own.as_str()]);
}

#[tokio::test]
async fn what_another_cdn_refuses_as_a_loop_is_for_nobody_else() {
    let origin = Origin::answering(|request| {
        if request.headers("cdn-loop").iter().any(|line| line.contains("othercdn")) {
            reply(403, "loop").cache_control("max-age=600")
        } else {
            ok("fine").cache_control("max-age=600")
        }
    })
    .await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    host.call("GET", "/a").header("cdn-loop", "othercdn").send().await.expect(403, "loop").cache("detail=cdn-loop");
    host.get("/a").await.expect(200, "fine");
    host.call("GET", "/a").header("cdn-loop", "othercdn").send().await.expect(200, "fine").cache("hit");
}

#[tokio::test]
async fn via_names_the_version_that_a_message_came_by() {
    let origin = Origin::serving("/a", ok("x").cache_control("max-age=600").header("via", "1.0 before")).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    let answer = host.call("GET", "/a").header("via", "1.1 client").http2().send().await;
    answer.expect(200, "x").header("via", "1.0 before, 1.1 proxyhost");
    assert_eq!(origin.last().headers("via"), ["1.1 client", "2.0 proxyhost"]);
    host.get("/a").await.cache("hit").header("via", "1.0 before, 1.1 proxyhost");
    // A malformed one is passed on, and read by nobody here.
    host.call("GET", "/b").header("via", ";;, \u{e9}").send().await.status(404);
    assert_eq!(origin.last().headers("via").len(), 2);
}
