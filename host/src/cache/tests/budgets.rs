//! Budgets of hosts: who goes, what is counted, and what hosts.json may change meanwhile.

use super::*;
use crate::cache::hosts::HostStats;
use crate::cache::index::schema::{self, EntryRecord, SliceRecord};
use crate::cache::index::{self, Index};
use crate::cache::key;
use crate::semantics::authority::HostPattern;

/// What an entry with this body takes about, records and all.
const BODY: usize = 2000;

fn budgets(hosts: &[(&str, Option<u64>)]) -> Arc<[HostBudget]> {
    let budget = |(name, disk_bytes): &(&str, Option<u64>)| HostBudget {
        name: (*name).into(),
        pattern: HostPattern::parse(name).unwrap(),
        disk_bytes: *disk_bytes,
    };
    hosts.iter().map(budget).collect()
}

impl Rig {
    /// As a reload does, without the wait for the next round of housekeeping.
    fn reload(&self, hosts: &[(&str, Option<u64>)]) {
        let settings =
            Settings { disk_bytes: 1 << 30, memory_bytes: 1 << 20, hosts: budgets(hosts), ..Settings::default() };
        self.cache.configure(&settings);
        let shared = &self.cache.shared;
        shared.configure_hosts(&shared.disk.load_full().unwrap());
    }

    async fn keep_at(&self, host: &str, path: &str, length: usize) -> bool {
        let host = Hostname::parse(host).unwrap();
        let key = CacheKey::build(&KeyParts { host: &host, path, parts: &[] }).unwrap();
        let head = head(&self.cache, path, Some(length as u64), false);
        let (_, writer) = self.cache.keep(&key, &HeaderMap::new(), head);
        let mut writer = writer.unwrap();
        assert!(writer.write(bytes(length).into()).await);
        writer.finish().await
    }

    async fn fill(&self, host: &str, objects: usize) {
        for number in 0..objects {
            self.keep_at(host, &format!("/{number}"), BODY).await;
        }
        self.settle().await;
    }

    async fn evicted(&self) {
        self.settle().await;
        let shared = self.cache.shared.clone();
        tokio::task::spawn_blocking(move || while eviction::evict(&shared) {}).await.unwrap();
    }

    fn has(&self, name: &str) -> u64 {
        let of = |host: &HostStats| host.host == name;
        self.cache.host_stats().into_iter().find(of).unwrap().disk_bytes
    }

    /// What a name has by the index's own account, and by a count of all that is in it.
    fn counted(&self, host: &str) -> (i64, i64) {
        let all = |column| self.index.scan(column, &[], None, usize::MAX).unwrap();
        let mut bytes = 0;
        for (full_key, record) in all(Column::Entries) {
            if key::host_of(&full_key) == host {
                let has_entry = EntryRecord::decode(&record).unwrap().entry.is_some();
                bytes += record.len() as i64 + if has_entry { full_key.len() as i64 * 2 + 64 } else { 0 };
            }
        }
        for (slice, record) in all(Column::Slices) {
            let Some((id, Some(_))) = schema::parse_slice_key(&slice) else { continue };
            // The housekeeping in the background may be at it.
            let Some(owner) = self.index.get(Column::Slices, &schema::owner_key(id)).unwrap() else { continue };
            if key::host_of(&schema::decode_owner(&owner).unwrap()) == host {
                bytes += i64::from(SliceRecord::decode(&record).unwrap().length) + 64;
            }
        }
        (index::number(&*self.index, &schema::host_bytes_key(host)).unwrap(), bytes)
    }
}

#[tokio::test]
async fn the_host_over_its_budget_is_the_one_that_entries_go_from() {
    let rig = Rig::new();
    rig.reload(&[("small.test", Some(50_000)), ("large.test", None)]);
    rig.fill("large.test", 300).await;
    let large = rig.has("large.test");
    rig.fill("small.test", 300).await;
    rig.evicted().await;
    assert!((1..=50_000).contains(&rig.has("small.test")), "{}", rig.has("small.test"));
    assert_eq!(rig.has("large.test"), large);
    assert_eq!(rig.has("large.test") + rig.has("small.test"), rig.cache.stats().disk_bytes);
}

#[tokio::test]
async fn what_is_used_stays_when_a_host_is_over_its_budget() {
    let rig = Rig::new();
    rig.reload(&[("a.test", Some(100_000))]);
    for number in 0..10 {
        rig.keep_at("a.test", &format!("/hot/{number}"), BODY).await;
    }
    for round in 0..40 {
        for number in 0..20 {
            rig.keep_at("a.test", &format!("/cold/{round}/{number}"), BODY).await;
        }
        for number in 0..10 {
            rig.get(&format!("/hot/{number}")).await;
        }
        rig.clock.advance(Duration::from_secs(10));
        rig.settle().await;
        eviction::flush_uses(&rig.cache.shared);
        rig.evicted().await;
    }
    rig.cache.shared.hot.clear();
    let mut kept = 0;
    for number in 0..10 {
        kept += usize::from(rig.get(&format!("/hot/{number}")).await.is_some());
    }
    assert!(kept >= 9, "{kept} of 10");
}

#[tokio::test]
async fn a_budget_that_shrinks_or_is_given_later_counts_for_what_was_kept_before() {
    let rig = Rig::new();
    rig.reload(&[("a.test", None), ("*.b.test", None), ("*", None)]);
    for host in ["a.test", "x.b.test", "y.b.test", "other.test"] {
        rig.fill(host, 50).await;
    }
    let one = rig.has("a.test");
    let (pattern, others) = (rig.has("*.b.test"), rig.has("*"));
    assert!(pattern > 2 * one - 2000 && pattern < 2 * one + 2000 && others + 1000 > one, "{one} {pattern} {others}");
    let walk = || host_walk::walk_now(&rig.cache.shared);

    rig.reload(&[("a.test", None), ("*.b.test", Some(one)), ("*", None)]);
    walk().await;
    rig.evicted().await;
    assert!(rig.has("*.b.test") <= one, "all names of a pattern share its budget");
    assert_eq!((rig.has("a.test"), rig.has("*")), (one, others));

    rig.reload(&[("a.test", Some(one / 2)), ("*.b.test", Some(one / 2)), ("*", Some(one / 2))]);
    walk().await;
    rig.evicted().await;
    for host in ["a.test", "*.b.test", "*"] {
        assert!((1..=one / 2).contains(&rig.has(host)), "{host}: {}", rig.has(host));
    }

    // A name that has a host of its own now is not the pattern's any more.
    let other = rig.has("*");
    rig.reload(&[("*", Some(0)), ("other.test", Some(1 << 20))]);
    walk().await;
    rig.evicted().await;
    assert_eq!((rig.has("*"), rig.has("other.test")), (0, other));
    for (host, there) in [("a.test", false), ("x.b.test", false), ("other.test", true)] {
        assert_eq!(rig.counted(host).0 > 0, there, "{host}");
    }
}

#[tokio::test]
async fn what_hosts_have_is_right_after_a_crash() {
    let rig = Rig::new();
    let hosts = [("a.test", Some(1 << 30)), ("b.test", None)];
    rig.reload(&hosts);
    rig.fill("a.test", 20).await;
    rig.keep_at("b.test", "/body", 3 << 20).await;
    rig.settle().await;
    let before = rig.cache.host_stats();
    assert!(before[0].disk_bytes > 40_000 && before[1].disk_bytes > 3 << 20, "{before:?}");
    let rig = rig.crashed();
    rig.reload(&hosts);
    assert_eq!(rig.cache.host_stats(), before);
    rig.cache.purge(PurgeScope::Host { host: "b.test".into() }).await.unwrap();
    rig.cache.purge(PurgeScope::Path { host: "a.test".into(), path: "/0".into() }).await.unwrap();
    for _ in 0..500 {
        if rig.has("b.test") == 0 && rig.has("a.test") < before[0].disk_bytes {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        eviction::reclaim(&rig.cache.shared);
    }
    let left = rig.has("a.test");
    assert_eq!((rig.has("b.test"), rig.counted("a.test").1), (0, left.cast_signed()));
    assert!(left < before[0].disk_bytes - BODY as u64, "{left} of {before:?}");
}

#[tokio::test]
async fn a_body_that_is_larger_than_the_budget_is_delivered_and_not_kept_on_disk() {
    let rig = Rig::new();
    rig.reload(&[("a.test", Some(1 << 20))]);
    rig.keep_at("a.test", "/large", 3 << 20).await;
    rig.evicted().await;
    assert!(rig.has("a.test") <= 1 << 20, "{}", rig.has("a.test"));
    rig.keep_at("a.test", "/small", 100_000).await;
    rig.settle().await;
    assert!(rig.has("a.test") > 100_000);
}

#[tokio::test]
async fn what_an_eviction_reads_does_not_grow_with_the_other_hosts() {
    let rig = Rig::new();
    rig.reload(&[("small.test", Some(1 << 30)), ("large.test", None)]);
    rig.fill("large.test", 5000).await;
    rig.fill("small.test", 50).await;
    let (reads, evictions) = (rig.index.reads(), rig.cache.shared.metrics.cache_evictions.get());
    rig.reload(&[("small.test", Some(rig.has("small.test") - 1)), ("large.test", None)]);
    rig.evicted().await;
    let evictions = rig.cache.shared.metrics.cache_evictions.get() - evictions;
    assert!((1..=4).contains(&evictions), "{evictions} evictions");
    // With what the reload and the housekeeping read beside it: of 5000 others there would be more.
    let reads = rig.index.reads() - reads;
    assert!(reads / evictions < 200, "{reads} reads for {evictions}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Whatever is kept, replaced, evicted, purged and lost: the index's own account of each name is what is there.
    #[test]
    fn accounts_are_what_is_there(
        steps in prop::collection::vec((0usize..6, 0usize..3, 0usize..6, prop::sample::select(vec![10, 5_000, 100_000, 2 << 20])), 1..40)
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let names = ["a.test", "x.b.test", "y.b.test"];
            let all = [("a.test", Some(3 << 20)), ("*.b.test", Some(4 << 20))];
            let mut rig = Rig::new();
            rig.reload(&all);
            for (action, host, path, length) in steps {
                let (host, path) = (names[host], format!("/{path}"));
                match action {
                    0..=2 => drop(rig.keep_at(host, &path, length).await),
                    3 => drop(rig.cache.purge(PurgeScope::Path { host: host.into(), path }).await.unwrap()),
                    4 => rig.reload(&all[path.len() % 2..]),
                    _ => {
                        rig.settle().await;
                        rig = rig.crashed();
                        rig.reload(&all);
                    }
                }
                rig.evicted().await;
            }
            rig.reload(&all);
            host_walk::walk_now(&rig.cache.shared).await;
            rig.evicted().await;
            for host in names {
                let mut counted = rig.counted(host);
                for _ in 0..100 {
                    if counted.0 == counted.1 {
                        break;
                    }
                    // The housekeeping in the background may be at it.
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    counted = rig.counted(host);
                }
                assert_eq!(counted.0, counted.1, "{host}");
            }
            let (a, b) = (rig.has("a.test"), rig.has("*.b.test"));
            assert!(a <= 3 << 20 && b <= 4 << 20, "{a} {b}");
        });
    }
}
