//! What stays when more comes than there is room for.

use std::sync::atomic::AtomicUsize;

use super::*;
use crate::cache::index::{Index, schema};
use crate::cache::worth::ONE_USE;

const HOT: usize = 500;
/// Room for some twice as many entries as are hot.
const BUDGET: u64 = 2 * HOT as u64 * 2300;

fn hot(number: usize) -> String {
    format!("/hot/{number}")
}

async fn keep_hot(rig: &Rig, uses: usize) {
    for number in 0..HOT {
        assert!(rig.keep(&hot(number), &bytes(2000)).await);
        for _ in 0..uses {
            assert!(rig.get(&hot(number)).await.is_some());
        }
    }
    rig.settle().await;
    eviction::flush_uses(&rig.cache.shared);
}

/// Somebody reads what nobody asks for again; after each four objects `meanwhile` has its turn.
async fn crawl(rig: &Rig, objects: usize, meanwhile: impl AsyncFn(usize)) {
    let shared = rig.cache.shared.clone();
    for number in 0..objects {
        rig.keep(&format!("/cold/{number}"), &bytes(2000)).await;
        if number % 4 == 0 {
            meanwhile(number / 4).await;
        }
        if number % 100 == 0 {
            rig.clock.advance(Duration::from_secs(1));
            let shared = shared.clone();
            let housekeeping = move || {
                eviction::flush_uses(&shared);
                while eviction::evict(&shared) {}
            };
            tokio::task::spawn_blocking(housekeeping).await.unwrap();
        }
    }
    rig.settle().await;
    while eviction::evict(&shared) {}
    assert!(rig.cache.stats().disk_bytes <= BUDGET);
}

/// Of the hot ones, those that are on disk.
fn kept(rig: &Rig) -> usize {
    let record = |number: &usize| rig.index.get(Column::Entries, &schema::full_key(key(&hot(*number)).as_bytes(), &[]));
    (0..HOT).filter(|number| record(number).unwrap().is_some()).count()
}

#[tokio::test]
async fn a_crawl_over_cold_objects_leaves_the_hot_ones() {
    let rig = Rig::over(Arc::default(), Arc::default(), BUDGET);
    keep_hot(&rig, 1).await;
    // Each hot one is used once while 2000 others come: by then, twice as many have come as there is room for.
    let visit = async |turn: usize| {
        let path = hot(turn % HOT);
        if rig.get(&path).await.is_none() {
            rig.keep(&path, &bytes(2000)).await;
        }
    };
    crawl(&rig, 20_000, visit).await;
    let kept = kept(&rig);
    assert!(kept >= HOT * 90 / 100, "{kept} of {HOT}");
}

#[tokio::test]
async fn what_was_hot_before_a_crash_is_hot_after_it() {
    let rig = Rig::over(Arc::default(), Arc::default(), BUDGET);
    keep_hot(&rig, 4).await;
    let rig = rig.crashed();
    crawl(&rig, 4_000, async |_| {}).await;
    let kept = kept(&rig);
    assert!(kept >= HOT * 95 / 100, "{kept} of {HOT}");
}

#[tokio::test]
async fn what_comes_again_after_it_was_evicted_has_what_it_had() {
    let rig = Rig::new();
    let used = |rig: &Rig| {
        let disk = rig.cache.shared.disk.load_full().unwrap();
        disk.recency(&schema::full_key(key("/a").as_bytes(), &[])).unwrap().map(|record| record.uses)
    };
    rig.keep("/a", b"body").await;
    assert_eq!(used(&rig), Some(ONE_USE));
    rig.get("/a").await;
    rig.get("/a").await;
    eviction::flush_uses(&rig.cache.shared);
    assert_eq!(used(&rig), Some(3 * ONE_USE));
    let budget = |disk_bytes| Settings { disk_bytes, memory_bytes: 1 << 20, ..Settings::default() };
    rig.cache.configure(&budget(0));
    while used(&rig).is_some() {
        // The housekeeping in the background may be at it.
        eviction::evict(&rig.cache.shared);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    rig.cache.configure(&budget(1 << 30));
    rig.keep("/a", b"body").await;
    assert_eq!(used(&rig), Some(4 * ONE_USE));
}

#[tokio::test]
async fn what_is_pinned_is_evicted_when_there_is_nothing_else() {
    let rig = Rig::over(Arc::default(), Arc::default(), BUDGET);
    let judge = |host: &str, path: &str| host == "a.test" && path.starts_with("/hot/");
    rig.cache.pin(Some(Box::new(judge)));
    keep_hot(&rig, 0).await;
    // Nobody asks for what is pinned, and the crawl asks twice for all that it comes by.
    let twice = async |turn: usize| {
        rig.get(&format!("/cold/{}", turn * 4)).await;
    };
    crawl(&rig, 4_000, twice).await;
    assert_eq!(kept(&rig), HOT);
    assert_eq!(rig.cache.shared.metrics.cache_pinned_evictions.get(), 0);
    // The others go first; then there is nothing else.
    let room = BUDGET / 3;
    rig.cache.configure(&Settings { disk_bytes: room, memory_bytes: 64 << 20, ..Settings::default() });
    while eviction::evict(&rig.cache.shared) {}
    assert!(rig.cache.stats().disk_bytes <= room);
    let left = kept(&rig);
    assert!((HOT / 2..HOT).contains(&left), "{left} of {HOT}");
    let pinned = rig.cache.shared.metrics.cache_pinned_evictions.get();
    assert_eq!(pinned as usize, HOT - left);
}

#[tokio::test]
async fn an_error_and_what_has_a_query_are_not_pinned() {
    let rig = Rig::new();
    rig.cache.pin(Some(Box::new(|_: &str, _: &str| true)));
    let pins = &rig.cache.shared.pins;
    let record = |key: &CacheKey, is_error: bool| schema::RecencyRecord {
        last_use: 1,
        uses: ONE_USE,
        size: 1,
        id: 1,
        is_error,
        full_key: schema::full_key(key.as_bytes(), b"variant"),
    };
    let host = Hostname::parse("a.test").unwrap();
    let with = |parts: &[(&str, &str)]| CacheKey::build(&KeyParts { host: &host, path: "/a", parts }).unwrap();
    assert!(pins.is_pinned(&record(&with(&[(":o", "x")]), false)));
    assert!(!pins.is_pinned(&record(&with(&[(":o", "x")]), true)));
    assert!(!pins.is_pinned(&record(&with(&[(":o", "x"), (":q", "a=1")]), false)));
    rig.cache.pin(None);
    assert!(!pins.is_pinned(&record(&with(&[]), false)));
}

/// Small ones in the memory tier alone: what the tier is told when an object comes, and when somebody asks for it.
#[tokio::test]
async fn a_crawl_over_a_million_objects_leaves_the_hot_ones_in_memory() {
    const HOT: usize = 2000;
    let rig = Rig::new();
    let tier = &rig.cache.shared.hot;
    let budget = 3 * HOT as u64 * 2000;
    tier.set_budget(budget);
    let come = |path: &str| {
        let head = head(&rig.cache, path, Some(1000), false);
        let (id, body) =
            (rig.cache.shared.ids.fetch_add(1, Ordering::Relaxed), EntryBody::Inline(vec![0; 1000].into()));
        let entry = Entry { id, key: key(path), variant: Default::default(), head, body, ready: None, held: None };
        let entry = Arc::new(entry);
        // As its fill begins, and when it is whole.
        tier.insert(&entry, &[], false);
        rig.cache.shared.show(&entry);
    };
    let ask = |path: &str| {
        let asked = Asked { key: &key(path), headers: &HeaderMap::new(), request_path: path };
        rig.cache.lookup_memory(&asked).is_some()
    };
    for number in 0..HOT {
        come(&hot(number));
        if number % 50 == 0 {
            // Room grows with what needs it.
            tier.share();
        }
    }
    let (mut hits, mut asked) = (0, 0);
    for number in 0..1_000_000 {
        come(&format!("/cold/{number}"));
        if number % 4 == 0 {
            let path = hot(number / 4 % HOT);
            let hit = ask(&path);
            if !hit {
                come(&path);
            }
            // By then the tier has been filled some times over.
            if number > 100_000 {
                (hits, asked) = (hits + usize::from(hit), asked + 1);
            }
        }
        if number % 10_000 == 0 {
            tier.share();
            assert!(tier.bytes() <= budget, "{} of {budget}", tier.bytes());
        }
    }
    // Between two times that somebody asks for one of them more comes than there is room for: LRU would keep none.
    assert!(hits * 100 >= asked * 70, "{hits} of {asked}");
}

/// Through the whole cache, of which memory holds a part and the disk another: how many of a hundred that ask for what is hot find it
/// in memory, and how many of the hot are on disk at the end.
async fn through_both_tiers(objects: usize) -> (usize, usize) {
    let rig = Rig::over(Arc::default(), Arc::default(), BUDGET);
    let memory_bytes = HOT as u64 * 2 * 3000;
    rig.cache.configure(&Settings { disk_bytes: BUDGET, memory_bytes, ..Settings::default() });
    for number in 0..HOT {
        rig.keep(&hot(number), &bytes(2000)).await;
        if number % 20 == 0 {
            rig.cache.shared.hot.share();
        }
    }
    keep_hot(&rig, 1).await;
    let (hits, asked) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let visit = async |turn: usize| {
        let path = hot(turn % HOT);
        let found = rig.get(&path).await;
        if turn > objects / 16 {
            hits.fetch_add(usize::from(matches!(found, Some((_, Tier::Memory)))), Ordering::Relaxed);
            asked.fetch_add(1, Ordering::Relaxed);
        }
        if found.is_none() {
            rig.keep(&path, &bytes(2000)).await;
        }
        if turn.is_multiple_of(1000) {
            rig.cache.shared.hot.share();
        }
    };
    crawl(&rig, objects, visit).await;
    assert!(rig.cache.shared.hot.bytes() <= memory_bytes);
    (hits.into_inner() * 100 / asked.into_inner(), kept(&rig))
}

#[tokio::test]
async fn a_crawl_through_the_whole_cache_leaves_the_hot_ones_in_both_tiers() {
    // What memory serves is used less often than the disk is told, and what went from there comes back only when memory lets go of it
    // too: nobody waits for it meanwhile.
    let (in_memory, on_disk) = through_both_tiers(40_000).await;
    assert!(in_memory >= 55 && on_disk >= HOT * 70 / 100, "{in_memory} % in memory, {on_disk} of {HOT} on disk");
}

#[tokio::test]
#[ignore = "takes minutes"]
async fn a_crawl_over_a_million_objects_through_the_whole_cache() {
    let (in_memory, on_disk) = through_both_tiers(1_000_000).await;
    println!("{in_memory} % in memory, {on_disk} of {HOT} on disk");
    assert!(in_memory >= 55 && on_disk >= HOT * 70 / 100, "{in_memory} % in memory, {on_disk} of {HOT} on disk");
}

#[tokio::test]
async fn a_crawl_over_large_bodies_leaves_the_hot_ones_in_memory() {
    const LENGTH: usize = 300_000;
    let rig = Rig::new();
    let memory_bytes = 32 << 20;
    rig.cache.configure(&Settings { disk_bytes: 1 << 30, memory_bytes, ..Settings::default() });
    let hot = |number: usize| format!("/hot/{}", number % 40);
    for number in 0..40 {
        assert!(rig.keep(&hot(number), &bytes(LENGTH)).await);
    }
    for number in 0..400 {
        assert!(rig.keep(&format!("/cold/{number}"), &bytes(LENGTH)).await);
    }
    rig.settle().await;
    rig.cache.shared.hot.share();
    let is_in_memory = |path: &str| {
        let asked = Asked { key: &key(path), headers: &HeaderMap::new(), request_path: path };
        let found = rig.cache.lookup_memory(&asked);
        found.is_some_and(|found| rig.cache.shared.hot.slices.contains(found.entry.id, 0))
    };
    let (mut hits, mut asked) = (0, 0);
    for number in 0..1600 {
        // Each cold one is read from the disk, once in 400.
        assert!(rig.get(&format!("/cold/{}", number % 400)).await.is_some());
        for hot in [hot(2 * number), hot(2 * number + 1)] {
            if number > 200 {
                (hits, asked) = (hits + usize::from(is_in_memory(&hot)), asked + 1);
            }
            assert!(rig.get(&hot).await.is_some());
        }
    }
    assert!(hits * 100 >= asked * 90, "{hits} of {asked}");
}

#[tokio::test]
async fn the_first_use_of_what_was_read_from_disk_is_written_down_without_another_look() {
    let rig = Rig::new();
    assert!(rig.keep("/a", &bytes(2000)).await);
    rig.settle().await;
    rig.cache.shared.hot.clear();
    let full_key = schema::full_key(key("/a").as_bytes(), &[]);
    let disk = rig.cache.shared.disk.load_full().unwrap();
    let flush = || {
        let reads = rig.index.reads();
        eviction::flush_uses(&rig.cache.shared);
        rig.index.reads() - reads
    };
    flush();
    let before = disk.recency(&full_key).unwrap().unwrap();
    for (looks, times) in [(0, 1), (1, 2)] {
        assert!(rig.get("/a").await.is_some());
        assert_eq!(flush(), looks);
        let now = disk.recency(&full_key).unwrap().unwrap();
        assert_eq!(now.uses, before.uses + times * super::super::worth::ONE_USE);
    }
}

#[tokio::test]
async fn what_the_disk_evicted_and_memory_serves_is_written_down_again() {
    let rig = Rig::new();
    for path in ["/used", "/idle"] {
        assert!(rig.keep(path, &bytes(2000)).await);
        assert!(rig.get(path).await.is_some());
    }
    rig.settle().await;
    eviction::flush_uses(&rig.cache.shared);
    let on_disk = |path: &str| rig.index.get(Column::Entries, &schema::full_key(key(path).as_bytes(), &[])).unwrap();
    for path in ["/used", "/idle"] {
        let id = schema::EntryRecord::decode(&on_disk(path).unwrap()).and_then(|record| record.entry).unwrap().id;
        let disk = rig.cache.shared.disk.load_full().unwrap();
        disk.remove(&schema::full_key(key(path).as_bytes(), &[]), id).unwrap();
        assert!(on_disk(path).is_none());
    }
    assert!(rig.get("/used").await.is_some());
    eviction::flush_uses(&rig.cache.shared);
    assert!(on_disk("/used").is_some() && on_disk("/idle").is_none());
    // What was purged meanwhile stays away.
    let scope = purges::PurgeScope::Path { host: "a.test".into(), path: "/idle".into() };
    assert!(rig.get("/idle").await.is_some());
    rig.cache.purge(scope).await.unwrap();
    eviction::flush_uses(&rig.cache.shared);
    assert!(on_disk("/idle").is_none());
}
