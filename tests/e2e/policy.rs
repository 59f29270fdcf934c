//! Policies at work (issue lines 5 and 6): found, swapped in, chained, both lanes.

use harness::policies;
use harness::prelude::*;

async fn origin() -> Origin {
    Origin::answering(|request| ok(request.target.clone()).cache_control("max-age=600")).await
}

#[tokio::test]
async fn decides_before_the_cache_is_looked_at() {
    let origin = origin().await;
    let host = setup()
        .vhost(vhost("a.test").origin(&origin).wasm("next.wasm", &policies::next(), json!({})))
        .vhost(vhost("b.test").origin(&origin).wasm("deny.wasm", &policies::deny(), json!({})))
        .start()
        .await;
    host.get("/x").await.expect(200, "/x").cache("miss");
    host.get("/x").await.expect(200, "/x").cache("hit");
    host.get_from("b.test", "/x").await.status(403);
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn redirects() {
    let origin = origin().await;
    let redirect = policies::redirect(302, "/else?where");
    let host = Host::with(vhost("a.test").origin(&origin).wasm("r.wasm", &redirect, json!({}))).await;
    host.get("/x").await.status(302).header("location", "/else?where");
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn a_core_module_is_a_policy_too() {
    let origin = origin().await;
    let module = policies::core_module("access", &policies::on_request("", "(i32.const 1056)"));
    let host = Host::with(vhost("a.test").origin(&origin).wasm("m.wasm", &module, json!({}))).await;
    host.get("/x").await.status(403);
}

#[tokio::test]
async fn a_file_named_by_the_domain_is_its_policy() {
    let origin = origin().await;
    let setup = setup()
        .vhost(vhost("a.test").origin(&origin))
        .vhost(vhost("b.test").origin(&origin))
        .file("policies/a.test.wasm", policies::deny());
    let host = setup.start().await;
    host.get("/x").await.status(403);
    host.get_from("b.test", "/x").await.expect(200, "/x");
}

#[tokio::test]
async fn hosts_json_counts_before_the_file_named_by_the_domain() {
    let origin = origin().await;
    let a = vhost("a.test").origin(&origin).wasm("own.wasm", &policies::next(), json!({}));
    let host = setup().vhost(a).file("policies/a.test.wasm", policies::deny()).start().await;
    host.get("/x").await.expect(200, "/x");
}

#[tokio::test]
async fn a_chain_is_run_in_order() {
    let origin = origin().await;
    let first = vhost("a.test").origin(&origin).wasm("next.wasm", &policies::next(), json!({}));
    let a = first.wasm("redirect.wasm", &policies::redirect(307, "/r"), json!({})).wasm(
        "deny.wasm",
        &policies::deny(),
        json!({}),
    );
    let host = Host::with(a).await;
    host.get("/x").await.status(307).header("location", "/r");
}

#[tokio::test]
async fn a_changed_file_is_swapped_in_and_a_bad_one_is_not() {
    let origin = origin().await;
    let host = Host::with(vhost("a.test").origin(&origin).wasm("p.wasm", &policies::next(), json!({}))).await;
    host.get("/x").await.expect(200, "/x");
    host.write("policies/p.wasm", &policies::deny());
    host.get_until("/x", |answer| answer.status == 403).await;
    host.write("policies/p.wasm", b"not wasm at all");
    host.stderr_line("p.wasm").await;
    tokio::time::sleep(millis(500)).await;
    host.get("/x").await.status(403);
    let listed = host.admin("GET", "/policies").send().await.status(200).text();
    assert!(listed.contains("p.wasm"), "{listed}");
    host.write("policies/p.wasm", &policies::next());
    host.get_until("/x", |answer| answer.status == 200).await;
}

#[tokio::test]
async fn a_file_that_vanishes_leaves_its_policy_in_force() {
    let origin = origin().await;
    let a = setup().vhost(vhost("a.test").origin(&origin)).file("policies/a.test.wasm", policies::deny());
    let mut host = a.start().await;
    host.get("/x").await.status(403);
    std::fs::remove_file(host.path("policies/a.test.wasm")).unwrap();
    tokio::time::sleep(millis(700)).await;
    host.get("/x").await.status(403);
    // One that is missing at start, though its host had a policy before, is no open door either.
    host.restart().await;
    host.get("/x").await.status(503);
    // Until hosts.json says so.
    host.rewrite(json!({ "hosts": { "a.test": { "policy": null } } }));
    host.reload().await.status(200);
    host.get("/x").await.expect(200, "/x");
}

#[tokio::test]
async fn one_that_is_bad_at_start_makes_its_host_503_and_no_other() {
    let origin = origin().await;
    let setup = setup()
        .vhost(vhost("a.test").origin(&origin))
        .vhost(vhost("b.test").origin(&origin))
        .file("policies/a.test.wasm", "not wasm");
    let host = setup.start().await;
    host.get("/x").await.status(503);
    host.get_from("b.test", "/x").await.expect(200, "/x");
    host.write("policies/a.test.wasm", &policies::next());
    host.get_until("/x", |answer| answer.status == 200).await;
}

#[tokio::test]
async fn a_policy_that_imports_wasi_runs_on_a_fiber_with_nothing_granted() {
    let origin = origin().await;
    // A core module of WASI preview 1: the adapter makes a component of it that imports wasi:*.
    let imports =
        r#"(import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ (param i32 i32) (result i32)))"#;
    let body = "(drop (call $environ (i32.const 512) (i32.const 516)))
        (if (result i32) (i32.eqz (i32.load (i32.const 512))) (then (i32.const 1024)) (else (i32.const 1056)))";
    let module = policies::core_module("access", &policies::on_request(imports, body));
    let host = Host::with(vhost("a.test").origin(&origin).wasm("wasi.wasm", &module, json!({}))).await;
    host.get("/x").await.expect(200, "/x");
    host.get("/x").await.expect(200, "/x").cache("hit");
}

#[tokio::test]
async fn isolation_by_request_takes_a_fresh_instance_each_time() {
    let origin = origin().await;
    let once = policies::once_per_instance();
    let host = setup()
        .vhost(vhost("a.test").origin(&origin).wasm("once.wasm", &once, json!({ "isolation": "request" })))
        .start()
        .await;
    for _ in 0..5 {
        host.get("/x").await.expect(200, "/x");
    }
}

#[tokio::test]
async fn headers_policy_adds_and_removes() {
    let origin = Origin::serving("/a", ok("x").cache_control("max-age=60").header("x-powered-by", "php")).await;
    let stanza = json!({ "config": { "rules": [{ "set": { "x-own": "1" }, "remove": ["x-powered-by"] }] } });
    let host = Host::with(vhost("a.test").origin(&origin).policy("headers", stanza)).await;
    for _ in 0..2 {
        host.get("/a").await.expect(200, "x").header("x-own", "1").no_header("x-powered-by");
    }
}

#[tokio::test]
async fn a_vanished_policy_is_forgotten_when_the_admin_says_so() {
    let origin = origin().await;
    let a = setup().vhost(vhost("a.test").origin(&origin)).file("policies/a.test.wasm", policies::deny());
    let mut host = a.start().await;
    host.get("/x").await.status(403);
    let forget = async |host: &Host| {
        let call = host.admin("POST", "/policies/forget").header("content-type", "application/json");
        call.body(json!({ "host": "a.test" }).to_string()).send().await
    };
    std::fs::remove_file(host.path("policies/a.test.wasm")).unwrap();
    forget(&host).await.status(200);
    host.get_until("/x", |answer| answer.status == 200).await;
    // Nor is it remembered at the next start.
    host.restart().await;
    host.get("/x").await.expect(200, "/x");
}

#[tokio::test]
async fn what_a_policy_adds_to_a_response_is_added_once_however_often_it_is_revalidated() {
    let reply = ok("hello").header("x-own", "origin").cache_control("no-cache").etag("\"1\"").conditional();
    let origin = Origin::serving("/a", reply).await;
    let imports = [
        r#"(import "proxyhost:policy/response@0.1.0" "append-header" (func $append (param i32 i32 i32 i32)))"#
            .to_owned(),
        r#"(import "proxyhost:policy/response@0.1.0" "set-header" (func $set (param i32 i32 i32 i32)))"#.to_owned(),
        policies::text_at(2112, "x-own"),
        policies::text_at(2128, "policy"),
        policies::text_at(2144, "etag"),
        policies::text_at(2160, "\"edited\""),
    ];
    let edits = "(call $append (i32.const 2112) (i32.const 5) (i32.const 2128) (i32.const 6))
        (call $set (i32.const 2144) (i32.const 4) (i32.const 2160) (i32.const 8))";
    let wasm = policies::component("caching", &policies::two_phases(&imports.concat(), edits));
    let mut host = Host::with(vhost("a.test").origin(&origin).wasm("p.wasm", &wasm, json!({}))).await;
    for round in 0..4 {
        if round == 2 {
            // What the origin sent is kept on disk too.
            host.restart().await;
        }
        let answer = host.get("/a").await;
        answer.expect(200, "hello").header("etag", "\"edited\"");
        assert_eq!(answer.field("x-own"), "origin, policy", "round {round}");
    }
    // The origin is asked by its own tag, which it knows: it never sends the body again.
    assert_eq!(origin.requests(), 4);
    assert!(origin.seen().iter().skip(1).all(|request| request.header("if-none-match") == "\"1\""));
}
