//! What stays when more comes than there is room for.

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
    assert!(kept >= HOT * 95 / 100, "{kept} of {HOT}");
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
