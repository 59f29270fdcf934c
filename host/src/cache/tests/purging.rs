//! Purges of all scopes and modes, against a map as reference and by themselves.

use std::collections::BTreeMap;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::freshness::{self, Freshness};
use super::super::upkeep;
use super::*;
use crate::cache::control::RequestDirectives;

const LIFE: Duration = Duration::from_secs(24 * 60 * 60);
const PATHS: [&str; 7] = ["/", "/1", "/2", "/d/", "/d/1", "/d/2", "/d/e/1"];

fn host() -> String {
    "a.test".to_owned()
}

fn tags_of(path: &str) -> Vec<String> {
    let tag = if path.ends_with('1') { "one" } else { "other" };
    vec![tag.to_owned()]
}

/// Whether a purge hits a path.
type Hits = Box<dyn Fn(&str) -> bool>;

/// A purge by number.
fn scope(number: u8) -> (PurgeScope, Hits) {
    let path = PATHS[usize::from(number) % PATHS.len()].to_owned();
    let named = path.clone();
    match number % 16 {
        0 => (PurgeScope::All, Box::new(|_| true)),
        1 => (PurgeScope::Host { host: host() }, Box::new(|_| true)),
        2 => (PurgeScope::Host { host: "b.test".into() }, Box::new(|_| false)),
        3 | 4 => (PurgeScope::Prefix { host: host(), prefix: "/d/".into() }, Box::new(|path| path.starts_with("/d/"))),
        5 | 6 => (PurgeScope::Tag { host: host(), tag: "one".into() }, Box::new(|path| path.ends_with('1'))),
        7 => (PurgeScope::TagEverywhere { tag: "other".into() }, Box::new(|path| !path.ends_with('1'))),
        8 => (
            PurgeScope::Glob { host: host(), glob: "/d/?".into() },
            Box::new(|path| path.len() == 4 && path.starts_with("/d/")),
        ),
        9 => (PurgeScope::Glob { host: host(), glob: "/**1".into() }, Box::new(|path| path.ends_with('1'))),
        _ => (PurgeScope::Path { host: host(), path }, Box::new(move |path| path == named)),
    }
}

fn mode(rig: &Rig, soft: bool) -> PurgeMode {
    if soft { PurgeMode::soft(rig.cache.shared.clock.now()) } else { PurgeMode::Hard }
}

fn living(rig: &Rig, path: &str, size: u64) -> EntryHead {
    let now = rig.cache.shared.clock.now();
    let timing = Timing { request_at: now, response_at: now, initial_age: Duration::ZERO };
    let retention = Retention { lifetime: LIFE, ..Retention::default() };
    EntryHead { timing, retention, tags: tags_of(path), ..head(&rig.cache, path, Some(size), false) }
}

fn begin(rig: &Rig, path: &str, size: u64) -> Option<Writer> {
    rig.cache.keep(&key(path), &HeaderMap::new(), living(rig, path, size)).1
}

async fn keep(rig: &Rig, path: &str, body: &[u8]) {
    let mut writer = begin(rig, path, body.len() as u64).expect("nothing is purged meanwhile");
    assert!(writer.write(Bytes::copy_from_slice(body)).await);
    assert!(writer.finish().await);
}

async fn find(rig: &Rig, path: &str) -> Option<Arc<Entry>> {
    let (key, headers) = (key(path), HeaderMap::new());
    let asked = Asked { key: &key, headers: &headers, request_path: path };
    match rig.cache.lookup_memory(&asked) {
        Some(found) => Some(found.entry),
        None => Some(rig.cache.lookup_disk(&asked).await?.entry),
    }
}

fn freshness_of(rig: &Rig, entry: &Entry) -> Freshness {
    let now = rig.cache.shared.clock.now();
    freshness::decide(&entry.head.retention, &entry.head.timing, &RequestDirectives::default(), None, now)
}

fn is_stale(rig: &Rig, entry: &Entry) -> bool {
    !matches!(freshness_of(rig, entry), Freshness::Fresh(_))
}

async fn forget(rig: &Rig) {
    let (shared, cancel) = (&rig.cache.shared, CancellationToken::new());
    upkeep::forget_all(&Arc::downgrade(shared), &cancel, shared.purges.newest()).await;
}

#[derive(Clone, Debug)]
enum Step {
    Put(usize),
    /// A fill begins, and ends with `Finish`.
    Begin(usize),
    Finish(usize),
    Get(usize),
    Purge(u8, bool),
    PurgeMany(Vec<u8>, bool),
    Revalidate(usize),
    Cool,
    Crash,
    Forget,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let path = || 0..PATHS.len();
    let step = prop_oneof![
        4 => path().prop_map(Step::Put),
        2 => path().prop_map(Step::Begin),
        2 => path().prop_map(Step::Finish),
        6 => path().prop_map(Step::Get),
        4 => (any::<u8>(), any::<bool>()).prop_map(|(number, soft)| Step::Purge(number, soft)),
        1 => (prop::collection::vec(any::<u8>(), 1..4), any::<bool>()).prop_map(|(all, soft)| Step::PurgeMany(all, soft)),
        2 => path().prop_map(Step::Revalidate),
        2 => Just(Step::Cool),
        1 => Just(Step::Crash),
        1 => Just(Step::Forget),
    ];
    prop::collection::vec(step, 1..40)
}

/// What the reference knows of a path.
#[derive(Default)]
struct Model {
    /// Body and whether it is stale.
    kept: BTreeMap<usize, (Vec<u8>, bool)>,
    /// Fills under way: body, whether a hard and whether a soft purge came since.
    coming: BTreeMap<usize, (Writer, Vec<u8>, bool, bool)>,
}

impl Model {
    fn purge(&mut self, hits: &dyn Fn(&str) -> bool, soft: bool) {
        self.kept.retain(|path, (_, stale)| {
            let hit = hits(PATHS[*path]);
            *stale |= hit && soft;
            !hit || soft
        });
        for (path, (_, _, gone, stale)) in &mut self.coming {
            *gone |= hits(PATHS[*path]) && !soft;
            *stale |= hits(PATHS[*path]) && soft;
        }
    }

    async fn finish(&mut self, path: usize) {
        let Some((mut writer, body, gone, stale)) = self.coming.remove(&path) else { return };
        writer.write(Bytes::copy_from_slice(&body)).await;
        writer.finish().await;
        if !gone {
            self.kept.insert(path, (body, stale));
        }
    }

    async fn finish_all(&mut self) {
        for path in 0..PATHS.len() {
            self.finish(path).await;
        }
    }

    async fn check(&self, rig: &Rig, path: usize) {
        let found = find(rig, PATHS[path]).await;
        if let Some((_, _, gone, stale)) = self.coming.get(&path) {
            assert_eq!(found.is_some(), !gone, "{}", PATHS[path]);
            assert!(found.is_none_or(|entry| is_stale(rig, &entry) == *stale), "{}", PATHS[path]);
            return;
        }
        let state = found.as_ref().map(|entry| is_stale(rig, entry));
        assert_eq!(state, self.kept.get(&path).map(|(_, stale)| *stale), "{}", PATHS[path]);
        if let (Some(entry), Some((body, _))) = (found, self.kept.get(&path)) {
            assert_eq!(read(&entry).await.as_ref(), Some(body));
        }
    }
}

async fn run(steps: Vec<Step>) {
    let mut rig = Rig::new();
    let mut model = Model::default();
    for (number, step) in steps.into_iter().enumerate() {
        let body = format!("body {number}").into_bytes();
        match step {
            Step::Put(path) if !model.coming.contains_key(&path) => {
                keep(&rig, PATHS[path], &body).await;
                model.kept.insert(path, (body, false));
            }
            Step::Begin(path) if !model.coming.contains_key(&path) => {
                let writer = begin(&rig, PATHS[path], body.len() as u64).expect("nothing is purged meanwhile");
                model.kept.remove(&path);
                model.coming.insert(path, (writer, body, false, false));
            }
            Step::Put(_) | Step::Begin(_) => {}
            Step::Finish(path) => model.finish(path).await,
            Step::Get(path) => model.check(&rig, path).await,
            Step::Purge(number, soft) => {
                let (scope, hits) = scope(number);
                rig.cache.purge_all(vec![scope], mode(&rig, soft)).await.unwrap();
                model.purge(&hits, soft);
                for path in 0..PATHS.len() {
                    model.check(&rig, path).await;
                }
            }
            Step::PurgeMany(numbers, soft) => {
                let (scopes, hits): (Vec<_>, Vec<_>) = numbers.into_iter().map(scope).unzip();
                let before = rig.cache.sequence().0;
                let last = rig.cache.purge_all(scopes, mode(&rig, soft)).await.unwrap();
                assert_eq!(last.0, before + hits.len() as u64);
                hits.iter().for_each(|hits| model.purge(hits, soft));
            }
            Step::Revalidate(path) if !model.coming.contains_key(&path) => {
                if let Some(entry) = find(&rig, PATHS[path]).await {
                    rig.cache.freshen(&entry, living(&rig, PATHS[path], 0));
                    model.kept.get_mut(&path).expect("it was found").1 = false;
                }
            }
            Step::Revalidate(_) => {}
            Step::Cool => rig.cache.shared.hot.clear(),
            Step::Crash => {
                model.finish_all().await;
                rig.settle().await;
                rig = rig.crashed();
            }
            Step::Forget => {
                model.finish_all().await;
                rig.settle().await;
                forget(&rig).await;
                assert_eq!(rig.cache.shared.purges.records(), 0);
            }
        }
        rig.settle().await;
    }
    model.finish_all().await;
    rig.settle().await;
    for path in 0..PATHS.len() {
        model.check(&rig, path).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn purges_of_all_scopes_and_modes_do_to_the_cache_what_they_do_to_a_map(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(steps));
    }
}

#[tokio::test]
async fn no_purge_reads_the_index_whatever_is_kept() {
    for entries in [10, 1000] {
        let rig = Rig::new();
        for number in 0..entries {
            keep(&rig, &format!("/d/{number}"), b"x").await;
        }
        rig.settle().await;
        for number in 0..16 {
            for soft in [false, true] {
                // Sweeps run beside it and read, now and then; a purge that reads would do so each time.
                let mut read = Vec::new();
                for _ in 0..10 {
                    let before = rig.index.reads();
                    rig.cache.purge_all(vec![scope(number).0], mode(&rig, soft)).await.unwrap();
                    read.push(rig.index.reads() - before);
                    if read.last() == Some(&0) {
                        break;
                    }
                }
                assert_eq!(read.last(), Some(&0), "{entries} entries, {:?}: {read:?}", scope(number).0);
            }
        }
    }
}

#[tokio::test]
async fn what_is_stale_by_a_purge_counts_its_windows_from_there() {
    let rig = Rig::new();
    rig.keep("/other", b"x").await;
    let retention = Retention {
        lifetime: LIFE,
        stale_while_revalidate: Some(Duration::from_secs(30)),
        stale_if_error: Some(Duration::from_secs(60)),
        ..Retention::default()
    };
    let head = EntryHead { retention, ..living(&rig, "/a", 1) };
    let (_, writer) = rig.cache.keep(&key("/a"), &HeaderMap::new(), head);
    let mut writer = writer.unwrap();
    writer.write(Bytes::from_static(b"x")).await;
    writer.finish().await;
    rig.settle().await;
    rig.clock.advance(Duration::from_secs(1000));
    let soft = mode(&rig, true);
    rig.cache.purge_all(vec![PurgeScope::Host { host: host() }], soft).await.unwrap();
    for (after, in_swr, in_sie) in [(0, true, true), (29, true, true), (1, false, true), (30, false, false)] {
        rig.clock.advance(Duration::from_secs(after));
        for _ in 0..2 {
            let entry = find(&rig, "/a").await.unwrap();
            let Freshness::Stale { while_revalidate, if_error, .. } = freshness_of(&rig, &entry) else { panic!() };
            assert_eq!((while_revalidate, if_error), (in_swr, in_sie));
            // The same from disk.
            rig.cache.shared.hot.clear();
        }
    }
}

#[tokio::test]
async fn purges_that_are_forgotten_during_a_fill_keep_it_out() {
    for soft in [false, true] {
        let rig = Rig::new();
        let mut writer = begin(&rig, "/a", 1).unwrap();
        rig.cache.purge_all(vec![scope(1).0], mode(&rig, soft)).await.unwrap();
        assert_eq!(find(&rig, "/a").await.is_some(), soft);
        forget(&rig).await;
        assert!(find(&rig, "/a").await.is_none());
        writer.write(Bytes::from_static(b"x")).await;
        writer.finish().await;
        rig.settle().await;
        assert!(find(&rig, "/a").await.is_none(), "nobody could tell that it was purged");
        keep(&rig, "/a", b"new").await;
        assert!(!is_stale(&rig, &find(&rig, "/a").await.unwrap()));
    }
}

#[tokio::test]
async fn globs_make_room_for_each_other_and_stay_applied() {
    let mut rig = Rig::new();
    for path in PATHS {
        keep(&rig, path, b"x").await;
    }
    rig.settle().await;
    let globs = |number: u64| vec![PurgeScope::Glob { host: host(), glob: format!("/d/*{number}") }; 128];
    rig.cache.purge_all(globs(1), PurgeMode::Hard).await.unwrap();
    rig.cache.purge_all(globs(2), mode(&rig, true)).await.unwrap();
    assert_eq!(rig.cache.shared.purges.room_for_globs(), 0);
    let deadline = Instant::now() + Duration::from_secs(20);
    while rig.cache.purge_all(globs(3), PurgeMode::Hard).await.is_err() {
        assert!(Instant::now() < deadline, "they are never applied");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for crash in [false, true] {
        if crash {
            rig.settle().await;
            rig = rig.crashed();
        }
        let mut states = Vec::new();
        for path in PATHS {
            states.push(find(&rig, path).await.map(|entry| is_stale(&rig, &entry)));
        }
        let fresh = Some(false);
        assert_eq!(states, [fresh, fresh, fresh, fresh, None, Some(true), fresh], "after a crash: {crash}");
    }
    assert!(rig.cache.purge_all([globs(4), globs(5), globs(6)].concat(), PurgeMode::Hard).await.is_err());
}

#[tokio::test]
async fn what_would_be_purged_is_counted_and_stays() {
    let rig = Rig::new();
    for path in PATHS {
        keep(&rig, path, b"x").await;
    }
    rig.settle().await;
    let soon = || Instant::now() + Duration::from_secs(10);
    for (number, expected) in [(0, 7), (1, 7), (2, 0), (3, 4), (5, 3), (7, 4), (8, 2), (9, 3), (10, 1)] {
        let count = rig.cache.count(&scope(number).0, soon()).await;
        assert_eq!((count.entries, count.complete), (expected, true), "{:?}", scope(number).0);
    }
    assert_eq!(rig.cache.sequence().0, 0);
    rig.cache.purge_all(vec![scope(3).0], PurgeMode::Hard).await.unwrap();
    assert_eq!(rig.cache.count(&PurgeScope::All, soon()).await.entries, 3, "what is gone is not counted");
}
