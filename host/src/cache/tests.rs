//! The whole room, over an index and a store in memory that can fail, lose and restart; the folder itself in `recovery`.

use std::collections::HashMap;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode};
use proptest::prelude::*;

use super::entry::{EntryBody, SLICE_BYTES};
use super::fill::{Followed, Piece};
use super::freshness::{Retention, Timing};
use super::index::memory::MemoryIndex;
use super::key::KeyParts;
use super::store::Space;
use super::store::memory::MemoryStore;
use super::vary::VaryFields;
use super::*;
use crate::clock::{ManualClock, Timestamp};
use crate::semantics::authority::Hostname;

mod crawls;
mod purging;
mod scrubbing;
mod variants;

struct Rig {
    cache: Cache,
    index: Arc<MemoryIndex>,
    store: Arc<MemoryStore>,
    clock: ManualClock,
}

impl Rig {
    fn new() -> Self {
        Self::over(Arc::default(), Arc::default(), 1 << 30)
    }

    fn over(index: Arc<MemoryIndex>, store: Arc<MemoryStore>, disk_bytes: u64) -> Self {
        let clock = ManualClock::at(Timestamp::from_millis(1_000_000));
        let disk = Disk::new(index.clone(), store.clone(), None, None).unwrap();
        let metrics = Metrics::new().0;
        let cache = Cache::over(disk_bytes, 64 << 20, Clock::Manual(clock.clone()), metrics, Some(disk)).unwrap();
        Self { cache, index, store, clock }
    }

    /// As after a kill -9: nothing is flushed, memory is gone.
    fn crashed(self) -> Self {
        self.cache.shared.cancel.load().cancel();
        let budget = self.cache.shared.disk_budget.load(Ordering::Relaxed);
        Self::over(self.index.clone(), self.store.clone(), budget)
    }

    async fn settle(&self) {
        // Until nothing is on its way to the disk; the four tasks of `upkeep` stay.
        for _ in 0..500 {
            if self.cache.shared.tracker.len() <= 4 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn keep(&self, path: &str, body: &[u8]) -> bool {
        let key = key(path);
        let head = head(&self.cache, path, Some(body.len() as u64), false);
        let (_, writer) = self.cache.keep(&key, &HeaderMap::new(), head);
        let Some(mut writer) = writer else { return body.is_empty() };
        for piece in body.chunks(300_001) {
            assert!(writer.write(Bytes::copy_from_slice(piece)).await);
        }
        writer.finish().await
    }

    async fn get(&self, path: &str) -> Option<(Vec<u8>, Tier)> {
        let (key, headers) = (key(path), HeaderMap::new());
        let asked = Asked { key: &key, headers: &headers, request_path: path };
        let found = match self.cache.lookup_memory(&asked) {
            Some(found) => found,
            None => self.cache.lookup_disk(&asked).await?,
        };
        read(&found.entry).await.map(|body| (body, found.tier))
    }
}

fn key(path: &str) -> CacheKey {
    let host = Hostname::parse("a.test").unwrap();
    CacheKey::build(&KeyParts { host: &host, path, parts: &[] }).unwrap()
}

fn head(cache: &Cache, path: &str, size: Option<u64>, sliceable: bool) -> EntryHead {
    EntryHead {
        status: StatusCode::OK,
        headers: HeaderMap::new(),
        timing: Timing::default(),
        retention: Retention::default(),
        vary: VaryFields::default(),
        tags: vec!["all".into()],
        sequence: cache.sequence(),
        request_path: path.into(),
        origin_path: None,
        size,
        sliceable,
        as_sent: None,
    }
}

async fn read(entry: &Entry) -> Option<Vec<u8>> {
    let body = match &entry.body {
        EntryBody::Inline(bytes) => return Some(bytes.to_vec()),
        EntryBody::Sliced(body) => body,
    };
    let (mut reader, mut all) = (body.reader(0), Vec::new());
    loop {
        match reader.next(None).await {
            Piece::Bytes(bytes) => all.extend_from_slice(&bytes),
            Piece::End => return Some(all),
            Piece::Missing(_) | Piece::Failed(_) => return None,
        }
    }
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n / 7 + n / 4096) as u8).collect()
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
    let slot = rig.cache.shared.hot.select(&key, |_| Default::default(), |slot, _| Some(slot.clone())).unwrap();
    let uses = slot.uses.load(Ordering::Relaxed);
    assert!((84..=100).contains(&uses), "{uses}: at most one round of copies is untold");
    rig.cache.shared.hot.clear();
    assert!(slot.moved.load(Ordering::Relaxed));
    assert_eq!(rig.get("/a").await, Some((b"body".to_vec(), Tier::Disk)));
    let entry = rig.cache.shared.find(&key, &HeaderMap::new(), "/a").unwrap();
    rig.cache.remove(&entry);
    assert!(rig.cache.shared.find(&key, &HeaderMap::new(), "/a").is_none());
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

#[derive(Clone, Debug)]
enum Step {
    Put(u8, usize),
    Get(u8),
    Purge(u8),
    PurgeAll,
    Remove(u8),
    Cool,
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let size = prop::sample::select(vec![0usize, 5, 40_000, (1 << 20) + 1]);
    prop::collection::vec(
        prop_oneof![
            4 => (0..4u8, size).prop_map(|(path, size)| Step::Put(path, size)),
            6 => (0..4u8).prop_map(Step::Get),
            1 => (0..4u8).prop_map(Step::Purge),
            1 => Just(Step::PurgeAll),
            1 => (0..4u8).prop_map(Step::Remove),
            2 => Just(Step::Cool),
            1 => Just(Step::Crash),
        ],
        1..25,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn the_cache_is_a_map_that_never_shows_what_was_purged_or_replaced(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut rig = Rig::new();
            let mut model: HashMap<u8, Vec<u8>> = HashMap::new();
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Put(path, size) => {
                        let mut body = bytes(size);
                        body.iter_mut().for_each(|byte| *byte ^= number as u8);
                        rig.keep(&format!("/{path}"), &body).await;
                        model.insert(path, body);
                    }
                    Step::Get(path) => {
                        let found = rig.get(&format!("/{path}")).await.map(|(body, _)| body);
                        assert_eq!(found.as_ref(), model.get(&path));
                    }
                    Step::Purge(path) => {
                        let scope = PurgeScope::Path { host: "a.test".into(), path: format!("/{path}") };
                        rig.cache.purge(scope).await.unwrap();
                        model.remove(&path);
                    }
                    Step::PurgeAll => {
                        rig.cache.purge(PurgeScope::All).await.unwrap();
                        model.clear();
                    }
                    Step::Remove(path) => {
                        let (key, headers) = (key(&format!("/{path}")), HeaderMap::new());
                        let asked = Asked { key: &key, headers: &headers, request_path: "/" };
                        if let Some(found) = rig.cache.lookup_memory(&asked) {
                            rig.cache.remove(&found.entry);
                            model.remove(&path);
                        }
                    }
                    Step::Cool => rig.cache.shared.hot.clear(),
                    Step::Crash => {
                        rig.settle().await;
                        rig = rig.crashed();
                    }
                }
                rig.settle().await;
            }
        });
    }
}

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
        assert!(rig.keep(&format!("/{size}"), &bytes(size)).await);
        assert!(rig.get(&format!("/{size}")).await.is_some_and(|(body, _)| body == bytes(size)), "{size}");
    }
    rig.cache.purge(PurgeScope::All).await.unwrap();
    assert_eq!(rig.get("/10").await, None);
}
