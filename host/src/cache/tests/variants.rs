//! Many variants of one key.

use http::HeaderValue;
use http::header::ACCEPT;

use super::*;
use crate::cache::index::Index as _;
use crate::cache::vary::MAX_VARIANTS;

fn accepting(what: &str) -> HeaderMap {
    HeaderMap::from_iter([(ACCEPT, HeaderValue::from_str(what).unwrap())])
}

async fn keep(rig: &Rig, what: &str) {
    let mut varying = head(&rig.cache, "/a", Some(2), false);
    varying.vary = VaryFields(vec![ACCEPT]);
    let (_, writer) = rig.cache.keep(&key("/a"), &accepting(what), varying);
    let mut writer = writer.unwrap();
    assert!(writer.write(Bytes::from_static(b"ab")).await);
    assert!(writer.finish().await);
}

fn in_memory(rig: &Rig, what: &str) -> bool {
    let (key, headers) = (key("/a"), accepting(what));
    rig.cache.lookup_memory(&Asked { key: &key, headers: &headers, request_path: "/a" }).is_some()
}

async fn on_disk(rig: &Rig, what: &str) -> bool {
    let (key, headers) = (key("/a"), accepting(what));
    rig.cache.lookup_disk(&Asked { key: &key, headers: &headers, request_path: "/a" }).await.is_some()
}

#[tokio::test]
async fn those_that_are_used_least_make_room() {
    let rig = Rig::new();
    keep(&rig, "used").await;
    rig.settle().await;
    for _ in 0..5 {
        assert!(in_memory(&rig, "used"));
    }
    eviction::flush_uses(&rig.cache.shared);
    let many = MAX_VARIANTS * 4;
    for number in 0..many {
        keep(&rig, &format!("once/{number}")).await;
        rig.clock.advance(Duration::from_secs(1));
        // Now and then is enough, whenever uses are written down.
        if number % (MAX_VARIANTS - 10) == 0 {
            assert!(in_memory(&rig, "used"), "after {number}");
        }
        if number % 7 == 0 {
            eviction::flush_uses(&rig.cache.shared);
        }
    }
    rig.settle().await;
    let kept = (0..many).filter(|number| in_memory(&rig, &format!("once/{number}"))).count();
    assert!((MAX_VARIANTS / 2..=MAX_VARIANTS).contains(&kept), "{kept} in memory");
    assert!(in_memory(&rig, &format!("once/{}", many - 1)));
    rig.cache.shared.hot.clear();
    let mut kept = 0;
    for number in 0..many {
        kept += usize::from(on_disk(&rig, &format!("once/{number}")).await);
    }
    assert!((MAX_VARIANTS / 2..=MAX_VARIANTS).contains(&kept), "{kept} on disk");
    assert!(on_disk(&rig, "used").await);
    // The base and what is left of the variants; nothing of those that went.
    let records = rig.index.scan(Column::Entries, &[], None, usize::MAX).unwrap().len();
    assert!(records <= MAX_VARIANTS + 1, "{records} records");
}

#[tokio::test]
async fn a_variant_is_known_as_long_as_one_of_its_kind_is_there() {
    let rig = Rig::new();
    let (key, headers) = (key("/a"), accepting("c"));
    let asked = Asked { key: &key, headers: &headers, request_path: "/a" };
    assert!(!rig.cache.knows(&asked));
    keep(&rig, "a").await;
    keep(&rig, "b").await;
    assert!(rig.cache.lookup_memory(&asked).is_none() && rig.cache.knows(&asked));
    rig.cache.purge(PurgeScope::Path { host: "a.test".into(), path: "/a".into() }).await.unwrap();
    assert!(!rig.cache.knows(&asked), "what is purged is not there");
}

#[tokio::test]
async fn the_base_goes_with_the_last_variant() {
    let rig = Rig::new();
    for what in ["a", "b", "c"] {
        keep(&rig, what).await;
    }
    rig.settle().await;
    let disk = rig.cache.shared.disk.load_full().unwrap();
    let entries = || rig.index.scan(Column::Entries, &[], None, usize::MAX).unwrap();
    let uses = rig.index.scan(Column::Recency, &[], None, usize::MAX).unwrap();
    let mut left = 3;
    assert_eq!((uses.len(), entries().len()), (left, left + 1));
    for (_, record) in &uses {
        let variant = schema::RecencyRecord::decode(record).unwrap();
        assert!(disk.remove(&variant.full_key, variant.id).unwrap().is_some());
        left -= 1;
        assert_eq!(entries().len(), if left > 0 { left + 1 } else { 0 }, "with {left} left");
    }
    assert_eq!(disk.bytes(), 0);
}

#[tokio::test]
async fn a_base_that_was_not_told_of_its_variants_end_goes_too() {
    let rig = Rig::new();
    keep(&rig, "a").await;
    rig.settle().await;
    let disk = rig.cache.shared.disk.load_full().unwrap();
    let base = schema::full_key(key("/a").as_bytes(), &[]);
    assert!(!disk.drop_idle_base(&base).unwrap(), "it has a variant");
    let used = rig.index.scan(Column::Recency, &[], None, usize::MAX).unwrap();
    let gone = used.into_iter().flat_map(|(place, record)| {
        let variant = schema::RecencyRecord::decode(&record).unwrap().full_key;
        [index::Change::Delete(Column::Recency, place), index::Change::Delete(Column::Entries, variant)]
    });
    rig.index.write(gone.collect(), false).unwrap();
    assert!(disk.drop_idle_base(&base).unwrap());
    assert_eq!(rig.index.scan(Column::Entries, &[], None, usize::MAX).unwrap().len(), 0);
}

#[tokio::test]
async fn a_use_that_was_left_behind_goes_with_its_base_or_is_the_successors() {
    let rig = Rig::new();
    keep(&rig, "a").await;
    rig.settle().await;
    let disk = rig.cache.shared.disk.load_full().unwrap();
    let used = || {
        let all = rig.index.scan(Column::Recency, &[], None, usize::MAX).unwrap();
        all.into_iter().next().map(|(place, record)| (place, schema::RecencyRecord::decode(&record).unwrap()))
    };
    let (place, noted) = used().unwrap();
    // As if it had been read before the entry was replaced, and written behind that.
    let older = schema::RecencyRecord { id: noted.id + 1, ..noted.clone() };
    rig.index.write(vec![index::Change::Put(Column::Recency, place, older.encode())], false).unwrap();
    disk.settle_use(&noted.full_key, older.id).unwrap();
    assert_eq!(used().unwrap().1.id, noted.id);
    let entry = index::Change::Delete(Column::Entries, noted.full_key.clone());
    rig.index.write(vec![entry], false).unwrap();
    disk.settle_use(&noted.full_key, noted.id).unwrap();
    assert!(used().is_none());
    assert_eq!(rig.index.scan(Column::Entries, &[], None, usize::MAX).unwrap().len(), 0, "the base");
}
