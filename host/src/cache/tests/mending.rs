//! A folder that is out of use, and taken into use again.

use std::path::Path;

use super::super::mending::{Ailment, ailment, make_room_of, mend};
use super::super::store::disk::DiskStore;
use super::super::store::{Store, layout};
use super::super::upkeep::blocking;
use super::*;

fn cache_in(dir: &Path) -> Rig {
    let settings = Settings { dir: dir.to_owned(), disk_bytes: 1 << 30, memory_bytes: 1 << 20, ..Settings::default() };
    Rig { cache: Cache::open(settings, Clock::System, Metrics::new().0).unwrap(), ..Rig::new() }
}

async fn look(rig: &Rig) -> Option<Ailment> {
    rig.settle().await;
    blocking(&Arc::downgrade(&rig.cache.shared), ailment).await.unwrap()
}

#[tokio::test]
async fn a_folder_that_was_removed_is_made_anew_and_numbers_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("cache");
    // A run before, so that ids do not begin where those of a new folder do.
    cache_in(&folder).cache.close().await;
    let rig = cache_in(&folder);
    assert!(rig.keep("/a", &vec![1; 100_000]).await);
    rig.cache.purge(PurgeScope::Host { host: "b.test".into() }).await.unwrap();
    assert_eq!(look(&rig).await, None);
    std::fs::remove_dir_all(&folder).unwrap();
    // As if somebody had put a copy in its place.
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join(layout::MARK), layout::mark_text()).unwrap();
    // Written before it is seen that the folder is gone.
    assert!(rig.keep("/b", &vec![2; 100_000]).await);
    assert_eq!(look(&rig).await, Some(Ailment::Lost));
    mend(&rig.cache.shared, Ailment::Lost).await;
    assert_eq!(look(&rig).await, None);
    assert_eq!(rig.cache.stats().disk_error, None);
    assert!(rig.keep("/c", &vec![3; 100_000]).await);
    rig.settle().await;
    let (ids, sequence) = (rig.cache.shared.ids.load(Ordering::Relaxed), rig.cache.sequence());
    rig.cache.close().await;
    drop(rig);
    let rig = cache_in(&folder);
    assert!(rig.cache.shared.ids.load(Ordering::Relaxed) >= ids && rig.cache.sequence() >= sequence);
    assert_eq!(rig.get("/c").await.map(|(body, _)| body), Some(vec![3; 100_000]));
    assert!(rig.get("/a").await.is_none() && rig.get("/b").await.is_none());
}

#[tokio::test]
async fn a_folder_that_could_not_be_used_is_used_as_soon_as_it_can() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    let folder = dir.path().join("file/cache");
    let rig = cache_in(&folder);
    assert_eq!(look(&rig).await, Some(Ailment::Out));
    mend(&rig.cache.shared, Ailment::Out).await;
    assert!(rig.cache.stats().disk_error.is_some());
    // In force in memory alone, where nothing on the disk can come back.
    rig.cache.purge(PurgeScope::All).await.unwrap();
    std::fs::remove_file(dir.path().join("file")).unwrap();
    mend(&rig.cache.shared, Ailment::Out).await;
    assert_eq!((look(&rig).await, rig.cache.stats().disk_error), (None, None));
    assert!(rig.keep("/a", b"small").await);
    rig.settle().await;
    rig.cache.close().await;
    drop(rig);
    let rig = cache_in(&folder);
    assert!(rig.get("/a").await.is_some());
    // Its number is not one that was given before.
    rig.cache.purge(PurgeScope::Path { host: "a.test".into(), path: "/a".into() }).await.unwrap();
    assert!(rig.get("/a").await.is_none());
}

#[tokio::test]
async fn an_index_is_opened_anew_and_a_rotten_one_is_emptied() {
    let dir = tempfile::tempdir().unwrap();
    let rig = cache_in(dir.path());
    for (rotten, error) in [(false, "No space left on device"), (true, "Corruption: block checksum mismatch")] {
        assert!(rig.keep("/a", b"small").await);
        rig.cache.purge(PurgeScope::Path { host: "a.test".into(), path: "/b".into() }).await.unwrap();
        let (entry, _) = rig.cache.keep(&key("/x"), &HeaderMap::new(), head(&rig.cache, "/x", Some(4), false));
        rig.settle().await;
        rig.cache.shared.disk_state.lock().error = Some(error.to_owned());
        mend(&rig.cache.shared, Ailment::Unwritable).await;
        assert_eq!(rig.cache.stats().disk_error, None);
        rig.cache.shared.hot.clear();
        assert_eq!(rig.get("/a").await.is_none(), rotten);
        let (later, _) = rig.cache.keep(&key("/x"), &HeaderMap::new(), head(&rig.cache, "/x", Some(4), false));
        assert!(later.id > entry.id);
    }
}

#[test]
fn bodies_go_only_where_there_is_no_room() {
    let dir = tempfile::tempdir().unwrap();
    let store = DiskStore::open(&dir.path().join(layout::BODIES)).unwrap();
    (1..40).for_each(|id| store.write(id, 0, &Bytes::from(vec![0; 5000])).unwrap());
    let left = || (0..=u8::MAX).map(|part| store.list(part).unwrap().len()).sum::<usize>();
    make_room_of(dir.path(), |space| space.available.min(1), |_| false);
    assert_eq!(left(), 39);
    make_room_of(dir.path(), |_| u64::MAX, |id| id < 10);
    assert_eq!(left(), 9, "those that are read stay");
    make_room_of(&dir.path().join("nowhere"), |_| u64::MAX, |_| false);
}
