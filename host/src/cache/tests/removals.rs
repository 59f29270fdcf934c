//! What is removed while somebody reads it from the index or writes it there.

use super::super::index::memory::Step;
use super::super::index::{Column, Index};
use super::*;

/// As removing begins: that the record goes comes later.
fn begin_to_remove(rig: &Rig, entry: &Arc<Entry>) -> impl FnOnce() + Send + 'static {
    let (shared, id) = (rig.cache.shared.clone(), entry.id);
    move || {
        shared.removals.note(id);
        shared.hot.clear();
    }
}

#[tokio::test]
async fn what_is_removed_while_it_is_looked_up_is_not_found() {
    for (length, column) in [(100, Column::Entries), (2 * SLICE_BYTES as usize, Column::Slices)] {
        let rig = Rig::new();
        assert!(rig.keep("/a", &bytes(length)).await);
        rig.settle().await;
        let entry = rig.find("/a").await.unwrap().entry;
        rig.cache.shared.hot.clear();
        let removing = begin_to_remove(&rig, &entry);
        // Nobody else knows how its body lies on the disk.
        drop(entry);
        rig.index.meanwhile(Step::Read(column), removing);
        assert!(rig.get("/a").await.is_none(), "{column:?}");
        assert!(rig.get("/a").await.is_none(), "{column:?}: it stands in memory");
        assert!(!rig.index.waits(), "{column:?} was not read");
    }
}

#[tokio::test]
async fn what_is_removed_while_it_is_committed_does_not_come_back() {
    let rig = Rig::new();
    let head = head(&rig.cache, "/a", Some(4), false);
    let (entry, writer) = rig.cache.keep(&key("/a"), &HeaderMap::new(), head);
    let mut writer = writer.unwrap();
    assert!(writer.write(Bytes::from_static(b"body")).await);
    rig.index.meanwhile(Step::Write, begin_to_remove(&rig, &entry));
    writer.finish().await;
    rig.settle().await;
    assert!(!rig.index.waits(), "nothing was written");
    let full_key = schema::full_key(entry.key.as_bytes(), &entry.variant.0);
    assert_eq!(rig.index.get(Column::Entries, &full_key), Ok(None));
    let rig = rig.crashed();
    assert!(rig.get("/a").await.is_none());
}

/// As eviction does and whoever collects what was left behind.
#[test]
fn a_body_that_two_remove_at_once_is_counted_once() {
    let disk = Disk::new(Arc::<MemoryIndex>::default(), Arc::<MemoryStore>::default(), None, None).unwrap();
    for id in 1..500 {
        for slice in 0..4 {
            disk.store_slice(id, b"owner", slice, &bytes(1000)).unwrap();
        }
        assert!(disk.bytes() > 4000);
        let both = std::sync::Barrier::new(2);
        let remove = || {
            both.wait();
            disk.reclaim(id).unwrap();
        };
        std::thread::scope(|scope| {
            scope.spawn(remove);
            scope.spawn(remove);
        });
        assert_eq!(disk.bytes(), 0);
        assert!(disk.slices(id).unwrap() == Default::default());
    }
}
