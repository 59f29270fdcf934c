//! What is kept, what is not, and who waits for whom (issue lines 4 and 8).

use harness::prelude::*;

#[tokio::test]
async fn the_second_request_is_a_hit() {
    let origin = Origin::serving("/a", ok("hello").cache_control("max-age=60").header("x-own", "1")).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    host.get("/a").await.expect(200, "hello").cache("miss").cache("stored");
    let hit = host.get("/a").await;
    hit.expect(200, "hello").cache("hit").header("x-own", "1").header("content-length", "5");
    assert!(hit.number("age") <= 5, "{hit:?}");
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn hosts_are_found_by_name_then_wildcard_then_star() {
    let answer = |text: &str| ok(text).cache_control("max-age=60");
    let exact = Origin::serving("/", answer("exact")).await;
    let wildcard = Origin::serving("/", answer("wildcard")).await;
    let star = Origin::serving("/", answer("star")).await;
    let host = setup()
        .vhost(vhost("a.b.test").origin(&exact))
        .vhost(vhost("*.b.test").origin(&wildcard))
        .vhost(vhost("*").origin(&star))
        .start()
        .await;
    for _ in 0..2 {
        host.get_from("a.b.test", "/").await.expect(200, "exact");
        host.get_from("A.B.Test:8080", "/").await.expect(200, "exact");
        host.get_from("other.b.test", "/").await.expect(200, "wildcard");
        host.get_from("b.test", "/").await.expect(200, "star");
        host.get_from("elsewhere.example", "/").await.expect(200, "star");
    }
    // Once for each port: an http origin is told the port, and may write it into links.
    assert_eq!(exact.requests(), 2);
}

#[tokio::test]
async fn names_under_one_wildcard_share_no_entries() {
    let origin = Origin::answering(|request| ok(request.header("host").to_owned()).cache_control("max-age=60")).await;
    let client = origin.with(json!({ "http": { "host": "client" } }));
    let host = Host::with(vhost("*.b.test").origin(&client)).await;
    for _ in 0..2 {
        host.get_from("one.b.test", "/").await.expect(200, "one.b.test");
        host.get_from("two.b.test", "/").await.expect(200, "two.b.test");
    }
    assert_eq!(origin.requests(), 2);
}

#[tokio::test]
async fn an_unknown_host_is_421() {
    let origin = Origin::serving("/a", ok("hello")).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    host.get_from("b.test", "/a").await.status(421);
    host.get_from("a.test.evil.example", "/a").await.status(421);
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn what_the_origin_forbids_is_not_kept() {
    for forbidden in ["no-store", "private", "private, max-age=60", "no-store, max-age=60"] {
        let origin = Origin::serving("/a", ok("hello").cache_control(forbidden)).await;
        let host = Host::with(vhost("a.test").origin(&origin).set("ttl", "5m")).await;
        host.get("/a").await.expect(200, "hello");
        host.get("/a").await.expect(200, "hello").cache("miss");
        assert_eq!(origin.requests(), 2, "{forbidden}");
    }
}

#[tokio::test]
async fn a_cookie_is_kept_only_when_the_origin_gave_a_life_in_so_many_words() {
    let origin = Origin::serving("/implied", ok("hello").header("set-cookie", "a=1"))
        .await
        .and("/said", ok("hello").header("set-cookie", "a=1").cache_control("max-age=60"));
    let host = Host::with(vhost("a.test").origin(&origin).set("ttl", "5m")).await;
    for path in ["/implied", "/said"] {
        host.get(path).await.status(200);
        host.get(path).await.header("set-cookie", "a=1");
    }
    assert_eq!((origin.requests_to("/implied"), origin.requests_to("/said")), (2, 1));
}

#[tokio::test]
async fn requests_with_authorization_are_shared_only_when_the_origin_says_so() {
    let origin = Origin::serving("/plain", ok("x").cache_control("max-age=60"))
        .await
        .and("/public", ok("x").cache_control("public, max-age=60"))
        .and("/shared", ok("x").cache_control("s-maxage=60"))
        .and("/must", ok("x").cache_control("max-age=60, must-revalidate"));
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    for path in ["/plain", "/public", "/shared", "/must"] {
        for _ in 0..2 {
            host.call("GET", path).header("authorization", "Basic YTpi").send().await.expect(200, "x");
        }
    }
    let counts = ["/plain", "/public", "/shared", "/must"].map(|path| origin.requests_to(path));
    assert_eq!(counts, [2, 1, 1, 1]);
    assert_eq!(origin.seen()[0].header("authorization"), "Basic YTpi");
}

#[tokio::test]
async fn ttl_is_the_life_of_what_the_origin_says_nothing_about() {
    let origin = Origin::serving("/a", ok("hello"))
        .await
        .and("/missing", reply(404, "none"))
        .and("/refused", reply(403, "no"))
        .and("/broken", reply(500, "oh"));
    let host = Host::with(vhost("a.test").origin(&origin).set("ttl", 60)).await;
    for path in ["/a", "/missing", "/refused", "/broken"] {
        host.get(path).await;
        host.get(path).await;
    }
    // It never applies to 403 and 5xx.
    let counts = ["/a", "/missing", "/refused", "/broken"].map(|path| origin.requests_to(path));
    assert_eq!(counts, [1, 1, 2, 2]);
}

#[tokio::test]
async fn without_a_ttl_a_response_with_an_etag_alone_is_kept_and_asked_about() {
    let origin = Origin::serving("/a", ok("hello").etag("\"1\"").conditional()).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    host.get("/a").await.expect(200, "hello");
    host.get("/a").await.expect(200, "hello").cache("revalidated");
    assert_eq!(origin.last().header("if-none-match"), "\"1\"");
}

#[tokio::test]
async fn the_query_is_part_of_the_key_of_http_origins() {
    let origin = Origin::answering(|request| ok(request.target.clone()).cache_control("max-age=60")).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    for _ in 0..2 {
        host.get("/a?x=1").await.expect(200, "/a?x=1");
        host.get("/a?x=2").await.expect(200, "/a?x=2");
        host.get("/a").await.expect(200, "/a");
    }
    assert_eq!(origin.requests(), 3);
}

#[tokio::test]
async fn head_is_answered_from_what_get_has_kept() {
    let origin = Origin::serving("/a", ok("hello").cache_control("max-age=60")).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    host.head("/a").await.expect(200, "").header("content-length", "5");
    host.get("/a").await.expect(200, "hello");
    let before = origin.requests();
    host.head("/a").await.expect(200, "").cache("hit").header("content-length", "5");
    assert_eq!(origin.requests(), before);
}

#[tokio::test]
async fn many_at_once_cost_one_fetch_and_all_get_the_first_bytes_early() {
    let (reply, gate) = ok(generated(1, 300_000)).cache_control("max-age=60").gated(100_000);
    let origin = Origin::serving("/a", reply).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut stream = host.call("GET", "/a").open().await.unwrap();
        let first = stream.read(50_000).await.unwrap();
        assert_eq!(first, pattern(1, 0..first.len() as u64));
        clients.push((stream, first));
    }
    gate.open();
    for (mut stream, first) in clients {
        let rest = stream.read(usize::MAX).await.unwrap();
        assert_eq!(first.len() + rest.len(), 300_000);
        assert_eq!(rest, pattern(1, first.len() as u64..300_000));
    }
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn those_who_waited_for_a_private_response_ask_for_themselves_and_at_once() {
    let origin = Origin::answering(|request| {
        ok(format!("for {}", request.header("x-user"))).cache_control("private").late(millis(500))
    })
    .await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    let start = std::time::Instant::now();
    let calls = (0..8).map(|user| host.call("GET", "/a").header("x-user", &user.to_string()).send());
    let answers = futures_util::future::join_all(calls).await;
    for (user, answer) in answers.iter().enumerate() {
        answer.expect(200, format!("for {user}"));
    }
    assert_eq!(origin.requests(), 8);
    // One wait for the first, one for all the others together, not one after the other.
    assert!(start.elapsed() < secs(3), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_fill_whose_client_leaves_goes_on() {
    let (reply, gate) = ok(generated(2, 200_000)).cache_control("max-age=60").gated(1000);
    let origin = Origin::serving("/a", reply).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    let mut stream = host.call("GET", "/a").open().await.unwrap();
    stream.read(1).await.unwrap();
    drop(stream);
    tokio::time::sleep(millis(100)).await;
    gate.open();
    tokio::time::sleep(millis(300)).await;
    host.get("/a").await.expect(200, pattern(2, 0..200_000)).cache("hit");
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn entries_survive_a_restart() {
    let origin = Origin::serving("/a", ok("hello").cache_control("max-age=600"))
        .await
        .and("/big", ok(generated(3, 3_000_000)).cache_control("max-age=600").etag("\"big\""));
    let mut host = Host::with(vhost("a.test").origin(&origin)).await;
    host.get("/a").await.expect(200, "hello");
    host.get("/big").await.expect(200, pattern(3, 0..3_000_000));
    host.restart().await;
    host.get("/a").await.expect(200, "hello").cache("hit");
    host.get("/big").await.expect(200, pattern(3, 0..3_000_000)).cache("hit");
    assert_eq!(origin.requests(), 2);
}

#[tokio::test]
async fn hop_by_hop_fields_stay_on_their_hop() {
    let reply = ok("hello").cache_control("max-age=60").header("connection", "x-hop").header("x-hop", "1");
    let origin = Origin::serving("/a", reply.header("keep-alive", "timeout=5")).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    let call = host.call("GET", "/a").header("connection", "x-mine").header("x-mine", "1").header("te", "trailers");
    call.send().await.expect(200, "hello").no_header("x-hop").no_header("keep-alive");
    assert!(!origin.last().has("x-mine"), "{:?}", origin.last());
    host.get("/a").await.expect(200, "hello").no_header("x-hop");
}

#[tokio::test]
async fn eviction_keeps_the_cache_within_its_size() {
    let origin = Origin::answering(|_| ok(generated(9, 1_000_000)).cache_control("max-age=600")).await;
    let setup =
        setup().vhost(vhost("a.test").origin(&origin)).config(json!({ "cache": { "disk": "10MB", "memory": "1MB" } }));
    let host = setup.start().await;
    for n in 0..40 {
        host.get(&format!("/{n}")).await.status(200);
    }
    let mut used = u64::MAX;
    for _ in 0..100 {
        used = host.metric("proxyhost_cache_disk_bytes").await as u64;
        if used <= 11_000_000 {
            break;
        }
        tokio::time::sleep(millis(100)).await;
    }
    assert!(used <= 11_000_000, "{used} bytes are kept");
    assert!(host.metric("proxyhost_cache_evictions_total").await > 0.0);
}

#[tokio::test]
async fn what_is_named_as_private_reaches_the_one_it_is_for_and_no_other() {
    let reply = ok("x").cache_control("max-age=60, private=\"set-cookie\"").header("set-cookie", "id=1");
    let origin = Origin::serving("/a", reply).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    host.get("/a").await.expect(200, "x").header("set-cookie", "id=1");
    host.get("/a").await.expect(200, "x").cache("hit").no_header("set-cookie");
}

#[tokio::test]
async fn a_range_beyond_the_end_does_not_undo_coalescing() {
    let size = 3_000_000;
    let reply = || ok(generated(1, size)).etag("\"v\"").cache_control("max-age=60").ranged().late(millis(300));
    let origin = Origin::serving("/a", reply()).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    host.call("GET", "/a").range("9000000-").send().await.status(416);
    let before = origin.requests();
    let calls = (0..5).map(|_| host.get("/a"));
    for answer in futures_util::future::join_all(calls).await {
        answer.expect(200, pattern(1, 0..size));
    }
    assert_eq!(origin.requests() - before, 1);
}
