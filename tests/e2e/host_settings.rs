//! What a host says of caching, by path too (issue 5, line 3): what clients must not get around by it. Lives and windows are rows
//! of `caching.md`.

use harness::origin::Seen;
use harness::prelude::*;

/// Answers with what it was asked for.
async fn echo() -> Origin {
    Origin::answering(|request: &Seen| ok(request.target.clone()).cache_control("max-age=600")).await
}

async fn with_query(query: Value) -> (Origin, Host) {
    let origin = echo().await;
    let host = Host::with(vhost("a.test").origin(&origin).set("query", query)).await;
    (origin, host)
}

#[tokio::test]
async fn a_parameter_that_is_not_in_the_key_does_not_reach_the_origin() {
    for (query, evil) in [
        (json!("ignore"), "/a?x=evil"),
        (json!({ "allow": ["page"] }), "/a?x=evil"),
        (json!({ "allow": ["page"] }), "/a?Page=evil&page%00=evil&pag%65x=evil&&"),
        (json!({ "deny": ["x", "utm_*"] }), "/a?x=evil&%78=evil&utm_source=evil&%75tm%5Fm=evil&x"),
    ] {
        let (origin, host) = with_query(query.clone()).await;
        host.get(evil).await.expect(200, "/a").cache("miss");
        host.get("/a").await.expect(200, "/a").cache("hit");
        host.get("/a?").await.expect(200, "/a").cache("hit");
        host.call("HEAD", evil).send().await.status(200).cache("hit");
        assert_eq!(origin.requests(), 1, "{query}");
    }
}

#[tokio::test]
async fn the_head_and_the_part_of_what_is_not_kept_are_asked_for_without_it_too() {
    let origin = Origin::answering(|request: &Seen| {
        ok(generated(1, 5_000_000)).etag(&format!("\"{}\"", request.target)).cache_control("max-age=600").ranged()
    })
    .await;
    let host = Host::with(vhost("a.test").origin(&origin).set("query", "ignore")).await;
    host.call("HEAD", "/a?x=1").send().await.header("etag", "\"/a\"");
    host.call("GET", "/a?x=2").range("3000000-3000009").send().await.expect(206, pattern(1, 3_000_000..3_000_010));
    host.call("GET", "/a?x=3").range("-10").send().await.expect(206, pattern(1, 4_999_990..5_000_000));
    host.get("/a?x=4").await.expect(200, pattern(1, 0..5_000_000));
    assert!(origin.seen().iter().all(|seen| seen.target == "/a"), "{:?}", origin.seen());
}

#[tokio::test]
async fn what_counts_is_kept_apart_and_reaches_the_origin_as_it_was_written() {
    let (origin, host) = with_query(json!({ "allow": ["page", "a b"] })).await;
    for (asked, told) in [
        ("/a?page=1&x=1", "/a?page=1"),
        ("/a?page=2", "/a?page=2"),
        ("/a?x&p%61ge=%31", "/a?p%61ge=%31"),
        ("/a?a+b=+&page", "/a?a+b=+&page"),
        ("/a?a%20b", "/a?a%20b"),
    ] {
        host.get(asked).await.expect(200, told).cache("miss");
        host.get(asked).await.expect(200, told).cache("hit");
    }
    assert_eq!(origin.requests(), 5);
}

#[tokio::test]
async fn sorted_queries_are_one() {
    let (origin, host) = with_query(json!("sort")).await;
    host.get("/a?b=2&a=1&b=1").await.expect(200, "/a?a=1&b=2&b=1").cache("miss");
    host.get("/a?a=1&b=2&b=1").await.cache("hit");
    host.get("/a?b=2&b=1&a=1").await.cache("hit");
    // Those of one name keep their order.
    host.get("/a?a=1&b=1&b=2").await.expect(200, "/a?a=1&b=1&b=2").cache("miss");
    assert_eq!(origin.requests(), 2);
}

#[tokio::test]
async fn a_query_that_is_not_listed_is_refused() {
    let (origin, host) = with_query(json!({ "allow": ["page"], "unlisted": "reject" })).await;
    for bad in ["/a?x=1", "/a?page=1&x", "/a?pag%65x=1", "/a?=1", "/a?PAGE=1"] {
        host.get(bad).await.status(400);
        host.call("HEAD", bad).send().await.status(400);
    }
    assert_eq!(origin.requests(), 0);
    host.get("/a?p%61ge=1").await.expect(200, "/a?p%61ge=1");
    host.get("/a").await.expect(200, "/a");
}

#[tokio::test]
async fn an_answer_to_post_is_not_kept_for_a_query_that_does_not_count() {
    let origin = Origin::answering(|request: &Seen| {
        ok(request.target.clone()).cache_control("max-age=600").header("content-location", &request.target)
    })
    .await;
    let host = Host::with(vhost("a.test").origin(&origin).set("methods", "all").set("query", "ignore")).await;
    // What is no GET keeps its query.
    host.call("POST", "/a?evil").body("x").send().await.expect(200, "/a?evil");
    host.get("/a").await.expect(200, "/a").cache("miss");
    host.call("POST", "/b").body("x").send().await.expect(200, "/b");
    host.get("/b?x").await.expect(200, "/b").cache("hit");
}

#[tokio::test]
async fn an_answer_to_post_is_kept_unless_somebody_purged_it_meanwhile() {
    let origin = Origin::answering(|request: &Seen| {
        let answer = ok(request.target.clone()).cache_control("max-age=600").header("surrogate-key", "mine");
        answer.header("content-location", &request.target).late(millis(if request.method == "POST" { 500 } else { 0 }))
    })
    .await;
    let host = Host::with(vhost("a.test").origin(&origin).set("methods", "all")).await;
    let cases = [
        (json!({ "path": "/0" }), "miss"),
        (json!({ "prefix": "/" }), "miss"),
        (json!({ "glob": "/?" }), "miss"),
        (json!({ "tag": "mine" }), "miss"),
        (json!({}), "miss"),
        (json!({ "path": "/other" }), "hit"),
        (json!({ "prefix": "/60" }), "hit"),
        (json!({ "tag": "other" }), "hit"),
    ];
    for (number, (mut what, then)) in cases.into_iter().enumerate() {
        let path = format!("/{number}");
        what["host"] = "a.test".into();
        let purged = async {
            while origin.requests_to(&path) == 0 {
                tokio::time::sleep(millis(5)).await;
            }
            host.purge(what.clone()).await;
            // What another client does elsewhere is no matter.
            host.call("POST", &format!("/elsewhere{number}")).body("x").send().await.status(200);
        };
        let (answer, ()) = tokio::join!(host.call("POST", &path).body("x").send(), purged);
        answer.expect(200, path.clone());
        let kept = host.get(&path).await;
        assert!(kept.cache_status().iter().any(|word| word == "hit") == (then == "hit"), "{what}: {kept:?}");
    }
}

#[tokio::test]
async fn no_spelling_of_a_path_gets_around_a_rule() {
    let origin = echo().await;
    let rules = json!([{ "path": ["/private/*", "*.secret"], "cache": "off" }]);
    let host = Host::with(vhost("a.test").origin(&origin).set("rules", rules)).await;
    for path in [
        "/private/a",
        "//private/a",
        "/private//a",
        "///private///a",
        "/%70rivate/a",
        "/private/%61?x",
        "/a.secret",
        "/a.s%65cret",
    ] {
        for _ in 0..2 {
            host.get(path).await.status(200).cache("bypass");
        }
    }
    let before = origin.requests();
    for path in ["/x/../private/a", "/x/%2e%2e/private/a", "/private/./a", "/private/%2e/a", "/x%2f..%2fprivate/a"] {
        host.get(path).await.status(400);
    }
    assert_eq!(origin.requests(), before);
    host.get("/privat/a").await.cache("miss");
    host.get("/privat/a").await.cache("hit");
}

#[tokio::test]
async fn the_first_rule_that_fits_counts_and_the_host_for_the_rest() {
    let origin = Origin::answering(|request: &Seen| ok(request.target.clone())).await;
    let rules = json!([
        { "path": "/a/live/*", "ttl": 0 },
        { "path": "/a/*", "ttl": "1h", "browser_ttl": "2m" },
        { "path": "*/b", "cache": "off" },
        { "path": "/old/*", "query": "keep" }
    ]);
    let a = vhost("a.test").origin(&origin).set("ttl", "1m").set("query", "ignore").set("rules", rules);
    let host = Host::with(a).await;
    host.get("/a/b?x").await.expect(200, "/a/b").cache("ttl=3600").header("cache-control", "max-age=120");
    host.get("/x?x").await.expect(200, "/x").cache("ttl=60").no_header("cache-control");
    host.get("/old/x?x").await.expect(200, "/old/x?x").cache("ttl=60");
    host.get("/a/live/x").await.status(200);
    host.get("/a/live/x").await.cache("miss");
}

#[tokio::test]
async fn where_the_cache_is_off_nobody_waits_for_another() {
    let origin = Origin::answering(|request: &Seen| {
        ok(request.header("x-user").to_owned()).cache_control("max-age=600").late(millis(300))
    })
    .await;
    let host = Host::with(vhost("a.test").origin(&origin).set("cache", "off")).await;
    let calls = (0..6).map(|user| host.call("GET", "/a").header("x-user", &user.to_string()).send());
    for (user, answer) in futures_util::future::join_all(calls).await.iter().enumerate() {
        answer.expect(200, user.to_string()).cache("bypass");
    }
    assert_eq!((origin.requests(), origin.most_at_once()), (6, 6));
    assert_eq!(host.stats().await["cache"]["entries"], json!(0));
}

#[tokio::test]
async fn where_the_cache_is_off_all_goes_on_as_it_came() {
    let origin = Origin::answering(|request: &Seen| {
        ok(generated(1, 3_000_000)).etag("\"v\"").header("x-target", &request.target).ranged().conditional()
    })
    .await;
    let a = vhost("a.test").origin(&origin).set("cache", "off").set("query", "ignore");
    let host = Host::with(a).await;
    let part = host.call("GET", "/a?x=1").range("1000000-1000009").send().await;
    part.expect(206, pattern(1, 1_000_000..1_000_010)).header("x-target", "/a?x=1").cache("bypass");
    assert_eq!(origin.last().header("range"), "bytes=1000000-1000009");
    host.call("GET", "/a").header("if-none-match", "\"v\"").send().await.status(304);
    assert_eq!(origin.last().header("if-none-match"), "\"v\"");
}

#[tokio::test]
async fn what_is_too_large_is_passed_on_and_not_kept() {
    let origin =
        Origin::serving("/large", ok(generated(1, 200_001)).cache_control("max-age=600").etag("\"l\"").ranged())
            .await
            .and("/small", ok(generated(2, 200_000)).cache_control("max-age=600"));
    let host = Host::with(vhost("a.test").origin(&origin).set("max_object", 200_000)).await;
    for _ in 0..2 {
        host.get("/large").await.expect(200, pattern(1, 0..200_001)).cache("detail=too-large");
        host.get("/small").await.expect(200, pattern(2, 0..200_000));
    }
    assert_eq!((origin.requests_to("/large"), origin.requests_to("/small")), (2, 1));
    // It is the object that counts, and not the part of it that is asked for.
    for _ in 0..2 {
        host.call("GET", "/large").range("0-9").send().await.expect(206, pattern(1, 0..10));
    }
    assert_eq!((origin.requests_to("/large"), origin.last().header("range")), (4, "bytes=0-9"));
}

#[tokio::test]
async fn a_part_of_what_is_too_large_is_not_kept_either() {
    let size = 5_000_000;
    let origin =
        Origin::serving("/a", ok(generated(1, size)).cache_control("max-age=600").etag("\"l\"").ranged()).await;
    let host = Host::with(vhost("a.test").origin(&origin).set("max_object", "2MiB")).await;
    for _ in 0..3 {
        host.call("GET", "/a").range("100-199").send().await.expect(206, pattern(1, 100..200));
    }
    assert_eq!(origin.last().header("range"), "bytes=100-199");
    assert_eq!(host.stats().await["cache"]["entries"], json!(0));
}

#[tokio::test]
async fn what_turns_out_to_be_too_large_is_whole_for_those_who_read_it() {
    // Small ones lie in the index, large ones in slices; both are told only by what comes.
    for (most, length) in [(10_000, 20_000), (100_000, 3_000_000), (2_000_000, 9_000_000)] {
        let (reply, gate) = ok(generated(1, length)).cache_control("max-age=600").chunked().gated(5_000);
        let origin = Origin::serving("/a", reply).await;
        let host = Host::with(vhost("a.test").origin(&origin).set("max_object", most)).await;
        let mut first = host.call("GET", "/a").open().await.unwrap();
        let begun = first.read(1).await.unwrap();
        let mut second = host.call("GET", "/a").open().await.unwrap();
        let begun_too = second.read(1).await.unwrap();
        assert_eq!(origin.requests(), 1, "they read along");
        gate.open();
        let (rest, rest_too) = tokio::join!(first.read(usize::MAX), second.read(usize::MAX));
        for (begun, rest) in [(begun, rest.unwrap()), (begun_too, rest_too.unwrap())] {
            assert_eq!([begun.as_ref(), rest.as_ref()].concat(), pattern(1, 0..length), "{most} of {length}");
        }
        tokio::time::sleep(millis(200)).await;
        host.get("/a").await.expect(200, pattern(1, 0..length)).cache("miss");
        assert_eq!(origin.requests(), 2, "{most} of {length}");
    }
}

#[tokio::test]
async fn what_stays_within_the_limit_is_kept_though_nobody_told_its_length() {
    for length in [10_000, 3_000_000] {
        let origin = Origin::serving("/a", ok(generated(1, length)).cache_control("max-age=600").chunked()).await;
        let host = Host::with(vhost("a.test").origin(&origin).set("max_object", length)).await;
        host.get("/a").await.expect(200, pattern(1, 0..length)).cache("miss");
        host.get("/a").await.expect(200, pattern(1, 0..length)).cache("hit");
    }
}

#[tokio::test]
async fn a_reload_counts_for_the_next_request_and_what_is_kept_keeps_its_life() {
    let origin = Origin::answering(|request: &Seen| ok(request.target.clone())).await;
    let mut host = Host::with(vhost("a.test").origin(&origin).set("ttl", "10m")).await;
    host.get("/a").await.expect(200, "/a").cache("ttl=600");
    let say = |members: Value| json!({ "hosts": { "a.test": members } });
    host.rewrite(say(json!({ "rules": [{ "path": "/a", "cache": "off" }] })));
    host.reload().await.status(200);
    host.get("/a").await.cache("bypass");
    host.rewrite(say(json!({ "rules": [{ "path": "/a", "ttl": "5m", "browser_ttl": "1m" }] })));
    host.reload().await.status(200);
    let kept = host.get("/a").await;
    kept.expect(200, "/a").cache("hit");
    assert!(kept.field("cache-control").starts_with("max-age=6"), "{kept:?}");
    assert_eq!(origin.requests(), 2);
    host.rewrite(say(json!({ "query": "ignore" })));
    host.reload().await.status(200);
    host.get("/a?x").await.expect(200, "/a").cache("hit");
}

#[tokio::test]
async fn explain_tells_which_rule_counts() {
    let origin = echo().await;
    let rules = json!([
        { "path": "/live/*", "cache": "off" },
        { "path": ["*.jpg", "*.png"], "ttl_override": "1h", "query": { "allow": ["w"], "unlisted": "reject" } }
    ]);
    let host = Host::with(vhost("a.test").origin(&origin).set("ttl_min", "5s").set("rules", rules)).await;
    let explain = async |url: &str| {
        let asked = format!("/explain?url={}", url.replace('?', "%3F").replace('=', "%3D"));
        host.admin("GET", &asked).send().await.status(200).json()
    };
    let told = explain("http://a.test//live/x").await;
    assert_eq!((&told["rule"]["number"], &told["rule"]["path"]), (&json!(1), &json!("/live/*")), "{told}");
    assert_eq!((&told["settings"]["cache"], &told["settings"]["ttl_min"]), (&json!("off"), &json!("5s")), "{told}");
    assert_eq!(told["cache"]["forward"], json!("Bypass"), "{told}");
    let told = explain("http://a.test/a.png?w=1").await;
    assert_eq!(told["rule"], json!({ "number": 2, "path": ["*.jpg", "*.png"] }), "{told}");
    assert_eq!(told["settings"]["ttl_override"], json!("1h"), "{told}");
    assert_eq!(explain("http://a.test/a.png?x=1").await["answer"], json!(400));
    let told = explain("http://a.test/a").await;
    assert_eq!((told.get("rule"), &told["settings"]["ttl_min"]), (None, &json!("5s")), "{told}");
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn what_a_bucket_lacks_is_asked_for_again_soon_and_what_it_refuses_at_once() {
    let s3 = S3Server::with_bucket("site").await;
    let origin = s3.bucket("site");
    let host = setup()
        .vhost(vhost("a.test").origin(&origin))
        .vhost(vhost("b.test").origin(&origin).set("ttl", json!({ "4xx": "1h" })))
        .start()
        .await;
    host.get("/x").await.status(404).cache("ttl=10");
    host.get("/x").await.status(404).cache("hit");
    host.get_from("b.test", "/x").await.status(404).cache("ttl=3600");
    s3.refuse("site", true);
    for name in ["a.test", "b.test"] {
        for _ in 0..2 {
            let answer = host.get_from(name, "/y").await;
            assert!(answer.status.as_u16() >= 400, "{answer:?}");
        }
    }
    s3.refuse("site", false);
    s3.put("site", "y", object("hello"));
    for name in ["a.test", "b.test"] {
        host.get_from(name, "/y").await.expect(200, "hello");
    }
}
