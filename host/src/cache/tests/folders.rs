//! Caches in folders: closed, copied, handed over, unusable.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_closed_copied_and_opened_again_with_all_that_was_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let open = |path: PathBuf| {
        let settings = Settings { dir: path, disk_bytes: 1 << 30, memory_bytes: 16 << 20, ..Settings::default() };
        Cache::open(settings, Clock::System, Metrics::new().0).unwrap()
    };
    let first = dir.path().join("first");
    let cache = open(first.clone());
    let rig = Rig { cache: cache.clone(), ..Rig::new() };
    let sizes = [10, 100_000, 3 * SLICE_BYTES as usize + 1];
    for size in sizes {
        assert!(rig.keep(&format!("/{size}"), &bytes(size)).await);
    }
    assert!(rig.keep("/purged", b"old").await);
    cache.purge(PurgeScope::Path { host: "a.test".into(), path: "/purged".into() }).await.unwrap();
    rig.settle().await;
    // What a kill -9 leaves: the files as they are now, unflushed.
    let killed = dir.path().join("killed");
    let copied = std::process::Command::new("cp").arg("-r").arg(&first).arg(&killed).status().unwrap();
    assert!(copied.success());
    cache.close().await;
    for folder in [first, killed] {
        let cache = open(folder);
        let rig = Rig { cache: cache.clone(), ..Rig::new() };
        for size in sizes {
            assert_eq!(rig.get(&format!("/{size}")).await, Some((bytes(size), Tier::Disk)), "{size}");
        }
        assert_eq!(rig.get("/purged").await, None);
        cache.close().await;
        // Closed, it still serves what it has in memory.
        assert!(rig.get("/10").await.is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_passes_to_another_program_and_back() {
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let settings =
            Settings { dir: dir.path().to_owned(), disk_bytes: 1 << 30, memory_bytes: 0, ..Settings::default() };
        let cache = Cache::open(settings, Clock::System, Metrics::new().0).unwrap();
        Rig { cache, ..Rig::new() }
    };
    let old = open();
    let size = 3 * SLICE_BYTES as usize + 1;
    assert!(old.keep("/large", &bytes(size)).await && old.keep("/small", b"small").await);
    assert!(old.keep("/purged", b"old").await);
    old.settle().await;
    old.cache.hand_over().await.unwrap();
    let new = open();
    assert_eq!(new.get("/large").await, Some((bytes(size), Tier::Disk)));
    // The old one answers from the disk, and keeps nothing.
    assert_eq!(old.get("/large").await, Some((bytes(size), Tier::Disk)));
    old.keep("/late", b"late").await;
    assert_eq!(old.get("/late").await, None);
    let scope = PurgeScope::Path { host: "a.test".into(), path: "/purged".into() };
    let (first, told) = (Arc::new(old), Arc::new(parking_lot::Mutex::new(Vec::new())));
    let (telling, list) = (first.clone(), told.clone());
    new.cache.tell_purges_to(Box::new(move |sequence, scope| {
        list.lock().push(scope.clone());
        telling.cache.purged_elsewhere(sequence, scope)
    }));
    new.cache.purge(PurgeScope::Path { host: "a.test".into(), path: "/small".into() }).await.unwrap();
    assert_eq!(told.lock().len(), 1);
    assert_eq!((new.get("/small").await, first.get("/small").await), (None, None));
    assert!(new.keep("/new", b"new").await);
    new.settle().await;
    new.cache.close().await;
    drop(new);
    first.cache.take_back().await;
    assert_eq!(first.get("/small").await, None);
    assert_eq!(first.get("/new").await, Some((b"new".to_vec(), Tier::Disk)));
    assert!(first.keep("/again", b"again").await);
    first.settle().await;
    first.cache.purge(scope).await.unwrap();
    first.cache.close().await;
    drop(first);
    assert_eq!(open().get("/again").await, Some((b"again".to_vec(), Tier::Disk)));
}

#[tokio::test]
async fn a_folder_that_cannot_be_used_leaves_a_cache_in_memory_that_says_why() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    let settings = Settings {
        dir: dir.path().join("file/cache"),
        disk_bytes: 1 << 30,
        memory_bytes: 64 << 20,
        ..Settings::default()
    };
    let cache = Cache::open(settings, Clock::System, Metrics::new().0).unwrap();
    assert!(cache.stats().disk_error.is_some());
    let rig = Rig { cache, ..Rig::new() };
    for size in [10, 100_000, 2 * SLICE_BYTES as usize] {
        assert!(rig.keep(&format!("/{size}"), &bytes(size)).await, "{size}");
        assert!(rig.get(&format!("/{size}")).await.is_some_and(|(body, _)| body == bytes(size)), "{size}");
    }
    rig.cache.purge(PurgeScope::All).await.unwrap();
    assert_eq!(rig.get("/10").await, None);
}
