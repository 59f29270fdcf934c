//! What readers hold on to while their clients do not read, and what that does to the disk.

use super::*;

/// Clients that stall hold what they were given, and nobody can take it back: of memory without a bound of its own that must be
/// little.
#[tokio::test]
async fn readers_that_stall_hold_no_whole_slices_outside_of_the_region() {
    let rig = Rig::with_memory(Arc::default(), Arc::default(), 1 << 30, 2 << 20);
    let body = bytes(24 * SLICE_BYTES as usize);
    assert!(rig.keep("/a", &body).await);
    rig.settle().await;
    rig.cache.shared.hot.clear();
    let (key, headers) = (key("/a"), HeaderMap::new());
    let asked = Asked { key: &key, headers: &headers, request_path: "/a" };
    let found = rig.cache.lookup_disk(&asked).await.unwrap();
    let EntryBody::Sliced(sliced) = &found.entry.body else { panic!("it is large") };
    let mut held = Vec::new();
    for round in 0..3 {
        for slice in 0..24 {
            let from = slice * SLICE_BYTES + round;
            let Piece::Bytes(piece) = sliced.read(from, None).await else { panic!("it is there") };
            assert!(body[from as usize..].starts_with(&piece), "{slice}");
            held.push(piece);
        }
    }
    let outside: Vec<&Bytes> = held.iter().filter(|piece| !rig.cache.shared.hot.slices.is_bounded(piece)).collect();
    assert!(!outside.is_empty(), "all fit into the region: nothing was tested");
    assert!(outside.iter().all(|piece| piece.len() <= BLOCK_BYTES as usize));
}

#[tokio::test]
async fn bodies_that_are_read_for_ever_take_the_disk_a_little_beyond_its_budget_and_no_further() {
    let budget = 8 * SLICE_BYTES;
    let rig = Rig::over(Arc::default(), Arc::default(), budget);
    let mut readers = Vec::new();
    let mut most = 0;
    for number in 0..12 {
        let path = format!("/{number}");
        rig.keep(&path, &bytes(2 * SLICE_BYTES as usize)).await;
        rig.settle().await;
        let (key, headers) = (key(&path), HeaderMap::new());
        let asked = Asked { key: &key, headers: &headers, request_path: &path };
        if let Some(found) = rig.cache.lookup_memory(&asked)
            && let EntryBody::Sliced(body) = &found.entry.body
        {
            readers.push(body.reader(0));
        }
        let shared = rig.cache.shared.clone();
        tokio::task::spawn_blocking(move || while eviction::evict(&shared) {}).await.unwrap();
        most = most.max(rig.cache.shared.disk.load_full().unwrap().bytes());
    }
    // What has no room any more is not kept at all: nobody can begin to read it.
    assert!((4..=6).contains(&readers.len()), "{} read", readers.len());
    assert!(most <= budget + budget / 4 + SLICE_BYTES, "{most} of {budget}");
    drop(readers);
    // The housekeeping in the background may be at it.
    let mut is_kept = false;
    for _ in 0..100 {
        eviction::reclaim(&rig.cache.shared);
        is_kept = rig.keep("/after", &bytes(2 * SLICE_BYTES as usize)).await;
        if is_kept {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(is_kept, "there is room again");
}

#[tokio::test]
async fn bodies_that_come_at_once_share_half_of_the_disk_and_leave_the_rest_alone() {
    let budget = 16 * SLICE_BYTES;
    let rig = Rig::over(Arc::default(), Arc::default(), budget);
    for number in 0..50 {
        assert!(rig.keep(&format!("/hot/{number}"), &bytes(20_000)).await);
        assert!(rig.get(&format!("/hot/{number}")).await.is_some());
    }
    rig.settle().await;
    eviction::flush_uses(&rig.cache.shared);
    let size = 6 * SLICE_BYTES;
    let mut writers: Vec<_> = (0..5)
        .map(|number| {
            let path = format!("/large/{number}");
            let head = head(&rig.cache, &path, Some(size), true);
            rig.cache.keep(&key(&path), &HeaderMap::new(), head).1.unwrap()
        })
        .collect();
    let slice = Bytes::from(bytes(SLICE_BYTES as usize));
    for _ in 0..6 {
        for writer in &mut writers {
            assert!(writer.write(slice.clone()).await);
        }
        rig.settle().await;
        let shared = rig.cache.shared.clone();
        tokio::task::spawn_blocking(move || while eviction::evict(&shared) {}).await.unwrap();
    }
    assert!(rig.cache.shared.unfinished_bytes.load(Ordering::Relaxed) <= budget / 2);
    drop(writers);
    assert_eq!(rig.cache.shared.unfinished_bytes.load(Ordering::Relaxed), 0);
    rig.cache.shared.hot.clear();
    for number in 0..50 {
        assert!(rig.get(&format!("/hot/{number}")).await.is_some(), "{number} was evicted");
    }
}

/// How many slices of a body that comes at once the disk takes.
async fn taken(rig: &Rig, path: &str, slices: u64, sliceable: bool) -> u64 {
    let head = head(&rig.cache, path, Some(slices * SLICE_BYTES), sliceable);
    let (entry, writer) = rig.cache.keep(&key(path), &HeaderMap::new(), head);
    let EntryBody::Sliced(body) = &entry.body else { panic!("it comes in slices") };
    let mut writer = writer.unwrap();
    for _ in 0..slices {
        assert!(writer.write(bytes(SLICE_BYTES as usize).into()).await);
        rig.settle().await;
    }
    body.slices_on_disk()
}

#[tokio::test]
async fn one_large_body_takes_half_of_the_disk_at_most_and_nothing_that_is_pinned() {
    let rig = Rig::over(Arc::default(), Arc::default(), 20 * SLICE_BYTES);
    assert_eq!(taken(&rig, "/parts", 18, true).await, 10);
    assert_eq!(taken(&rig, "/whole", 18, false).await, 0, "a part of it would be of no use");
    rig.cache.set_pins_over(16 * SLICE_BYTES, false);
    assert_eq!(taken(&rig, "/beside", 18, true).await, 4);
    rig.cache.set_pins_over(20 * SLICE_BYTES, true);
    assert_eq!(taken(&rig, "/least", 18, true).await, 2);
}

/// What comes from a connection is a part of what was read from it.
#[tokio::test]
async fn what_is_kept_holds_nothing_of_what_was_read_with_it() {
    // The second's last slice is too small for the region.
    for length in [100, SLICE_BYTES as usize + 100] {
        let rig = Rig::new();
        let read = Arc::new(bytes(length));
        let piece = Bytes::from_owner(Lent(read.clone()));
        let head = head(&rig.cache, "/a", Some(length as u64), false);
        let mut writer = rig.cache.keep(&key("/a"), &HeaderMap::new(), head).1.unwrap();
        assert!(writer.write(piece).await && writer.finish().await);
        assert_eq!(rig.get("/a").await.unwrap(), (read.to_vec(), Tier::Memory));
        assert_eq!(Arc::strong_count(&read), 1, "{length}");
    }
}

/// Uses are written down in their time, and what has left memory meanwhile is gone.
#[tokio::test]
async fn uses_that_wait_to_be_written_down_hold_no_bodies() {
    let rig = Rig::new();
    assert!(rig.keep("/a", b"body").await);
    let found = rig.find("/a").await.unwrap();
    let entry = Arc::downgrade(&found.entry);
    drop(found);
    rig.cache.shared.hot.clear();
    assert!(entry.upgrade().is_none());
    assert_eq!(rig.cache.shared.take_noted().len(), 1);
}

struct Lent(Arc<Vec<u8>>);

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
