//! The whole room, over an index and a store in memory that can fail, lose and restart; the folder itself in `recovery`.

use std::collections::HashMap;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode};
use proptest::prelude::*;

use super::entry::{BLOCK_BYTES, EntryBody, SLICE_BYTES};
use super::fill::{Followed, Piece};
use super::freshness::{Retention, Timing};
use super::hot::Look;
use super::index::Column;
use super::index::memory::MemoryIndex;
use super::index::schema;
use super::key::KeyParts;
use super::store::Space;
use super::store::memory::MemoryStore;
use super::vary::VaryFields;
use super::*;
use crate::clock::{ManualClock, Timestamp};
use crate::semantics::authority::Hostname;

mod at_hand;
mod budgets;
mod crawls;
mod failures;
mod faults;
mod folders;
mod lending;
mod map;
mod mending;
mod purging;
mod reference;
mod removals;
mod rig;
mod scrubbing;
mod survey;
mod variants;

use rig::{Rig, bytes, head, key, read};

#[tokio::test]
async fn what_is_freshened_while_its_body_comes_keeps_the_length_that_it_turned_out_to_have() {
    let rig = Rig::new();
    // In memory a small one moves into its entry when it is whole.
    for length in [1000, 100_000] {
        let path = format!("/{length}");
        let (filling, writer) = rig.cache.keep(&key(&path), &HeaderMap::new(), head(&rig.cache, &path, None, false));
        let mut writer = writer.unwrap();
        assert!(writer.write(Bytes::from(bytes(length))).await);
        assert!(writer.finish().await);
        rig.settle().await;
        // A 304 to somebody who found it while it came.
        let fresh = rig.cache.freshen(&filling, filling.head.clone());
        assert_eq!(fresh.head.size, Some(length as u64));
        rig.settle().await;
        assert_eq!(rig.get(&path).await, Some((bytes(length), Tier::Memory)), "{length}");
        rig.cache.shared.hot.clear();
        assert_eq!(rig.get(&path).await, Some((bytes(length), Tier::Disk)), "{length}");
    }
}

#[tokio::test]
async fn bodies_of_all_sizes_are_found_in_memory_on_disk_and_after_a_crash() {
    let mut rig = Rig::new();
    let slice = SLICE_BYTES as usize;
    let sizes = [0, 1, 32 << 10, (32 << 10) + 1, slice - 1, slice, slice + 1, 3 * slice + 5];
    for size in sizes {
        let path = format!("/{size}");
        assert!(rig.keep(&path, &bytes(size)).await, "{size}");
        assert_eq!(rig.get(&path).await, Some((bytes(size), Tier::Memory)), "{size}");
    }
    rig.settle().await;
    rig.cache.shared.hot.clear();
    for size in sizes {
        assert_eq!(rig.get(&format!("/{size}")).await, Some((bytes(size), Tier::Disk)), "{size}");
    }
    rig = rig.crashed();
    for size in sizes {
        assert_eq!(rig.get(&format!("/{size}")).await, Some((bytes(size), Tier::Disk)), "{size}");
    }
}

#[tokio::test]
async fn readers_follow_a_fill_from_its_first_byte_and_one_leader_asks() {
    let rig = Rig::new();
    let (key, headers) = (key("/a"), HeaderMap::new());
    let asked = Asked { key: &key, headers: &headers, request_path: "/a" };
    let Join::Lead(lead) = rig.cache.join(&asked) else { panic!("the first leads") };
    let follows: Vec<_> = (0..20).map(|_| rig.cache.join(&asked)).collect();
    let body = bytes(3 * SLICE_BYTES as usize + 9);
    let readers: Vec<_> = follows
        .into_iter()
        .map(|join| {
            let Join::Follow(follow) = join else { panic!("the others follow") };
            tokio::spawn(async move {
                let Followed::Entry(entry) = follow.wait().await else { panic!("it is for all") };
                read(&entry).await
            })
        })
        .collect();
    let (_, writer) = lead.keep(&asked, head(&rig.cache, "/a", None, false));
    let mut writer = writer.unwrap();
    assert_eq!(rig.cache.lookup_memory(&asked).unwrap().tier, Tier::Filling);
    for piece in body.chunks(10_000) {
        writer.write(Bytes::copy_from_slice(piece)).await;
        tokio::task::yield_now().await;
    }
    assert!(writer.finish().await);
    for reader in readers {
        assert_eq!(reader.await.unwrap(), Some(body.clone()));
    }
    assert_eq!(rig.get("/a").await, Some((body, Tier::Memory)));
}

#[tokio::test]
async fn followers_of_another_variant_are_released_and_those_of_a_vanished_leader_ask_again() {
    let rig = Rig::new();
    let key = key("/a");
    let with = |language: &'static str| {
        let mut headers = HeaderMap::new();
        headers.insert("accept-language", language.parse().unwrap());
        headers
    };
    let (german, french) = (with("de"), with("fr"));
    let asked = |headers| Asked { key: &key, headers, request_path: "/a" };
    let Join::Lead(lead) = rig.cache.join(&asked(&german)) else { panic!() };
    let Join::Follow(same) = rig.cache.join(&asked(&german)) else { panic!() };
    let Join::Follow(other) = rig.cache.join(&asked(&french)) else { panic!() };
    let mut varying = head(&rig.cache, "/a", Some(2), false);
    varying.vary = VaryFields(vec![HeaderName::from_static("accept-language")]);
    let (_, writer) = lead.keep(&asked(&german), varying);
    let mut writer = writer.unwrap();
    writer.write(Bytes::from_static(b"de")).await;
    assert!(writer.finish().await);
    assert!(matches!(same.wait().await, Followed::Entry(_)));
    assert!(matches!(other.wait().await, Followed::Released));
    assert!(rig.cache.lookup_memory(&asked(&french)).is_none());
    assert!(rig.cache.lookup_disk(&asked(&french)).await.is_none());
    rig.settle().await;
    rig.cache.shared.hot.clear();
    assert_eq!(rig.cache.lookup_disk(&asked(&german)).await.unwrap().tier, Tier::Disk);
    assert!(rig.cache.lookup_memory(&asked(&german)).is_some());

    let Join::Lead(lead) = rig.cache.join(&asked(&french)) else { panic!() };
    let Join::Follow(follow) = rig.cache.join(&asked(&french)) else { panic!() };
    drop(lead);
    assert!(matches!(follow.wait().await, Followed::Again));
    let Join::Lead(lead) = rig.cache.join(&asked(&french)) else { panic!() };
    lead.release(Some(Duration::from_secs(10)));
    assert!(matches!(rig.cache.join(&asked(&french)), Join::Uncoalesced));
    rig.clock.advance(Duration::from_secs(11));
    assert!(matches!(rig.cache.join(&asked(&french)), Join::Lead(_)));
}

#[tokio::test]
async fn a_purge_during_a_fill_keeps_it_out_and_survives_a_crash() {
    let mut rig = Rig::new();
    assert!(rig.keep("/old", b"old").await);
    let (_, writer) = rig.cache.keep(&key("/a"), &HeaderMap::new(), head(&rig.cache, "/a", Some(100_000), false));
    let mut writer = writer.unwrap();
    writer.write(bytes(50_000).into()).await;
    rig.cache.purge(PurgeScope::Tag { host: "a.test".into(), tag: "all".into() }).await.unwrap();
    assert_eq!(rig.get("/a").await, None);
    writer.write(bytes(50_000).into()).await;
    assert!(!writer.finish().await);
    for _ in 0..2 {
        assert_eq!(rig.get("/a").await, None);
        assert_eq!(rig.get("/old").await, None);
        rig.settle().await;
        rig = rig.crashed();
    }
    assert!(rig.keep("/a", b"new").await);
    assert_eq!(rig.get("/a").await.unwrap().0, b"new");
}

#[tokio::test]
async fn of_two_responses_in_one_moment_the_one_that_was_asked_for_later_stays() {
    for length in [1000, 100_000] {
        let mut rig = Rig::new();
        let fill = |rig: &Rig| {
            let head = head(&rig.cache, "/a", Some(length as u64), false);
            rig.cache.keep(&key("/a"), &HeaderMap::new(), head).1.unwrap()
        };
        let mut first = fill(&rig);
        rig.cache.purge(PurgeScope::Path { host: "a.test".into(), path: "/other".into() }).await.unwrap();
        let mut second = fill(&rig);
        second.write(vec![2; length].into()).await;
        assert!(second.finish().await);
        first.write(vec![1; length].into()).await;
        first.finish().await;
        for _ in 0..2 {
            assert_eq!(rig.get("/a").await.unwrap().0[0], 2);
            rig.settle().await;
            rig = rig.crashed();
        }
    }
}

/// A cache with two bodies of two slices: `/s`, which can be fetched in parts, and `/w`, which cannot; the entry of the first, and
/// the id of the other.
async fn with_two_bodies() -> (Rig, Vec<u8>, Arc<Entry>, u64) {
    let rig = Rig::new();
    let body = bytes(2 * SLICE_BYTES as usize);
    let (entry, writer) =
        rig.cache.keep(&key("/s"), &HeaderMap::new(), head(&rig.cache, "/s", Some(body.len() as u64), true));
    let mut writer = writer.unwrap();
    writer.write(body.clone().into()).await;
    assert!(writer.finish().await);
    assert!(rig.keep("/w", &body).await);
    let whole_id = rig.store.ids().into_iter().find(|id| *id != entry.id).unwrap();
    (rig, body, entry, whole_id)
}

#[tokio::test]
async fn a_damaged_slice_is_missing_where_it_can_be_fetched_again_and_a_miss_where_not() {
    let (rig, body, entry, whole_id) = with_two_bodies().await;
    rig.store.damage(entry.id, SLICE_BYTES as usize + 3);
    rig.store.damage(whole_id, SLICE_BYTES as usize + 3);
    rig.cache.shared.hot.clear();
    assert_eq!(rig.get("/w").await, None);
    assert_eq!(rig.get("/w").await, None);
    let EntryBody::Sliced(sliced) = &entry.body else { panic!() };
    assert!(matches!(sliced.read(5, None).await, Piece::Bytes(_)));
    assert!(matches!(sliced.read(SLICE_BYTES, None).await, Piece::Missing(gap) if gap == (1..2)));
    let mut writer = sliced.claim(1..2).unwrap();
    assert!(sliced.claim(1..2).is_none(), "someone was faster");
    assert!(writer.write(Bytes::copy_from_slice(&body[SLICE_BYTES as usize..])).await);
    assert!(writer.finish().await);
    rig.cache.shared.hot.clear();
    assert_eq!(rig.get("/s").await.unwrap().0, body);
}

#[tokio::test]
async fn a_full_disk_loses_no_bytes_of_those_who_read_along() {
    let rig = Rig::new();
    rig.store.fill_up(true);
    let body = bytes(9 * SLICE_BYTES as usize);
    let (entry, writer) = rig.cache.keep(&key("/a"), &HeaderMap::new(), head(&rig.cache, "/a", None, false));
    let mut writer = writer.unwrap();
    let EntryBody::Sliced(sliced) = &entry.body else { panic!() };
    let mut reader = sliced.reader(0);
    let slow = tokio::spawn(async move {
        let mut all = Vec::new();
        while let Piece::Bytes(bytes) = reader.next(None).await {
            all.extend_from_slice(&bytes);
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        all
    });
    for piece in body.chunks(500_000) {
        assert!(writer.write(Bytes::copy_from_slice(piece)).await);
        rig.cache.shared.hot.clear();
    }
    assert!(!writer.finish().await);
    assert_eq!(slow.await.unwrap(), body);
    assert!(rig.cache.stats().disk_error.is_some());
    rig.store.fill_up(false);
    rig.clock.advance(Duration::from_secs(60));
    assert!(rig.keep("/b", &bytes(100_000)).await);
    assert_eq!(rig.cache.stats().disk_error, None);
}

#[tokio::test]
async fn a_file_system_with_less_room_than_the_budget_is_not_filled_up() {
    let rig = Rig::new();
    for number in 0..20 {
        assert!(rig.keep(&format!("/{number}"), &bytes(100_000)).await);
    }
    let shared = rig.cache.shared.clone();
    let used = shared.disk_bytes();
    // Of a small file system a quarter stays free: half of what is used has to go.
    rig.store.set_space(Space { available: 0, total: used / 2 * 4 });
    shared.measure_space();
    assert!(shared.disk_limit() <= used / 2 + 4);
    while super::eviction::evict(&shared) {}
    assert!(shared.disk_bytes() <= used / 2 + 4, "{} of {used}", shared.disk_bytes());
    rig.store.set_space(Space { available: 1 << 40, total: 1 << 41 });
    shared.measure_space();
    assert_eq!(shared.disk_limit(), shared.disk_budget.load(Ordering::Relaxed));
}

#[tokio::test]
async fn what_is_to_stay_free_can_be_told() {
    let rig = Rig::new();
    for number in 0..20 {
        assert!(rig.keep(&format!("/{number}"), &bytes(100_000)).await);
    }
    let shared = rig.cache.shared.clone();
    let used = shared.disk_bytes();
    rig.store.set_space(Space { available: 1 << 30, total: 1 << 40 });
    let free_bytes = Some((1 << 30) + used / 2);
    rig.cache.configure(&Settings { disk_bytes: 1 << 30, memory_bytes: 1 << 20, free_bytes, ..Settings::default() });
    shared.measure_space();
    assert_eq!(shared.disk_limit(), used - used / 2);
    rig.cache.configure(&Settings { disk_bytes: 1 << 30, memory_bytes: 1 << 20, ..Settings::default() });
    shared.measure_space();
    assert_eq!(shared.disk_limit(), used, "a GiB, where nothing is told");
}

#[tokio::test]
async fn a_body_of_the_wrong_length_is_never_kept() {
    let rig = Rig::new();
    for (announced, sent) in [(100_000, 99_999), (100_000, 100_001), (10, 9), (10, 11)] {
        let (entry, writer) =
            rig.cache.keep(&key("/a"), &HeaderMap::new(), head(&rig.cache, "/a", Some(announced), false));
        let mut writer = writer.unwrap();
        let taken = writer.write(bytes(sent).into()).await;
        assert!(!(taken && writer.finish().await));
        assert_eq!(read(&entry).await, None);
        assert_eq!(rig.get("/a").await, None);
    }
    assert_eq!(rig.cache.stats().fills, 0);
}

#[tokio::test]
async fn eviction_brings_the_disk_under_its_budget_and_the_total_survives() {
    let rig = Rig::over(Arc::default(), Arc::default(), 4 << 20);
    for n in 0..80 {
        rig.keep(&format!("/{n}"), &bytes(100_000)).await;
    }
    rig.settle().await;
    while eviction::evict(&rig.cache.shared) {}
    eviction::reclaim(&rig.cache.shared);
    assert_eq!(rig.cache.shared.leaving_bytes.load(Ordering::Relaxed), 0);
    let stats = rig.cache.stats();
    assert!(stats.disk_bytes <= 4 << 20 && stats.disk_bytes > 2 << 20, "{stats:?}");
    rig.settle().await;
    let before = rig.cache.stats().disk_bytes;
    let rig = rig.crashed();
    assert_eq!(rig.cache.stats().disk_bytes, before);
}
