//! Budgets of hosts on disk (issue 5, line 7).

use harness::origin::Seen;
use harness::prelude::*;

const OBJECT: u64 = 100_000;

async fn origin() -> Origin {
    Origin::answering(|_: &Seen| ok(generated(1, OBJECT)).cache_control("max-age=600").etag("\"1\"")).await
}

fn two(origin: &Origin, small: &str) -> Setup {
    setup()
        .vhost(vhost("*.small.test").origin(origin).set("cache_disk", small))
        .vhost(vhost("large.test").origin(origin))
}

async fn fetch(host: &Host, name: &str, objects: usize) {
    for number in 0..objects {
        host.get_from(name, &format!("/{number}")).await.status(200);
    }
}

/// Bytes and budget of a host, as `stats` has them.
async fn of(host: &Host, name: &str) -> (u64, Option<u64>) {
    let stats = host.stats().await;
    let all = stats["cache_hosts"].as_array().expect("a list");
    let host = all.iter().find(|host| host["host"] == name).expect(name);
    (host["disk_bytes"].as_u64().expect("a number"), host["disk_budget_bytes"].as_u64())
}

async fn settled(host: &Host, name: &str, so: impl Fn(u64) -> bool) -> u64 {
    for _ in 0..100 {
        let (bytes, _) = of(host, name).await;
        if so(bytes) {
            return bytes;
        }
        tokio::time::sleep(millis(100)).await;
    }
    panic!("{:?}", of(host, name).await);
}

#[tokio::test]
async fn a_host_over_its_budget_evicts_its_own_whatever_name_it_is_asked_by() {
    let origin = origin().await;
    let mut host = two(&origin, "1MB").start().await;
    fetch(&host, "large.test", 30).await;
    for name in ["a.small.test", "b.small.test"] {
        fetch(&host, name, 20).await;
    }
    let small = settled(&host, "*.small.test", |bytes| bytes <= 1_000_000).await;
    assert!(small > 500_000, "{small}");
    let (large, budget) = of(&host, "large.test").await;
    assert!(large >= 30 * OBJECT && budget.is_none(), "{large} {budget:?}");
    assert_eq!(host.metric("proxyhost_cache_host_disk_budget_bytes{host=\"*.small.test\"}").await, 1e6);
    assert!(host.metric("proxyhost_cache_host_evictions_total{host=\"*.small.test\"}").await > 0.0);
    assert!(host.metric("proxyhost_cache_host_disk_bytes{host=\"large.test\"}").await >= 3e6);

    // Whatever becomes of the program, what they have is known.
    host.crash_and_restart().await;
    let again = of(&host, "*.small.test").await.0;
    // What was still being written down when it was looked at may be there too.
    assert!((500_000..=1_000_000).contains(&again), "{again}, after {small}");
    assert!(of(&host, "large.test").await.0 >= 30 * OBJECT);
    fetch(&host, "large.test", 30).await;
    let asked = origin.requests();
    fetch(&host, "large.test", 30).await;
    assert_eq!(origin.requests(), asked, "the other host's are all there");
}

#[tokio::test]
async fn a_reload_gives_and_shrinks_budgets() {
    let origin = origin().await;
    let mut host = two(&origin, "100MB").start().await;
    fetch(&host, "a.small.test", 20).await;
    fetch(&host, "large.test", 20).await;
    settled(&host, "large.test", |bytes| bytes >= 20 * OBJECT).await;
    host.rewrite(json!({ "hosts": { "*.small.test": { "cache_disk": "500kB" } } }));
    host.reload().await.status(200);
    settled(&host, "*.small.test", |bytes| bytes <= 500_000).await;
    let (large, budget) = of(&host, "large.test").await;
    assert!(large >= 20 * OBJECT && budget.is_none(), "{large} {budget:?}");
    // What was kept before it had one is found too.
    host.rewrite(json!({ "hosts": { "large.test": { "cache_disk": 300_000 } } }));
    host.reload().await.status(200);
    let left = settled(&host, "large.test", |bytes| bytes <= 300_000).await;
    assert!(left > OBJECT, "{left}");
    assert_eq!(of(&host, "large.test").await.1, Some(300_000));
}

#[tokio::test]
async fn what_is_larger_than_the_budget_is_served() {
    let origin = origin().await;
    let host = two(&origin, "50kB").start().await;
    for _ in 0..3 {
        host.get_from("a.small.test", "/0").await.expect(200, pattern(1, 0..OBJECT));
    }
    let (bytes, _) = of(&host, "*.small.test").await;
    assert!(bytes <= 50_000, "{bytes}");
}
