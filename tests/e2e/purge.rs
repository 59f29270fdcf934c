//! Purges (issue line 9).

use harness::prelude::*;

async fn everything() -> (Origin, Host) {
    let origin = Origin::answering(|request| ok(request.target.clone()).cache_control("max-age=600")).await;
    let host = setup().vhost(vhost("a.test").origin(&origin)).vhost(vhost("b.test").origin(&origin)).start().await;
    for name in ["a.test", "b.test"] {
        for path in ["/x/1", "/x/2", "/y", "/xx"] {
            host.get_from(name, path).await.expect(200, path);
            host.get_from(name, path).await.cache("hit");
        }
    }
    (origin, host)
}

/// Which of the eight are hits afterwards.
async fn hits(host: &Host) -> Vec<String> {
    let mut hits = Vec::new();
    for name in ["a.test", "b.test"] {
        for path in ["/x/1", "/x/2", "/y", "/xx"] {
            if host.get_from(name, path).await.cache_status().iter().any(|parameter| parameter == "hit") {
                hits.push(format!("{name}{path}"));
            }
        }
    }
    hits
}

#[tokio::test]
async fn a_path() {
    let (_origin, host) = everything().await;
    let first = host.purge(json!({ "host": "a.test", "path": "/x/1" })).await;
    let second = host.purge(json!({ "host": "a.test", "path": "/nothing" })).await;
    assert!(second > first);
    let all = ["a.test/x/2", "a.test/y", "a.test/xx", "b.test/x/1", "b.test/x/2", "b.test/y", "b.test/xx"];
    assert_eq!(hits(&host).await, all);
}

#[tokio::test]
async fn a_prefix() {
    let (_origin, host) = everything().await;
    host.purge(json!({ "host": "a.test", "prefix": "/x/" })).await;
    let rest = ["a.test/y", "a.test/xx", "b.test/x/1", "b.test/x/2", "b.test/y", "b.test/xx"];
    assert_eq!(hits(&host).await, rest);
}

#[tokio::test]
async fn a_host() {
    let (_origin, host) = everything().await;
    host.purge(json!({ "host": "a.test" })).await;
    assert_eq!(hits(&host).await, ["b.test/x/1", "b.test/x/2", "b.test/y", "b.test/xx"]);
}

#[tokio::test]
async fn everything_there_is() {
    let (_origin, mut host) = everything().await;
    host.purge(json!({ "all": true })).await;
    // In force also for a process that did not hear of it.
    host.crash_and_restart().await;
    assert_eq!(hits(&host).await, [""; 0]);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let (_origin, host) = everything().await;
    for body in [
        "",
        "{",
        "{}",
        "[]",
        r#"{"path":"/x"}"#,
        r#"{"host":"a.test","path":"/x","prefix":"/"}"#,
        r#"{"all":false}"#,
        r#"{"host":"a.test","pahts":"/x"}"#,
    ] {
        let answer = host.admin("POST", "/purge").body(body).send().await;
        assert_eq!(answer.status.as_u16(), 400, "{body}: {}", answer.text());
    }
    assert_eq!(hits(&host).await.len(), 8);
}

#[tokio::test]
async fn a_purge_during_a_fill_keeps_that_fill_out() {
    let (reply, gate) = ok(generated(1, 200_000)).cache_control("max-age=600").gated(1000);
    let origin = Origin::serving("/a", reply).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    let mut stream = host.call("GET", "/a").open().await.unwrap();
    let first = stream.read(1).await.unwrap();
    host.purge(json!({ "host": "a.test", "path": "/a" })).await;
    gate.open();
    let rest = stream.read(usize::MAX).await.unwrap();
    assert_eq!(first.len() + rest.len(), 200_000);
    host.get("/a").await.expect(200, pattern(1, 0..200_000)).cache("miss");
    assert_eq!(origin.requests(), 2);
}

#[tokio::test]
async fn the_purge_method_takes_a_path_and_the_root_takes_all() {
    let origin = Origin::answering(|request| ok(request.target.clone()).cache_control("max-age=600")).await;
    let a = vhost("a.test").origin(&origin).set("purge_method", "PURGE").set("purge_allow", json!(["127.0.0.0/8"]));
    let host = setup().vhost(a).vhost(vhost("b.test").origin(&origin)).start().await;
    for path in ["/1", "/2"] {
        host.get(path).await.expect(200, path);
    }
    host.call("PURGE", "/1").send().await.status(200);
    host.get("/1").await.cache("miss");
    host.get("/2").await.cache("hit");
    host.call("PURGE", "/").send().await.status(200);
    host.get("/2").await.cache("miss");
    // Another host has no such method.
    host.call("PURGE", "/1").host("b.test").send().await.status(405);
}

#[tokio::test]
async fn the_purge_method_is_for_those_whom_purge_allow_names() {
    let origin = Origin::serving("/a", ok("x").cache_control("max-age=600")).await;
    let a = vhost("a.test").origin(&origin).set("purge_method", "DELETE").set("purge_allow", json!(["192.0.2.0/24"]));
    let host = Host::with(a).await;
    host.get("/a").await.expect(200, "x");
    host.call("DELETE", "/a").send().await.status(403);
    host.get("/a").await.cache("hit");
}

#[tokio::test]
async fn a_tag_of_a_policy() {
    let origin = Origin::answering(|request| ok(request.target.clone()).cache_control("max-age=600")).await;
    let imports = r#"(import "proxyhost:policy/cache-store@0.1.0" "tag" (func $tag (param i32 i32)))"#;
    let wat = harness::policies::two_phases(imports, "(call $tag (i32.const 2048) (i32.const 4))");
    let tagging = harness::policies::component("caching", &wat);
    let a = vhost("a.test").origin(&origin).wasm("tag.wasm", &tagging, json!({}));
    let host = setup().vhost(a).vhost(vhost("b.test").origin(&origin)).start().await;
    for name in ["a.test", "b.test"] {
        host.get_from(name, "/1").await.expect(200, "/1");
    }
    host.purge(json!({ "host": "a.test", "tag": "other" })).await;
    host.get("/1").await.cache("hit");
    // The fixture's word at 2048 is "told".
    host.purge(json!({ "host": "a.test", "tag": "told" })).await;
    host.get("/1").await.cache("miss");
    host.get_from("b.test", "/1").await.cache("hit");
}

#[tokio::test]
async fn a_policy_that_judges_no_requests_lets_nobody_purge() {
    let origin = Origin::serving("/a", ok("x").cache_control("max-age=600")).await;
    let stanza = json!({ "config": { "rules": [{ "set": { "x-own": "1" } }] } });
    let a = vhost("a.test").origin(&origin).policy("headers", stanza);
    let host = Host::with(a.set("purge_method", "PURGE").set("purge_allow", "policy")).await;
    host.get("/a").await.expect(200, "x");
    host.call("PURGE", "/a").send().await.status(403);
    host.get("/a").await.cache("hit");
}

#[tokio::test]
async fn a_policy_says_who_may_purge() {
    let origin = Origin::answering(|request| ok(request.target.clone()).cache_control("max-age=600")).await;
    let host = |name: &str, wasm: &[u8]| {
        let a = vhost(name).origin(&origin).set("purge_method", "PURGE").set("purge_allow", "policy");
        a.wasm(&format!("{name}.wasm"), wasm, json!({}))
    };
    let setup =
        setup().vhost(host("a.test", &harness::policies::next())).vhost(host("b.test", &harness::policies::deny()));
    let host = setup.start().await;
    host.get("/1").await.expect(200, "/1");
    host.get("/1").await.cache("hit");
    host.call("PURGE", "/1").send().await.status(200);
    host.get("/1").await.cache("miss");
    host.call("PURGE", "/1").host("b.test").send().await.status(403);
}

#[tokio::test]
async fn tags_that_come_with_a_304_purge_too_and_those_that_it_leaves_out_stay() {
    let tagged = |tags: &str| {
        let reply = ok("hello").cache_control("no-cache").etag("\"1\"").conditional();
        if tags.is_empty() { reply } else { reply.header("surrogate-key", tags) }
    };
    let origin = Origin::serving("/a", tagged("one")).await;
    let host = Host::with(vhost("a.test").origin(&origin)).await;
    host.get("/a").await.expect(200, "hello");
    for tags in ["two", ""] {
        origin.set("/a", tagged(tags));
        host.get("/a").await.expect(200, "hello");
    }
    for tag in ["one", "two"] {
        origin.set("/a", tagged("one two"));
        host.get("/a").await.expect(200, "hello");
        host.purge(json!({ "host": "a.test", "tag": tag })).await;
        host.get("/a").await.expect(200, "hello");
        let last = origin.seen().pop().unwrap();
        assert_eq!(last.header("if-none-match"), "", "{tag}: nothing is left to revalidate");
    }
}
