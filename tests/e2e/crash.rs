//! kill -9 at any moment, then a clean start within a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use harness::prelude::*;

#[tokio::test]
async fn what_was_kept_is_there_or_a_miss_but_never_wrong() {
    let origin = Origin::answering(|request| {
        let seed: u64 = request.target.trim_start_matches('/').parse().unwrap_or(0);
        ok(generated(seed, 50_000 + seed * 70_000)).cache_control("max-age=600").etag(&format!("\"{seed}\""))
    })
    .await;
    let mut host = Host::with(vhost("a.test").origin(&origin)).await;
    let body = |seed: u64| pattern(seed, 0..50_000 + seed * 70_000);
    for round in 0..5 {
        // Some fills are under way when it happens.
        let calls: Vec<_> = (0..20).map(|n| tokio::spawn(host.call("GET", &format!("/{n}")).attempt())).collect();
        tokio::time::sleep(millis(20 * round)).await;
        host.crash_and_restart().await;
        for call in calls {
            let _ = call.await;
        }
        // "Within a second" is for an idle machine; two cores with many plays on them get more.
        assert!(host.started_in() < secs(5), "{:?}", host.started_in());
        for seed in 0..20 {
            host.get(&format!("/{seed}")).await.expect(200, body(seed));
        }
    }
    let before = origin.requests();
    tokio::time::sleep(secs(2)).await;
    host.crash_and_restart().await;
    for seed in 0..20 {
        host.get(&format!("/{seed}")).await.expect(200, body(seed));
    }
    assert!(origin.requests() - before <= 5, "{} of 20 entries were lost", origin.requests() - before);
}

#[tokio::test]
async fn a_purge_outlives_a_crash() {
    let origin = Origin::serving("/a", ok("hello").cache_control("max-age=600")).await;
    let mut host = Host::with(vhost("a.test").origin(&origin)).await;
    host.get("/a").await.expect(200, "hello");
    tokio::time::sleep(secs(1)).await;
    host.purge(json!({ "host": "a.test", "path": "/a" })).await;
    host.crash_and_restart().await;
    host.get("/a").await.expect(200, "hello").cache("miss");
}

/// What an origin has of a path: a body for each version.
fn version_of(path: u64, version: u64) -> (u64, u64) {
    (path + 1000 * version, 3_000 + path * 60_000)
}

#[tokio::test]
async fn fifty_kills_under_load_leave_nothing_wrong_and_no_purge_undone() {
    const PATHS: u64 = 12;
    let versions: Arc<[AtomicU64; PATHS as usize]> = Arc::default();
    let of = Arc::clone(&versions);
    let origin = Origin::answering(move |request| {
        let path: u64 = request.path().trim_start_matches('/').parse().unwrap_or(0);
        let (seed, length) = version_of(path, of[path as usize].load(Ordering::SeqCst));
        ok(generated(seed, length)).cache_control("max-age=600").etag(&format!("\"{seed}\"")).slowly(100_000, millis(2))
    })
    .await;
    // Too little for all of it, so that there is eviction too.
    let mut host = setup()
        .vhost(vhost("a.test").origin(&origin))
        .config(json!({ "cache": { "disk": "3MB", "memory": "1MB" } }))
        .start()
        .await;
    let body = |path: u64, version: u64| {
        let (seed, length) = version_of(path, version);
        pattern(seed, 0..length)
    };
    for round in 0..50 {
        let calls: Vec<_> =
            (0..PATHS).map(|path| (path, tokio::spawn(host.call("GET", &format!("/{path}")).attempt()))).collect();
        tokio::time::sleep(millis(round * 7 % 45)).await;
        if round % 3 == 0 {
            let path = round % PATHS;
            versions[path as usize].fetch_add(1, Ordering::SeqCst);
            host.purge(json!({ "host": "a.test", "path": format!("/{path}") })).await;
        }
        host.crash_and_restart().await;
        for (path, call) in calls {
            // What was whole before the end is what the origin had then.
            if let Ok(Ok(answer)) = call.await {
                let newest = versions[path as usize].load(Ordering::SeqCst);
                let possible = [newest, newest.saturating_sub(1)].map(|version| body(path, version));
                assert!(possible.contains(&answer.body), "round {round}, path {path}: {} bytes", answer.body.len());
            }
        }
        for path in [round % PATHS, (round * 5 + 1) % PATHS, (round * 7 + 2) % PATHS] {
            let version = versions[path as usize].load(Ordering::SeqCst);
            host.get(&format!("/{path}")).await.expect(200, body(path, version));
        }
    }
}
