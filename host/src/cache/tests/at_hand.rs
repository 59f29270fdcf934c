//! Copies that a thread has of its own.

use super::*;

/// Whether what is found for a path is the thread's own copy.
fn is_at_hand(rig: &Rig, path: &str) -> bool {
    let (key, headers) = (key(path), HeaderMap::new());
    let asked = Asked { key: &key, headers: &headers, request_path: path };
    rig.cache.lookup_memory(&asked).is_some_and(|found| found.entry.ready.is_some())
}

#[tokio::test]
async fn a_copy_at_hand_gives_way_at_once_to_what_is_newer_and_to_purges() {
    let rig = Rig::new();
    for (round, body) in [b"one", b"two"].into_iter().enumerate() {
        assert!(rig.keep("/a", body).await);
        for _ in 0..8 {
            assert_eq!(rig.get("/a").await, Some((body.to_vec(), Tier::Memory)), "{round}");
        }
        assert!(is_at_hand(&rig, "/a"));
    }
    let entry = rig.cache.shared.find(&key("/a"), &HeaderMap::new(), "/a").unwrap();
    let mut fresher = entry.head.clone();
    fresher.headers.insert("x-fresh", "1".parse().unwrap());
    rig.cache.freshen(&entry, fresher);
    let found = rig.cache.shared.find(&key("/a"), &HeaderMap::new(), "/a").unwrap();
    assert!(found.head.headers.contains_key("x-fresh"));
    rig.settle().await;
    for _ in 0..8 {
        assert!(rig.get("/a").await.is_some());
    }
    assert!(is_at_hand(&rig, "/a"));
    rig.cache.purge(PurgeScope::Tag { host: "a.test".into(), tag: "all".into() }).await.unwrap();
    assert_eq!(rig.get("/a").await, None);
}

#[tokio::test]
async fn a_copy_at_hand_is_not_for_those_whom_a_variant_is_for() {
    let rig = Rig::new();
    assert!(rig.keep("/a", b"plain").await);
    for _ in 0..8 {
        assert!(rig.get("/a").await.is_some());
    }
    assert!(is_at_hand(&rig, "/a"));
    let mut german = HeaderMap::new();
    german.insert("accept-language", "de".parse().unwrap());
    let mut varying = head(&rig.cache, "/a", Some(2), false);
    varying.vary = VaryFields(vec![HeaderName::from_static("accept-language")]);
    let (_, writer) = rig.cache.keep(&key("/a"), &german, varying);
    let mut writer = writer.unwrap();
    writer.write(Bytes::from_static(b"de")).await;
    assert!(writer.finish().await);
    let found = rig.cache.shared.find(&key("/a"), &german, "/a").unwrap();
    assert_eq!(read(&found).await.unwrap(), b"de");
    assert!(!is_at_hand(&rig, "/a"));
}

#[tokio::test]
async fn a_copy_at_hand_goes_when_its_entry_is_removed_or_evicted_and_its_uses_are_counted() {
    let rig = Rig::new();
    assert!(rig.keep("/a", b"body").await);
    for _ in 0..100 {
        assert!(rig.get("/a").await.is_some());
    }
    let key = key("/a");
    let slot =
        rig.cache.shared.hot.select(&key, Look::Glance, |_| Default::default(), |slot, _| Some(slot.clone())).unwrap();
    let uses = slot.used.uses.load(Ordering::Relaxed);
    assert!((84..=100).contains(&uses), "{uses}: at most one round of copies is untold");
    rig.cache.shared.hot.clear();
    assert!(slot.moved.load(Ordering::Relaxed));
    assert_eq!(rig.get("/a").await, Some((b"body".to_vec(), Tier::Disk)));
    let entry = rig.cache.shared.find(&key, &HeaderMap::new(), "/a").unwrap();
    rig.cache.remove(&entry);
    assert!(rig.cache.shared.find(&key, &HeaderMap::new(), "/a").is_none());
}

/// The thread's own copy of what is found for a path, if it is one.
fn at_hand(rig: &Rig, path: &str) -> Option<Arc<Entry>> {
    rig.cache.shared.find(&key(path), &HeaderMap::new(), path).filter(|entry| entry.ready.is_some())
}

fn in_memory(memory_bytes: u64) -> Settings {
    Settings { disk_bytes: 1 << 30, memory_bytes, ..Settings::default() }
}

#[tokio::test]
async fn a_slice_at_hand_is_let_go_of_when_its_entry_goes_or_the_tier_lets_go_of_it() {
    let rig = Rig::new();
    let body = bytes(100_000);
    for removed in [false, true] {
        rig.cache.configure(&in_memory(64 << 20));
        assert!(rig.keep("/a", &body).await);
        for _ in 0..8 {
            assert_eq!(rig.get("/a").await, Some((body.clone(), Tier::Memory)));
        }
        rig.settle().await;
        let entry = at_hand(&rig, "/a").unwrap();
        assert_eq!(entry.held.as_deref(), Some(&body[..]));
        let EntryBody::Sliced(sliced) = &entry.body else { panic!("{entry:?}") };
        let sliced = Arc::downgrade(sliced);
        front::tidy(&rig.cache.shared, false);
        assert!(at_hand(&rig, "/a").is_some());
        if removed {
            rig.cache.remove(&entry);
        } else {
            rig.cache.configure(&in_memory(1));
        }
        drop(entry);
        rig.settle().await;
        front::tidy(&rig.cache.shared, false);
        assert!(sliced.upgrade().is_none(), "{removed}");
    }
}

#[tokio::test]
async fn a_thread_has_a_part_of_the_tier_at_hand() {
    let rig = Rig::new();
    rig.cache.configure(&in_memory(32 << 20));
    let paths: Vec<String> = (0..64).map(|number| format!("/{number}")).collect();
    for path in &paths {
        assert!(rig.keep(path, &bytes(100_000)).await);
    }
    for _ in 0..8 {
        for path in &paths {
            assert!(rig.get(path).await.is_some());
        }
    }
    let held = |path: &String| at_hand(&rig, path).and_then(|entry| entry.held.clone());
    let held: Vec<Bytes> = paths.iter().filter_map(held).collect();
    assert!((10..=20).contains(&held.len()), "{}: at most 2 MiB", held.len());
    // What is let go of makes room.
    rig.cache.shared.hot.clear();
    front::tidy(&rig.cache.shared, false);
    for _ in 0..8 {
        assert!(rig.get(&paths[63]).await.is_some());
    }
    assert!(at_hand(&rig, &paths[63]).is_some_and(|entry| entry.held.is_some()));
}
