//! Decisions, edits, host calls and chains.

use super::fixture::{DONE, NEXT, deny};
use super::*;
use crate::policy::exchange::HeaderEdit;
use crate::policy::settings::{Rate, Secret};

#[tokio::test]
async fn each_decision_comes_out() {
    let world = World::new();
    assert!(matches!(ask(&world.only(&Fixture::on_request(NEXT))).await, Decision::Next));
    assert!(matches!(ask(&world.only(&Fixture::on_request(&deny(403)))).await, Decision::Deny(StatusCode::FORBIDDEN)));

    let mut fixture = Fixture::default();
    let location = fixture.text("https://b.test/x");
    let redirect = format!(
        "(i32.store8 (i32.const 16) (i32.const 0)) (i32.store8 (i32.const 20) (i32.const 2))
         (i32.store16 (i32.const 24) (i32.const 308)) (i32.const 28) {location} (call $pair) (i32.const 16)"
    );
    let decision = ask(&world.only(&fixture.extra(PAIR).phase("on-request", &redirect))).await;
    assert!(matches!(decision, Decision::Redirect(StatusCode::PERMANENT_REDIRECT, to) if to == "https://b.test/x"));

    let decision = ask(&world.only(&reply(200, "x-a", "b", "hello"))).await;
    let Decision::Reply(reply) = decision else { panic!("{decision:?}") };
    assert_eq!((reply.status, &reply.body[..]), (StatusCode::OK, &b"hello"[..]));
    assert_eq!(reply.headers["x-a"], "b");
}

/// Stores a pointer and a length.
pub(super) const PAIR: &str = "(func $pair (param i32 i32 i32)
    (i32.store (local.get 0) (local.get 1)) (i32.store (i32.add (local.get 0) (i32.const 4)) (local.get 2)))";

/// A policy that answers with one header and a text.
pub(super) fn reply(status: u16, name: &str, value: &str, body: &str) -> Fixture {
    let mut fixture = Fixture::default();
    let (name, value, body) = (fixture.text(name), fixture.text(value), fixture.text(body));
    let code = format!(
        "(i32.store8 (i32.const 16) (i32.const 0)) (i32.store8 (i32.const 20) (i32.const 3))
         (i32.store16 (i32.const 24) (i32.const {status}))
         (i32.const 512) {name} (call $pair) (i32.const 520) {value} (call $pair)
         (i32.const 28) (i32.const 512) (i32.const 1) (call $pair)
         (i32.store8 (i32.const 36) (i32.const 1)) (i32.const 40) {body} (call $pair) (i32.const 16)"
    );
    fixture.extra(PAIR).phase("on-request", &code)
}

#[tokio::test]
async fn what_cannot_be_sent_is_a_failure_and_costs_no_instance() {
    let world = World::new();
    for (fixture, word) in [
        (Fixture::on_request(&deny(200)), "deny"),
        (Fixture::on_request(&deny(600)), "deny"),
        (reply(101, "a", "b", ""), "101"),
        (reply(200, "Content-Length", "5", "hello"), "content-length"),
        (reply(200, "Transfer-Encoding", "chunked", ""), "transfer-encoding"),
        (reply(200, "a b", "c", ""), "header name"),
        (reply(200, "a", "b\r\nset-cookie: c", ""), "can't be sent"),
    ] {
        let chain = world.only(&fixture);
        let failure = failure(ask(&chain).await);
        assert_eq!(failure.kind, FailureKind::Invalid, "{failure}");
        assert!(failure.message.contains(word), "{failure}");
        assert_eq!((failure.status, failure.phase), (StatusCode::SERVICE_UNAVAILABLE, "on-request"));
    }
    let chain = world.only(&Fixture::on_request(&deny(200)));
    let before = world.metrics.policy_instances.get();
    let _ = (ask(&chain).await, ask(&chain).await, ask(&chain).await);
    assert_eq!(world.metrics.policy_instances.get(), before + 1);
}

#[tokio::test]
async fn an_error_is_a_failure_that_keeps_the_instance() {
    let world = World::new();
    let mut fixture = Fixture::default();
    let text = fixture.text("no such user");
    let code = format!("(i32.store8 (i32.const 16) (i32.const 1)) (i32.const 20) {text} (call $pair) (i32.const 16)");
    let chain = world.only(&fixture.extra(PAIR).phase("on-request", &code));
    let before = world.metrics.policy_instances.get();
    let failed = failure(ask(&chain).await);
    assert_eq!((failed.kind, failed.message.as_str()), (FailureKind::Error, "no such user"));
    let _ = ask(&chain).await;
    assert_eq!(world.metrics.policy_instances.get(), before + 1);
}

#[tokio::test]
async fn edits_are_in_the_exchange_afterwards() {
    let world = World::new();
    let mut fixture = Fixture::default();
    let (name, value, path) = (fixture.text("x-user"), fixture.text("ann"), fixture.text("/other"));
    let (part, var) = (fixture.text("lang"), fixture.text("de"));
    let code = format!(
        "(call $set-header {name} {value}) (call $set-path {path}) (call $add-key {part} {var})
         (call $bypass) (call $max-age-ms (i64.const 1500)) (call $set {part} {var}) {NEXT}"
    );
    let fixture = fixture
        .import("upstream", "set-header", "(param i32 i32 i32 i32)")
        .import("upstream", "set-path", "(param i32 i32)")
        .import("cache-lookup", "add-key", "(param i32 i32 i32 i32)")
        .import("cache-lookup", "bypass", "")
        .import("cache-lookup", "max-age-ms", "(param i64)")
        .import("vars", "set", "(param i32 i32 i32 i32)")
        .phase("on-request", &code);
    let chain = world.only(&fixture);
    let lease = chain.lease("a.test");
    assert!(lease.exports(Phase::OnRequest) && !lease.exports(Phase::OnDeliver));
    let (exchange, decision) = lease.run(Phase::OnRequest, exchange()).await;
    assert!(matches!(decision, Decision::Next));
    assert!(
        matches!(&exchange.upstream.headers[..], [HeaderEdit::Set(name, value)] if name == "x-user" && value == "ann")
    );
    assert_eq!(exchange.upstream.path.as_deref(), Some("/other"));
    assert_eq!(exchange.lookup.parts, [("lang".to_owned(), "de".to_owned())]);
    assert!(exchange.lookup.bypass);
    assert_eq!(exchange.lookup.max_age, Some(std::time::Duration::from_millis(1500)));
    assert_eq!(exchange.vars, [("lang".to_owned(), "de".to_owned())]);
}

/// A policy that edits the response in `on-deliver` and then does something.
fn deliver(then: &str) -> Fixture {
    let mut fixture = Fixture::default();
    let (old, new, value) = (fixture.text("x-old"), fixture.text("x-new"), fixture.text("2"));
    let code = format!(
        "(call $set-header {new} {value}) (call $append-header {old} {value}) (call $remove-header {old})
         (call $set-header {old} {value}) (call $set-status (i32.const 404)) (call $set {new} {value}) {then}"
    );
    fixture
        .import("response", "set-header", "(param i32 i32 i32 i32)")
        .import("response", "append-header", "(param i32 i32 i32 i32)")
        .import("response", "remove-header", "(param i32 i32)")
        .import("response", "set-status", "(param i32)")
        .import("vars", "set", "(param i32 i32 i32 i32)")
        .phase("on-deliver", &code)
}

#[tokio::test]
async fn a_response_is_edited_and_a_failure_takes_the_edits_back() {
    let world = World::new();
    let chain = world.only(&deliver(DONE));
    let (edited, decision) = chain.lease("a.test").run(Phase::OnDeliver, with_response()).await;
    assert!(matches!(decision, Decision::Next));
    let response = edited.response.unwrap();
    assert_eq!(response.status, StatusCode::NOT_FOUND);
    assert_eq!(response.headers["x-old"], "2");
    assert_eq!(response.headers["x-new"], "2");

    let chain = world.only(&deliver("(unreachable)"));
    let (untouched, decision) = chain.lease("a.test").run(Phase::OnDeliver, with_response()).await;
    let failed = failure(decision);
    assert_eq!((failed.kind, failed.status), (FailureKind::Trap, StatusCode::INTERNAL_SERVER_ERROR));
    let response = untouched.response.unwrap();
    assert_eq!(response.status, StatusCode::OK);
    assert_eq!(response.headers.get_all("x-old").iter().collect::<Vec<_>>(), ["1"]);
    assert!(!response.headers.contains_key("x-new") && untouched.vars.is_empty());
}

/// A policy that refuses unless what `import` gives under this name is this text.
fn wants(interface: &str, function: &str, name: Option<&str>, expected: Option<&str>) -> Fixture {
    let mut fixture = Fixture::default();
    let name = name.map(|name| fixture.text(name));
    let optional = name.is_some();
    let want = fixture.text(expected.unwrap_or_default());
    // A string comes as pointer and length at 64; an option has its case before them.
    let (signature, at) = if optional { ("(param i32 i32 i32)", 68) } else { ("(param i32)", 64) };
    let found = match (optional, expected) {
        (true, None) => "(i32.eqz (i32.load8_u (i32.const 64)))".to_owned(),
        _ => format!("(call $same (i32.load (i32.const {at})) (i32.load (i32.const {})) {want})", at + 4),
    };
    let code = format!(
        "(call ${function} {} (i32.const 64)) (if (result i32) {found} (then {NEXT}) (else {}))",
        name.unwrap_or_default(),
        deny(400)
    );
    fixture.import(interface, function, signature).extra(SAME).phase("on-request", &code)
}

/// Whether two texts are the same.
const SAME: &str = "(func $same (param i32 i32 i32 i32) (result i32)
    (if (i32.ne (local.get 1) (local.get 3)) (then (return (i32.const 0))))
    (block $done (loop $next
        (br_if $done (i32.eqz (local.get 1)))
        (local.set 1 (i32.sub (local.get 1) (i32.const 1)))
        (if (i32.ne (i32.load8_u (i32.add (local.get 0) (local.get 1))) (i32.load8_u (i32.add (local.get 2) (local.get 1))))
            (then (return (i32.const 0))))
        (br $next)))
    (i32.const 1))";

#[tokio::test]
async fn a_policy_reads_the_request_as_it_is() {
    let world = World::new();
    for (interface, function, name, expected) in [
        ("request", "method", None, Some("GET")),
        ("request", "host", None, Some("a.test")),
        ("request", "authority", None, Some("a.test:8080")),
        ("request", "path", None, Some("/a b")),
        ("request", "raw-target", None, Some("/a%20b?x=1&y=2&y=3")),
        ("request", "query-param", Some("x"), Some("1")),
        ("request", "query-param", Some("y"), None),
        ("request", "header", Some("X-Two"), Some("1, 2")),
        ("request", "header", Some("x-none"), None),
        ("request", "cookie", Some("sid"), Some("abc=")),
        ("client", "ip", None, Some("192.0.2.7")),
        ("client", "attribute", Some("conn.protocol"), Some("h2")),
        ("client", "attribute", Some("geo.country"), None),
        ("config", "get", Some("text"), Some("as it is")),
        ("config", "get", Some("number"), Some("3")),
        ("config", "get", Some("none"), None),
        ("config", "json", None, Some("{\"number\":3,\"text\":\"as it is\"}")),
    ] {
        let fixture = wants(interface, function, name, expected);
        let chain = world.with(&fixture, |settings| {
            settings.config.insert("text".to_owned(), "as it is".into());
            settings.config.insert("number".to_owned(), 3.into());
        });
        let mut exchange = exchange();
        for (name, value) in [("x-two", "1"), ("x-two", "2"), ("cookie", "a=b; sid=abc=; sid=other")] {
            exchange.request.headers.append(name, value.parse().unwrap());
        }
        let decision = chain.lease("a.test").run(Phase::OnRequest, exchange).await.1;
        assert!(matches!(decision, Decision::Next), "{function} {name:?}: {decision:?}");
    }
}

#[tokio::test]
async fn a_header_that_is_not_utf_8_is_not_shown_and_is_noted() {
    let world = World::new();
    let chain = world.only(&wants("request", "header", Some("x-odd"), None));
    let mut exchange = exchange();
    exchange.request.headers.insert("x-odd", http::HeaderValue::from_bytes(b"a\xff").unwrap());
    let (exchange, decision) = chain.lease("a.test").run(Phase::OnRequest, exchange).await;
    assert!(matches!(decision, Decision::Next) && exchange.unreadable_header);
}

#[tokio::test]
async fn secrets_stay_in_the_host_and_codes_come_out() {
    let world = World::new();
    let mut fixture = Fixture::default();
    let (algorithm, secret) = (fixture.text("hmac-sha256"), fixture.text("bunny"));
    let (data, encoding) = (fixture.text("/300kb.jpg1598024587"), fixture.text("base64url"));
    let expected = fixture.text("o10JRWlsAItyAsdKS6jJKjabHN4FrFsplDHPV1idcX4");
    let code = format!(
        "(call $verify-mac {algorithm} {secret} {data} {encoding} {expected} (i32.const 64))
         (if (result i32) (i32.and (i32.eqz (i32.load8_u (i32.const 64))) (i32.load8_u (i32.const 68)))
             (then {NEXT}) (else {}))",
        deny(403)
    );
    let fixture = fixture
        .import("crypto", "verify-mac", "(param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)")
        .phase("on-request", &code);
    let chain = world.with(&fixture, |settings| {
        settings.secrets.insert("bunny".to_owned(), Secret(Arc::from(&b"SecurityKey"[..])));
    });
    assert!(matches!(ask(&chain).await, Decision::Next));
    let chain = world.with(&fixture, |settings| {
        settings.secrets.insert("bunny".to_owned(), Secret(Arc::from(&b"another"[..])));
    });
    assert!(matches!(ask(&chain).await, Decision::Deny(_)));
}

#[tokio::test]
async fn rates_are_shared_by_instances_and_outlive_a_reload() {
    let mut world = World::new();
    let rate = Rate { rate: 1, per: std::time::Duration::from_secs(60), burst: 2 };
    world.capabilities = Arc::new(Capabilities { rates: [("api".to_owned(), rate)].into(), ..Capabilities::default() });
    let mut fixture = Fixture::default();
    let (bucket, key) = (fixture.text("api"), fixture.text("k"));
    let code = format!(
        "(call $take {bucket} {key} (i32.const 1) (i32.const 64))
         (if (result i32) (i32.load8_u (i32.const 64)) (then {}) (else {NEXT}))",
        deny(429)
    );
    let fixture = fixture.import("rate", "take", "(param i32 i32 i32 i32 i32 i32)").phase("on-request", &code);
    let chain = world.only(&fixture);
    assert!(matches!(ask(&chain).await, Decision::Next));
    let chain = world.with(&fixture, |settings| settings.isolation = Isolation::Request);
    assert!(matches!(ask(&chain).await, Decision::Next));
    assert_eq!(status(&ask(&chain).await), 429);
}

#[tokio::test]
async fn a_name_that_hosts_json_does_not_have_closes_instead_of_opening() {
    let world = World::new();
    let mut fixture = Fixture::default();
    let set = fixture.text("blocked");
    let code = format!("(drop (call $ip-in {set})) {NEXT}");
    let chain =
        world.only(&fixture.import("client", "ip-in", "(param i32 i32) (result i32)").phase("on-request", &code));
    let failed = failure(ask(&chain).await);
    assert!(failed.kind == FailureKind::Invalid && failed.message.contains("\"blocked\""), "{failed}");
}

#[tokio::test]
async fn isolation_by_request_makes_an_instance_for_each_call() {
    let world = World::new();
    let chain = world.with(&Fixture::on_request(NEXT), |settings| settings.isolation = Isolation::Request);
    let before = world.metrics.policy_instances.get();
    for _ in 0..5 {
        assert!(matches!(ask(&chain).await, Decision::Next));
    }
    assert_eq!(world.metrics.policy_instances.get(), before + 5);
}

/// Appends a letter to the variable `order` by setting a variable of that name.
fn marks(letter: &str, decision: &str) -> Fixture {
    let mut fixture = Fixture::default();
    let name = fixture.text(letter);
    let mark = format!("(call $set {name} {name})");
    fixture
        .import("vars", "set", "(param i32 i32 i32 i32)")
        .phase("on-request", &format!("{mark} {decision}"))
        .phase("on-deliver", &format!("{mark} {DONE}"))
}

#[tokio::test]
async fn a_chain_runs_in_order_on_the_way_in_and_in_reverse_on_the_way_out() {
    let world = World::new();
    world.write("a.wasm", &marks("a", NEXT).component());
    world.write("b.wasm", &marks("b", NEXT).component());
    world.write("c.wasm", &marks("c", &deny(401)).component());
    let order = |exchange: &Exchange| exchange.vars.iter().map(|(name, _)| name.clone()).collect::<String>();
    let chain = world.chain("a.test", ChainSource::Named(["a.wasm", "b.wasm"].map(|name| world.named(name)).into()));
    let lease = chain.lease("a.test");
    let (exchange_in, decision) = lease.run(Phase::OnRequest, exchange()).await;
    assert!(matches!(decision, Decision::Next));
    assert_eq!(order(&exchange_in), "ab");
    let (exchange_out, _) = lease.run(Phase::OnDeliver, with_response()).await;
    assert_eq!(order(&exchange_out), "ba");
    let chain =
        world.chain("a.test", ChainSource::Named(["a.wasm", "c.wasm", "b.wasm"].map(|name| world.named(name)).into()));
    let (exchange, decision) = chain.lease("a.test").run(Phase::OnRequest, exchange()).await;
    assert_eq!((status(&decision), order(&exchange).as_str()), (401, "ac"));
}
