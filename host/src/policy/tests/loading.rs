//! What can be loaded, on which lane, and what is said of what can't.

use super::fixture::{NEXT, WIT, deny};
use super::*;

#[tokio::test]
async fn a_core_module_is_made_a_component() {
    let world = World::new();
    world.write("policy.wasm", &Fixture::on_request(&deny(403)).module());
    let chain = world.chain("a.test", ChainSource::Named(vec![world.named("policy.wasm")]));
    assert_eq!(status(&ask(&chain).await), 403);
    let inspection = world.policies.inspect(&world.file("policy.wasm")).unwrap();
    assert_eq!((inspection.kind, inspection.lane), (Kind::Module, Lane::Direct));
    assert_eq!(inspection.phases, ["on-request"]);
}

#[tokio::test]
async fn what_is_no_policy_is_refused_in_words() {
    let world = World::new();
    let newer = WIT.replace("header-bytes: func", "header-bytes2: func() -> u32;\n  header-bytes: func");
    let cases: [(Vec<u8>, &[&str]); 9] = [
        (b"#!/bin/sh".to_vec(), &["policy.wasm is not WebAssembly"]),
        (b"\0asm\x01\0\0\0".to_vec(), &["exports no phase"]),
        (b"\0asm\x0d\0\x01\0\xff".to_vec(), &["policy.wasm does not compile"]),
        (
            Fixture::default()
                .against("0.1.0", newer.clone())
                .import("request", "header-bytes2", "(result i32)")
                .phase("on-request", &format!("(drop (call $header-bytes2)) {NEXT}"))
                .component(),
            &[
                "policy.wasm wants proxyhost:policy/request@0.1.0 function header-bytes2",
                "this proxyhost has 0.1.0 (functions: ",
            ],
        ),
        (
            Fixture::default()
                .against("0.2.0", newer.replace("policy@0.1.0", "policy@0.2.0"))
                .import("request", "header-bytes2", "(result i32)")
                .phase("on-request", &format!("(drop (call $header-bytes2)) {NEXT}"))
                .component(),
            &["policy.wasm wants proxyhost:policy/request@0.2.0 function header-bytes2", "this proxyhost has 0.1.0"],
        ),
        (
            Fixture::default()
                .against("0.1.0", WIT.replace("received-at-ms: func() -> u64", "received-at-ms: func() -> u32"))
                .import("request", "received-at-ms", "(result i32)")
                .phase("on-request", &format!("(drop (call $received-at-ms)) {NEXT}"))
                .component(),
            &["built for another interface", "received-at-ms"],
        ),
        (
            Fixture::default()
                .against("0.2.0", WIT.replace("policy@0.1.0", "policy@0.2.0"))
                .phase("on-request", NEXT)
                .component(),
            &["exports proxyhost:policy/on-request@0.2.0", "this proxyhost has 0.1.0"],
        ),
        (
            Fixture::default()
                .against("0.1.0", WIT.replace("deny(u16),", "deny(u16),\n    hold(u16),"))
                .phase("on-request", NEXT)
                .component(),
            &["exports proxyhost:policy/on-request@0.1.0 function handle with another type"],
        ),
        (
            Fixture::default()
                .import("fetch", "send", "(param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)")
                .phase("on-request", &format!("(call $send (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 64)) {NEXT}"))
                .component(),
            &["wants proxyhost:policy/fetch@0.1.0", "fetch is not available in this version of proxyhost"],
        ),
    ];
    for (bytes, words) in cases {
        world.write("policy.wasm", &bytes);
        let chain = world.chain("a.test", ChainSource::Named(vec![world.named("policy.wasm")]));
        let failed = failure(ask(&chain).await);
        assert_eq!((failed.kind, failed.status.as_u16()), (FailureKind::Load, 503));
        assert!(chain.lease("a.test").exports(Phase::OnRequest));
        for word in words {
            assert!(failed.message.contains(word), "{word:?} is not in {:?}", failed.message);
            assert!(world.problem().contains(word), "{}", world.problem());
        }
        assert_eq!(chain.problems().len(), 1);
        assert!(chain.in_service().is_empty());
        assert_eq!(world.policies.status()["ok"], false);
    }
}

#[tokio::test]
async fn secrets_are_readable_by_grant_only() {
    let world = World::new();
    let mut fixture = Fixture::default();
    let name = fixture.text("sign");
    let code = format!(
        "(call $get {name} (i32.const 64))
         (if (result i32) (i32.load8_u (i32.const 64)) (then {}) (else {NEXT}))",
        deny(402)
    );
    let fixture = fixture.import("secrets", "get", "(param i32 i32 i32)").phase("on-request", &code);
    let give = |settings: &mut PolicySettings| {
        settings.secrets.insert("sign".to_owned(), settings::Secret(Arc::from(&b"x"[..])));
    };
    let failed = failure(ask(&world.with(&fixture, give)).await);
    assert!(failed.message.contains("needs the grant \"secrets\""), "{failed}");
    let chain = world.with(&fixture, |settings| {
        give(settings);
        settings.grants.push("secrets".to_owned());
    });
    assert_eq!(status(&ask(&chain).await), 402);
}

#[tokio::test]
async fn memory_beyond_what_policies_may_have_is_refused() {
    let world = World::new();
    let chain = world.with(&Fixture::on_request(NEXT), |settings| settings.limits.memory_mib = 65);
    assert!(failure(ask(&chain).await).message.contains("65 MiB"));
    let chain = world.with(&Fixture::on_request(NEXT).pages(17), |settings| settings.limits.memory_mib = 1);
    assert!(failure(ask(&chain).await).message.contains("could not be started"));
}

#[tokio::test]
async fn compiled_code_is_kept_and_a_damaged_file_is_made_again() {
    let world = World::new();
    world.write("policy.wasm", &Fixture::on_request(&deny(403)).component());
    let source = || ChainSource::Named(vec![world.named("policy.wasm")]);
    assert_eq!(status(&ask(&world.chain("a.test", source())).await), 403);
    let code = world.folder.path().join("state/code");
    let kept = || -> Vec<PathBuf> {
        std::fs::read_dir(&code)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "cwasm"))
            .collect()
    };
    let files = kept();
    assert_eq!(files.len(), 1);
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&code).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o700);
    let world = world.restart();
    let chain = world.chain("a.test", ChainSource::Named(vec![world.named("policy.wasm")]));
    assert_eq!(status(&ask(&chain).await), 403);
    let mut bytes = std::fs::read(&files[0]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&files[0], &bytes).unwrap();
    let world = world.restart();
    let chain = world.chain("a.test", ChainSource::Named(vec![world.named("policy.wasm")]));
    assert_eq!(status(&ask(&chain).await), 403);
    assert_ne!(std::fs::read(&files[0]).unwrap(), bytes, "the damaged file was replaced");
}

/// Writes to stderr through preview 1, and then does something.
fn wasi(then: &str) -> Fixture {
    // The adapter lays a page of its own and a stack into the guest's memory.
    let mut fixture = Fixture::default().pages(8);
    let text = fixture.text("the guest says why\n");
    let code = format!(
        "(i32.const 512) {text} (call $pair)
         (drop (call $fd_write (i32.const 2) (i32.const 512) (i32.const 1) (i32.const 600))) {then}"
    );
    fixture
        .raw_import("wasi_snapshot_preview1", "fd_write", "(param i32 i32 i32 i32) (result i32)")
        .raw_import("wasi_snapshot_preview1", "environ_sizes_get", "(param i32 i32) (result i32)")
        .extra(super::calls::PAIR)
        .phase("on-request", &code)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_that_imports_wasi_runs_on_a_fiber_and_finds_nothing() {
    let world = Arc::new(World::new());
    // The environment is empty: no variables, no bytes.
    let code = format!(
        "(drop (call $environ_sizes_get (i32.const 700) (i32.const 704)))
         (if (result i32) (i32.or (i32.load (i32.const 700)) (i32.load (i32.const 704))) (then {}) (else {NEXT}))",
        deny(500)
    );
    world.write("policy.wasm", &wasi(&code).module());
    let chain = world.chain("a.test", ChainSource::Named(vec![world.named("policy.wasm")]));
    assert_eq!(world.policies.inspect(&world.file("policy.wasm")).unwrap().lane, Lane::Fiber);
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let chain = chain.clone();
            tokio::spawn(async move { matches!(ask(&chain).await, Decision::Next) })
        })
        .collect();
    for task in tasks {
        assert!(task.await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trap_on_a_fiber_comes_with_its_last_words_and_a_loop_gives_way_and_ends() {
    let world = World::new();
    world.write("policy.wasm", &wasi("(unreachable)").module());
    let named = || ChainSource::Named(vec![world.named("policy.wasm")]);
    let failed = failure(ask(&world.chain("a.test", named())).await);
    assert_eq!(failed.kind, FailureKind::Trap, "{failed}");
    assert!(failed.message.contains("the guest says why"), "{failed}");

    world.write("policy.wasm", &wasi("(loop $l (br $l)) (unreachable)").module());
    let chain = world.chain("a.test", named());
    for _ in 0..2 {
        let began = std::time::Instant::now();
        assert_eq!(failure(ask(&chain).await).kind, FailureKind::Time);
        assert!(began.elapsed() < std::time::Duration::from_millis(500));
    }
}

#[tokio::test]
async fn a_fiber_works_on_a_runtime_of_one_thread_too() {
    let world = World::new();
    world.write("policy.wasm", &wasi(NEXT).module());
    let chain = world.chain("a.test", ChainSource::Named(vec![world.named("policy.wasm")]));
    let decision = ask(&chain).await;
    assert!(matches!(decision, Decision::Next), "{decision:?}");
}
