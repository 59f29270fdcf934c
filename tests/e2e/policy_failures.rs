//! Policies that fail (issue line 5 and "Bad input"): that request is refused as configured, the next one is served, other
//! hosts notice nothing.

use std::time::Instant;

use harness::policies;
use harness::prelude::*;

async fn origin() -> Origin {
    Origin::answering(|request| ok(request.target.clone()).cache_control("max-age=600")).await
}

/// A host with this policy and one without.
async fn host_with(origin: &Origin, wasm: &[u8], stanza: Value) -> Host {
    setup()
        .vhost(vhost("a.test").origin(origin).wasm("p.wasm", wasm, stanza))
        .vhost(vhost("b.test").origin(origin))
        .start()
        .await
}

#[tokio::test]
async fn every_way_to_fail_is_503_and_nobody_else_notices() {
    let origin = origin().await;
    let ways = [
        ("error", policies::error()),
        ("trap", policies::trap()),
        ("endless loop", policies::endless()),
        ("memory bomb", policies::memory_bomb()),
        ("deep recursion", policies::deep_recursion()),
        ("huge string", policies::huge_string(8 << 20)),
        ("host calls", policies::host_calls(5_000_000)),
        ("a status that is none", policies::deny_with(42)),
        ("a status beyond all", policies::deny_with(1000)),
        ("an interim status", policies::deny_with(101)),
        ("a redirect with a status that is none", policies::redirect(200, "/b")),
        ("a location with a line break", policies::redirect(302, "/b\r\nset-cookie: a=b")),
    ];
    for (way, wasm) in ways {
        let host = host_with(&origin, &wasm, json!({})).await;
        let start = Instant::now();
        let answer = host.get("/x").await;
        assert_eq!(answer.status.as_u16(), 503, "{way}: {answer:?}");
        answer.no_header("set-cookie");
        assert!(start.elapsed() < secs(5), "{way}: {:?}", start.elapsed());
        assert_eq!(host.get_from("b.test", "/x").await.status.as_u16(), 200, "{way}");
        assert!(host.metric("proxyhost_policy_failures_total").await >= 1.0, "{way}");
    }
}

#[tokio::test]
async fn the_next_request_is_served() {
    let origin = origin().await;
    let host = host_with(&origin, &policies::trap_unless('y'), json!({})).await;
    for _ in 0..5 {
        host.get("/x").await.status(503);
        host.get("/y").await.expect(200, "/y");
    }
}

#[tokio::test]
async fn a_few_failures_do_not_close_a_host() {
    let origin = origin().await;
    let host = host_with(&origin, &policies::trap_unless('y'), json!({})).await;
    for _ in 0..200 {
        host.get("/x").await.status(503);
    }
    host.get("/y").await.expect(200, "/y");
}

#[tokio::test]
async fn open_on_failure_lets_through() {
    let origin = origin().await;
    let host = host_with(&origin, &policies::trap(), json!({ "on_failure": "open" })).await;
    host.get("/x").await.expect(200, "/x");
}

#[tokio::test]
async fn open_on_failure_is_no_leave_to_purge() {
    let origin = origin().await;
    let a = vhost("a.test").origin(&origin).set("purge_method", "PURGE").set("purge_allow", "policy");
    let host = Host::with(a.wasm("p.wasm", &policies::trap(), json!({ "on_failure": "open" }))).await;
    host.get("/x").await.expect(200, "/x");
    let answer = host.call("PURGE", "/x").send().await;
    assert!(matches!(answer.status.as_u16(), 403 | 503), "{answer:?}");
    host.get("/x").await.cache("hit");
}

#[tokio::test]
async fn limits_are_those_of_the_stanza() {
    let origin = origin().await;
    let few = host_with(&origin, &policies::host_calls(50), json!({ "limits": { "calls": 10 } })).await;
    few.get("/x").await.status(503);
    let enough = host_with(&origin, &policies::host_calls(50), json!({ "limits": { "calls": 100 } })).await;
    enough.get("/x").await.expect(200, "/x");
}

#[tokio::test]
async fn what_is_no_policy_is_refused_at_start_with_the_reason() {
    let origin = origin().await;
    let other = policies::on_request("", "(i32.const 1024)").replace("@0.1.0", "@0.2.0");
    let cases: [(&str, Vec<u8>, &[&str]); 5] = [
        ("not wasm", b"<html>".to_vec(), &["p.wasm"]),
        ("empty", Vec::new(), &["p.wasm"]),
        ("a foreign import", policies::foreign_import(), &["p.wasm", "acme:magic/wand"]),
        ("a wrong export", policies::wrong_export(), &["p.wasm", "on-request"]),
        ("another version", policies::component_of_version("0.2.0", "access", &other), &["p.wasm", "0.2.0", "0.1.0"]),
    ];
    for (what, bytes, words) in cases {
        // Bad at start: the host answers 503 and the log says why.
        let host = host_with(&origin, &bytes, json!({})).await;
        assert_eq!(host.get("/x").await.status.as_u16(), 503, "{what}");
        host.get_from("b.test", "/x").await.expect(200, "/x");
        let said = host.stderr().join("\n");
        for word in words {
            assert!(said.contains(word), "{what}: nobody says {word:?}: {said}");
        }
        // And `check` refuses it in as many words.
        host.cli(&["check", "--config", "hosts.json"]).await.code(2).says(words);
    }
}

#[tokio::test]
async fn secrets_need_their_grant() {
    let origin = origin().await;
    let imports = r#"(import "proxyhost:policy/secrets@0.1.0" "get" (func $get (param i32 i32 i32)))"#;
    let body = "(call $get (i32.const 2048) (i32.const 4) (i32.const 512)) (i32.const 1024)";
    let name = policies::phase_export("on-request");
    // World `full` wants every phase.
    let mut wat = policies::on_request(imports, body);
    wat.truncate(wat.rfind(')').unwrap());
    for phase in ["on-origin-request", "on-origin-response"] {
        wat += &format!("(func (export \"{}\") (result i32) (i32.const 1024))", policies::phase_export(phase));
    }
    wat += &format!("(func (export \"{}\") (result i32) (i32.const 1024))", policies::phase_export("on-deliver"));
    wat += "(func (export \"proxyhost:policy/configure@0.1.0#configure\") (result i32) (i32.const 1024)))";
    assert!(wat.contains(&name));
    let wasm = policies::component("full", &wat);
    let secrets = json!({ "secrets": { "told": "env:TOLD" } });
    let a =
        |stanza: Value| setup().vhost(vhost("a.test").origin(&origin).wasm("p.wasm", &wasm, stanza)).env("TOLD", "x");
    a(secrets.clone()).start().await.get("/x").await.status(503);
    let mut granted = secrets;
    granted["grants"] = json!(["secrets"]);
    a(granted).start().await.get("/x").await.expect(200, "/x");
}

#[tokio::test]
async fn what_fails_at_great_cost_is_left_out_for_a_while_and_then_tried_again() {
    let origin = origin().await;
    let stanza = json!({ "limits": { "time_ms": 500 } });
    let host = host_with(&origin, &policies::endless_unless('y'), stanza).await;
    host.get("/y").await.expect(200, "/y");
    let quarantined = async || host.metrics().await.contains("kind=\"quarantine\"");
    let mut calls = 0;
    while !quarantined().await {
        assert!(calls < 20, "half a second of a core each, {calls} times, and no quarantine");
        host.get("/x").await.status(503);
        host.get_from("b.test", "/x").await.expect(200, "/x");
        calls += 1;
    }
    assert!(calls >= 4, "{calls} failing calls closed the host");
    // It comes back by itself.
    host.get_until("/y", |answer| answer.status == 200).await;
}

#[tokio::test]
async fn in_a_chain_each_policy_fails_by_its_own_rule() {
    let origin = origin().await;
    let open = json!({ "on_failure": "open" });
    let chain = |first: &[u8], second: &[u8], stanzas: [&Value; 2]| {
        let a = vhost("a.test").origin(&origin);
        a.wasm("one.wasm", first, stanzas[0].clone()).wasm("two.wasm", second, stanzas[1].clone())
    };
    let closed = json!({});
    let passed = Host::with(chain(&policies::trap(), &policies::next(), [&open, &closed])).await;
    passed.get("/x").await.expect(200, "/x");
    let refused = Host::with(chain(&policies::trap(), &policies::deny(), [&open, &closed])).await;
    refused.get("/x").await.status(403);
    let failed = Host::with(chain(&policies::next(), &policies::trap(), [&open, &closed])).await;
    failed.get("/x").await.status(503);
}

#[tokio::test]
async fn what_a_policy_adds_is_bounded() {
    let origin = origin().await;
    let again = |call: &str| {
        format!(
            "(local.set $left (i32.const 5000))
             (loop $again
               {call}
               (local.set $left (i32.sub (local.get $left) (i32.const 1)))
               (br_if $again (local.get $left)))
             (i32.const 1024)"
        )
    };
    let two_texts = |interface: &str, function: &str| {
        let import = format!(
            r#"(import "proxyhost:policy/{interface}@0.1.0" "{function}" (func $add (param i32 i32 i32 i32)))"#
        );
        let body = again("(call $add (i32.const 2048) (i32.const 4) (i32.const 2048) (i32.const 4))");
        policies::component("access", &policies::on_request(&import, &body))
    };
    for (what, wasm) in
        [("key parts", two_texts("cache-lookup", "add-key")), ("header lines", two_texts("upstream", "append-header"))]
    {
        let host = host_with(&origin, &wasm, json!({})).await;
        assert_eq!(host.get("/x").await.status.as_u16(), 503, "{what}");
        host.get_from("b.test", "/x").await.expect(200, "/x");
    }
    // Writing a variable anew adds nothing.
    let same = host_with(&origin, &two_texts("vars", "set"), json!({})).await;
    same.get("/x").await.expect(200, "/x");
    let import = r#"(import "proxyhost:policy/cache-store@0.1.0" "tag" (func $tag (param i32 i32)))"#;
    let long = policies::two_phases(import, "(call $tag (i32.const 8192) (i32.const 4000))");
    let host = host_with(&origin, &policies::component("caching", &long), json!({})).await;
    host.get("/x").await.status(503);
    host.get("/x").await.status(503);
}
