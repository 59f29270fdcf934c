//! What a change of files does to hosts in service, and what is remembered over a restart.

use std::time::{Duration, Instant};

use super::fixture::{DONE, NEXT, deny};
use super::*;

#[tokio::test]
async fn a_changed_file_replaces_the_old_and_requests_in_flight_keep_theirs() {
    let world = World::new();
    world.write("a.test.wasm", &Fixture::on_request(&deny(401)).component());
    let chain = world.chain("a.test", ChainSource::Dropped);
    let lease = chain.lease("a.test");
    assert_eq!(status(&ask(&chain).await), 401);
    let number = chain.number();
    world.write("a.test.wasm", &Fixture::on_request(&deny(402)).component());
    let lines = world.policies.refresh();
    assert!(lines.len() == 1 && lines[0].contains("in service"), "{lines:?}");
    assert_eq!(status(&lease.run(Phase::OnRequest, exchange()).await.1), 401);
    assert_eq!(status(&ask(&chain).await), 402);
    assert_ne!(number, chain.number());
    assert!(world.policies.refresh().is_empty());
}

#[tokio::test]
async fn a_bad_file_keeps_the_old_one_in_service() {
    let world = World::new();
    world.write("a.test.wasm", &Fixture::on_request(&deny(401)).component());
    let chain = world.chain("a.test", ChainSource::Dropped);
    let mut refuses = Fixture::default();
    let text = refuses.text("no such table");
    let code = format!("(i32.store8 (i32.const 16) (i32.const 1)) (i32.const 20) {text} (call $pair) (i32.const 16)");
    let refuses = refuses.extra(super::calls::PAIR).phase("configure", &code).phase("on-request", NEXT);
    for (bytes, word) in [(b"junk".to_vec(), "not WebAssembly"), (refuses.component(), "configure: no such table")] {
        world.write("a.test.wasm", &bytes);
        let lines = world.policies.refresh();
        assert!(lines.len() == 1 && lines[0].contains(word) && lines[0].contains("previous one stays"), "{lines:?}");
        assert!(world.problem().contains(word));
        assert_eq!(status(&ask(&chain).await), 401);
        // A reload of hosts.json with other settings meanwhile keeps it too.
        let mut named = world.named("a.test.wasm");
        named.limits.calls = 5;
        let other = world.chain("a.test", ChainSource::Named(vec![named]));
        assert_eq!(status(&ask(&other).await), 401);
    }
    world.write("a.test.wasm", &Fixture::on_request(&deny(403)).component());
    world.policies.refresh();
    assert_eq!((status(&ask(&chain).await), world.problem().as_str()), (403, ""));
}

#[tokio::test]
async fn a_file_that_vanishes_leaves_its_policy_in_force() {
    let world = World::new();
    world.write("a.test.wasm", &Fixture::on_request(&deny(401)).component());
    let chain = world.chain("a.test", ChainSource::Dropped);
    std::fs::remove_file(world.file("a.test.wasm")).unwrap();
    let lines = world.policies.refresh();
    assert!(lines.len() == 1 && lines[0].contains("stays in force"), "{lines:?}");
    assert!(world.policies.refresh().is_empty(), "said once");
    assert_eq!(status(&ask(&chain).await), 401);
    // So does a reload of hosts.json.
    let again = world.chain("a.test", ChainSource::Dropped);
    assert_eq!(status(&ask(&again).await), 401);
    // At the next start its host is closed, until hosts.json says that it has none.
    drop((chain, again));
    let world = world.restart();
    let chain = world.chain("a.test", ChainSource::Dropped);
    let failed = failure(ask(&chain).await);
    assert_eq!((failed.kind, failed.status.as_u16()), (FailureKind::Load, 503));
    assert!(failed.message.contains("\"policy\": null"), "{failed}");
    let none = world.chain("a.test", ChainSource::None);
    world.policies.put_in_force(std::slice::from_ref(&none));
    assert!(!none.lease("a.test").exports(Phase::OnRequest));
    drop((chain, none));
    let world = world.restart();
    let chain = world.chain("a.test", ChainSource::Dropped);
    assert!(!chain.lease("a.test").exports(Phase::OnRequest));
    assert!(matches!(ask(&chain).await, Decision::Next));
}

#[tokio::test]
async fn an_admin_can_let_a_lost_policy_go() {
    let world = World::new();
    world.write("a.test.wasm", &Fixture::on_request(&deny(401)).component());
    let chain = world.chain("a.test", ChainSource::Dropped);
    assert!(!world.policies.forget("a.test"), "the file is still there");
    assert_eq!(status(&ask(&chain).await), 401);
    std::fs::remove_file(world.file("a.test.wasm")).unwrap();
    world.policies.refresh();
    assert!(world.policies.forget("a.test"));
    assert!(matches!(ask(&chain).await, Decision::Next));
    assert!(!world.policies.forget("a.test"));
}

#[tokio::test]
async fn a_host_without_a_policy_takes_one_that_is_dropped_in() {
    let world = World::new();
    let exact = world.chain("b.test", ChainSource::Dropped);
    let wild = world.chain("*.b.test", ChainSource::Dropped);
    assert!(!exact.lease("a.test").exports(Phase::OnRequest) && !wild.lease("a.test").exports(Phase::OnRequest));
    assert!(world.policies.refresh().is_empty());
    world.write("b.test.wasm", &Fixture::on_request(&deny(401)).component());
    world.write("_.b.test.wasm", &Fixture::on_request(&deny(402)).component());
    assert_eq!(world.policies.refresh().len(), 2);
    assert_eq!((status(&ask(&exact).await), status(&ask(&wild).await)), (401, 402));
    // One that is bad from the beginning closes its host.
    let bad = world.chain("c.test", ChainSource::Dropped);
    world.write("c.test.wasm", b"junk");
    world.policies.refresh();
    assert_eq!(status(&ask(&bad).await), 503);
}

#[tokio::test]
async fn a_domain_that_a_pattern_serves_has_the_file_of_its_name() {
    let world = World::new();
    let deny_file = |name: &str, code| world.write(name, &Fixture::on_request(&deny(code)).component());
    deny_file("_.wasm", 401);
    deny_file("a.b.test.wasm", 402);
    let any = world.chain("*", ChainSource::Dropped);
    let wild = world.chain("*.b.test", ChainSource::Dropped);
    let exact = world.chain("own.b.test", ChainSource::None);
    let all = [any.clone(), wild.clone(), exact];
    assert_eq!(world.policies.domains(&all).len(), 1);
    assert!(world.policies.put_in_force(&all).is_empty());
    let asked = async |chain: &Chain, host: &str| match chain.lease(host).run(Phase::OnRequest, exchange()).await.1 {
        Decision::Next => 0,
        decision => status(&decision),
    };
    assert_eq!(
        (asked(&any, "x.test").await, asked(&wild, "a.b.test").await, asked(&wild, "c.b.test").await),
        (401, 402, 0)
    );
    // Dropped in, changed and bad while requests run; a host that hosts.json speaks of goes by that.
    deny_file("x.test.wasm", 403);
    deny_file("own.b.test.wasm", 404);
    deny_file("Upper.test.wasm", 405);
    deny_file("_.c.test.wasm", 406);
    deny_file("nodot.wasm", 408);
    std::os::unix::fs::symlink("/nowhere", world.file("linked.test.wasm")).unwrap();
    let lines = world.policies.refresh();
    assert_eq!(lines.iter().filter(|line| line.contains("is no host's policy")).count(), 4, "{lines:?}");
    assert_eq!((asked(&any, "nodot").await, asked(&any, "linked.test").await), (401, 401));
    assert_eq!((asked(&any, "x.test").await, asked(&any, "y.test").await), (403, 401));
    assert_eq!((asked(&wild, "own.b.test").await, asked(&any, "_.c.test").await), (0, 401));
    world.write("x.test.wasm", b"junk");
    world.policies.refresh();
    assert_eq!(asked(&any, "x.test").await, 403);
    deny_file("x.test.wasm", 407);
    world.policies.refresh();
    assert_eq!(asked(&any, "x.test").await, 407);
    // Gone, it stays in force, at a reload too; at a start its domain is closed, until an admin lets it go.
    std::fs::remove_file(world.file("x.test.wasm")).unwrap();
    world.policies.refresh();
    world.policies.domains(&all);
    world.policies.put_in_force(&all);
    assert_eq!(asked(&any, "x.test").await, 407);
    drop((any, wild, all));
    let world = world.restart();
    let any = world.chain("*", ChainSource::Dropped);
    let all = [any.clone()];
    world.policies.domains(&all);
    world.policies.put_in_force(&all);
    assert_eq!((asked(&any, "x.test").await, asked(&any, "y.test").await), (503, 401));
    assert!(world.policies.forget("x.test"));
    assert_eq!(asked(&any, "x.test").await, 401);
    // A domain that gets a host of its own keeps its policy for the requests that are still routed here.
    world.write("z.test.wasm", &Fixture::on_request(&deny(409)).component());
    world.policies.refresh();
    let own = world.chain("z.test", ChainSource::Dropped);
    let both = [any.clone(), own];
    world.policies.domains(&both);
    assert_eq!(asked(&any, "z.test").await, 409);
    world.policies.put_in_force(&both);
    assert_eq!((asked(&any, "z.test").await, asked(&both[1], "z.test").await), (401, 409));
}

#[tokio::test]
async fn a_named_file_that_is_missing_closes_its_host_unless_it_is_open() {
    let world = World::new();
    let closed = world.chain("a.test", ChainSource::Named(vec![world.named("gone.wasm")]));
    let failed = failure(ask(&closed).await);
    assert!(failed.kind == FailureKind::Load && failed.message.contains("is not there"), "{failed}");
    let mut open = world.named("gone.wasm");
    open.on_failure = OnFailure::Open;
    let open = world.chain("b.test", ChainSource::Named(vec![open]));
    let (exchange, decision) = open.lease("a.test").run(Phase::OnRequest, exchange()).await;
    assert!(matches!(decision, Decision::Next) && exchange.failed_open);
    world.write("gone.wasm", &Fixture::on_request(&deny(401)).component());
    assert_eq!(world.policies.refresh().len(), 2);
    assert_eq!((status(&ask(&closed).await), status(&ask(&open).await)), (401, 401));
}

#[tokio::test]
async fn the_same_settings_give_the_same_chain() {
    let world = World::new();
    world.write("a.test.wasm", &Fixture::on_request(NEXT).phase("configure", DONE).component());
    let one = world.chain("a.test", ChainSource::Dropped);
    let two = world.chain("a.test", ChainSource::Dropped);
    assert!(Arc::ptr_eq(&one, &two));
}

#[tokio::test]
async fn the_watcher_finds_a_change_by_itself_and_ends_with_the_policies() {
    let world = World::new();
    let chain = world.chain("a.test", ChainSource::Dropped);
    world.policies.watch().unwrap();
    world.write("a.test.wasm", &Fixture::on_request(&deny(401)).component());
    let began = Instant::now();
    while status(&ask(&chain).await) != 401 {
        assert!(began.elapsed() < Duration::from_secs(10), "the change was not found");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let policies = Arc::downgrade(&world.policies);
    drop(world);
    while policies.strong_count() > 0 {
        assert!(began.elapsed() < Duration::from_secs(20), "the watcher holds on");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn many_reloads_leave_nothing_behind() {
    let world = World::new();
    let chain = world.chain("a.test", ChainSource::Dropped);
    for round in 0..20u16 {
        world.write("a.test.wasm", &Fixture::on_request(&deny(400 + round)).component());
        world.policies.refresh();
        assert_eq!(status(&ask(&chain).await), 400 + round);
    }
}
