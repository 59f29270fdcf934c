//! Policies that misbehave: that request is refused as configured, the instance goes, the next request is served.

use std::time::{Duration, Instant};

use super::fixture::{DONE, NEXT, deny};
use super::*;

/// What misbehaves when the query parameter `x` (which every test request has) is asked for, once.
fn cases() -> Vec<(&'static str, Fixture, FailureKind)> {
    let mut huge = Fixture::default().pages(64);
    let name = huge.text("x");
    vec![
        ("trap", Fixture::on_request("(unreachable)"), FailureKind::Trap),
        ("loop", Fixture::on_request("(loop $l (br $l)) (unreachable)"), FailureKind::Time),
        (
            "memory",
            Fixture::on_request(&format!(
                "(loop $l (br_if $l (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) (unreachable) {NEXT}"
            )),
            FailureKind::Memory,
        ),
        (
            "recursion",
            Fixture::on_request(&format!("(drop (call $down (i32.const 1))) {NEXT}")).extra(
                "(func $down (param i32) (result i32)
                   (i32.add (call $down (i32.add (local.get 0) (i32.const 1))) (local.get 0)))",
            ),
            FailureKind::Trap,
        ),
        (
            "huge string",
            huge.import("vars", "set", "(param i32 i32 i32 i32)")
                .phase("on-request", &format!("(call $set {name} (i32.const 8192) (i32.const 4000000)) {NEXT}")),
            FailureKind::Calls,
        ),
        (
            "too many calls",
            Fixture::default()
                .import("request", "received-at-ms", "(result i64)")
                .phase("on-request", &format!("(loop $l (drop (call $received-at-ms)) (br $l)) {NEXT}")),
            FailureKind::Calls,
        ),
    ]
}

#[tokio::test]
async fn each_way_to_misbehave_is_stopped_and_the_next_request_is_served() {
    let world = World::new();
    world.write("good.wasm", &Fixture::on_request(&deny(402)).component());
    let good = world.chain("good.test", ChainSource::Named(vec![world.named("good.wasm")]));
    for (name, fixture, kind) in cases() {
        let chain = world.with(&fixture, |settings| settings.limits.memory_mib = 8);
        for _ in 0..2 {
            let began = Instant::now();
            let failed = failure(ask(&chain).await);
            assert_eq!((failed.kind, failed.status.as_u16()), (kind, 503), "{name}: {failed}");
            assert!(began.elapsed() < Duration::from_millis(500), "{name} took {:?}", began.elapsed());
            assert_eq!(status(&ask(&good).await), 402, "another host after {name}");
        }
        // Open: it goes on, and says so.
        let chain = world.with(&fixture, |settings| {
            settings.limits.memory_mib = 8;
            settings.on_failure = OnFailure::Open;
        });
        let (exchange, decision) = chain.lease("a.test").run(Phase::OnRequest, exchange()).await;
        assert!(matches!(decision, Decision::Next) && exchange.failed_open, "{name}");
    }
}

#[tokio::test]
async fn an_instance_that_trapped_is_not_used_again() {
    let world = World::new();
    // Traps at the first call of each instance, by a global that survives in the instance.
    let fixture = Fixture::on_request(&format!(
        "(global.set $calls (i32.add (global.get $calls) (i32.const 1)))
         (if (i32.eq (global.get $calls) (i32.const 3)) (then (unreachable))) {NEXT}"
    ))
    .extra("(global $calls (mut i32) (i32.const 0))");
    let chain = world.only(&fixture);
    let mut outcomes = Vec::new();
    for _ in 0..7 {
        outcomes.push(status(&ask(&chain).await));
    }
    assert_eq!(outcomes, [0, 0, 503, 0, 0, 503, 0]);
}

#[tokio::test]
async fn a_failed_policy_leaves_no_edits_and_the_others_keep_theirs() {
    let world = World::new();
    let edits = |then: &str| {
        let mut fixture = Fixture::default();
        let (name, value) = (fixture.text("k"), fixture.text("v"));
        fixture
            .import("cache-lookup", "add-key", "(param i32 i32 i32 i32)")
            .import("vars", "set", "(param i32 i32 i32 i32)")
            .phase("on-request", &format!("(call $add-key {name} {value}) (call $set {name} {value}) {then}"))
    };
    world.write("a.wasm", &edits(NEXT).component());
    world.write("b.wasm", &edits("(unreachable)").component());
    let mut second = world.named("b.wasm");
    second.on_failure = OnFailure::Open;
    let chain = world.chain("a.test", ChainSource::Named(vec![world.named("a.wasm"), second]));
    let (exchange, decision) = chain.lease("a.test").run(Phase::OnRequest, exchange()).await;
    assert!(matches!(decision, Decision::Next) && exchange.failed_open);
    assert_eq!(exchange.lookup.parts.len(), 1);
    assert_eq!(exchange.vars.len(), 1);
}

#[tokio::test]
async fn a_host_call_in_the_wrong_phase_says_where_it_belongs() {
    let world = World::new();
    let fixture = Fixture::default()
        .import("cache-store", "ttl-ms", "(param i64)")
        .phase("on-request", &format!("(call $ttl-ms (i64.const 1)) {NEXT}"));
    let failed = failure(ask(&world.only(&fixture)).await);
    assert_eq!((failed.kind, failed.message.as_str()), (FailureKind::Trap, "ttl-ms is only for on-origin-response"));

    let fixture = Fixture::default()
        .import("request", "received-at-ms", "(result i64)")
        .phase("configure", &format!("(drop (call $received-at-ms)) {DONE}"))
        .phase("on-request", NEXT);
    let failed = failure(ask(&world.only(&fixture)).await);
    assert_eq!(failed.kind, FailureKind::Load);
    assert!(failed.message.contains("received-at-ms is only for on-request"), "{failed}");
}

#[tokio::test]
async fn what_a_policy_may_add_is_bounded() {
    let world = World::new();
    let endless = |interface: &str, function: &str, signature: &str, arguments: &str| {
        Fixture::default()
            .import(interface, function, signature)
            .phase("on-request", &format!("(loop $l (call ${function} {arguments}) (br $l)) {NEXT}"))
    };
    let two = "(i32.const 0) (i32.const 1) (i32.const 0) (i32.const 1)";
    // The text at 1024 is a header name.
    let mut named = Fixture::default();
    let name = named.text("x-a");
    let cases = [
        endless("cache-lookup", "add-key", "(param i32 i32 i32 i32)", two),
        named
            .import("upstream", "append-header", "(param i32 i32 i32 i32)")
            .phase("on-request", &format!("(loop $l (call $append-header {name} {name}) (br $l)) {NEXT}")),
    ];
    for fixture in cases {
        let failed = failure(ask(&world.only(&fixture)).await);
        assert_eq!(failed.kind, FailureKind::Calls, "{failed}");
        assert!(failed.message.contains("in all"), "{failed}");
    }
}

#[tokio::test]
async fn failures_that_cost_too_much_lead_to_quarantine() {
    let world = World::new();
    let fixture = Fixture::on_request("(loop $l (br $l)) (unreachable)").phase("on-deliver", DONE);
    let chain = world.with(&fixture, |settings| settings.limits.time_ms = 400);
    let mut kinds = Vec::new();
    for _ in 0..8 {
        kinds.push(failure(ask(&chain).await).kind);
        if kinds.last() == Some(&FailureKind::Quarantine) {
            break;
        }
    }
    assert_eq!(kinds.pop(), Some(FailureKind::Quarantine), "{kinds:?}");
    assert!(kinds.len() >= 4 && kinds.iter().all(|kind| *kind == FailureKind::Time), "{kinds:?}");
    let began = Instant::now();
    assert_eq!(failure(ask(&chain).await).kind, FailureKind::Quarantine);
    assert!(began.elapsed() < Duration::from_millis(50));
    assert!(world.policies.status().to_string().contains("quarantine_ms"));
    // The other phases of the policy are not in quarantine.
    let decision = chain.lease("a.test").run(Phase::OnDeliver, with_response()).await.1;
    assert!(matches!(decision, Decision::Next));
}

#[tokio::test]
async fn one_that_ran_out_of_its_time_gives_way_to_others_from_then_on() {
    let world = World::new();
    let endless = Fixture::on_request("(loop $l (br $l)) (unreachable)");
    let chain = world.with(&endless, |settings| settings.limits.time_ms = 20);
    let turns_meanwhile = async || {
        let turns = std::cell::Cell::new(0);
        tokio::select! {
            decision = ask(&chain) => assert_eq!(failure(decision).kind, FailureKind::Time),
            () = async { loop { turns.set(turns.get() + 1); tokio::task::yield_now().await; } } => {}
        }
        turns.get()
    };
    let lane = || world.policies.status()["hosts"][0]["policies"][0]["lane"].clone();
    assert_eq!(lane(), "direct");
    assert!(turns_meanwhile().await <= 1, "the first call is direct");
    assert_eq!(lane(), "fiber");
    assert!(turns_meanwhile().await > 3, "others had no turn");
}
