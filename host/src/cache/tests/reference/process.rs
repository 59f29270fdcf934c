//! A cache on the failing disk beside the map: carries out the steps on both, and compares what is found.

use tokio_util::sync::CancellationToken;

use super::super::faults::{Attached, Platter};
use super::model::{Gone, Model, Version, body_of, scope};
use super::*;
use crate::cache::control::RequestDirectives;
use crate::cache::freshness::{self, Freshness};
use crate::cache::upkeep;

pub struct Run {
    rig: Option<Cache>,
    disk: Arc<Attached>,
    platter: Platter,
    clock: ManualClock,
    budget: u64,
    model: Model,
    /// Faults that the model knows of.
    fired: u64,
    /// Nothing failed since it was healed.
    sound: bool,
    /// Bits flipped: the total may be off.
    damaged: bool,
}

impl Run {
    pub fn new(small: bool) -> Self {
        let platter = Platter::default();
        let clock = ManualClock::at(Timestamp::from_millis(1_000_000_000_000));
        let budget = if small { SMALL } else { LARGE };
        let disk = Attached::to(&platter);
        let (model, fired) = (Model::default(), 0);
        let mut run = Self { rig: None, disk, platter, clock, budget, model, fired, sound: true, damaged: false };
        run.open();
        run
    }

    /// A process begins; a disk that does not let it is mended first.
    fn open(&mut self) {
        loop {
            self.disk = Attached::to(&self.platter);
            let opened = Disk::new(self.disk.clone(), self.disk.clone(), None, None).map_err(|_| ()).and_then(|disk| {
                let (clock, metrics) = (Clock::Manual(self.clock.clone()), Metrics::new().0);
                Cache::over(self.budget, 64 << 20, clock, metrics, Some(disk)).map_err(|_| ())
            });
            match opened {
                Ok(cache) => {
                    self.rig = Some(cache);
                    return;
                }
                Err(()) => self.platter.heal(),
            }
        }
    }

    fn cache(&self) -> &Cache {
        self.rig.as_ref().expect("a process runs between steps")
    }

    fn now(&self) -> Timestamp {
        self.cache().shared.clock.now()
    }

    fn head(&self, path: usize, number: u64, size: usize) -> EntryHead {
        let now = self.now();
        let timing = Timing { request_at: now, response_at: now, initial_age: Duration::ZERO };
        let retention = Retention { lifetime: LIFE, ..Retention::default() };
        let tag = if PATHS[path].ends_with('1') { "one" } else { "other" };
        let headers = HeaderMap::from_iter([(HeaderName::from_static("x-version"), number.into())]);
        let head = head(self.cache(), PATHS[path], Some(size as u64), size == SIZES[4]);
        EntryHead { timing, retention, headers, tags: vec![tag.into()], ..head }
    }

    /// A response comes. No writer where there is nothing more to come.
    fn begin(&mut self, path: usize, size: usize) -> (u64, Option<Writer>) {
        self.model.next += 1;
        let number = self.model.next;
        let head = self.head(path, number, size);
        let moments = vec![(head.timing.response_at, Gone::No)];
        let version = Version { number, size, purged: Gone::No, moments };
        self.model.versions.entry(path).or_default().push(version);
        self.model.certain.remove(&path);
        (number, self.cache().keep(&key(PATHS[path]), &HeaderMap::new(), head).1)
    }

    /// It is kept: where all is well, and no other is newer by the clock, it is the one that is found.
    fn kept(&mut self, path: usize, number: u64, kept: bool) {
        self.notice();
        let now = self.now();
        let versions = &self.model.versions[&path];
        let own = versions.iter().find(|version| version.number == number).expect("it was begun");
        let outdone = |other: &Version| {
            other.number > number
                || other.moments.iter().any(|(at, _)| *at > own.moments[0].0 && at.since(now) <= CLOCK_STEP)
        };
        let alone = !versions.iter().any(|other| other.number != number && outdone(other));
        if kept && self.sound && self.budget == LARGE && own.purged == Gone::No && alone {
            self.model.certain.insert(path, number);
        }
    }

    /// Looks whether something failed.
    fn notice(&mut self) {
        if self.platter.fired() != self.fired {
            self.fired = self.platter.fired();
            self.sound = false;
            self.model.doubt();
        }
    }

    async fn settle(&self) {
        for _ in 0..1000 {
            if self.cache().shared.tracker.len() <= 4 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn find(&self, path: usize) -> Option<Arc<Entry>> {
        let (key, headers) = (key(PATHS[path]), HeaderMap::new());
        let asked = Asked { key: &key, headers: &headers, request_path: PATHS[path] };
        match self.cache().lookup_memory(&asked) {
            Some(found) => Some(found.entry),
            None => Some(self.cache().lookup_disk(&asked).await?.entry),
        }
    }

    /// What is found for a path is one of those that may be, and it is whole where that is certain.
    async fn check(&mut self, path: usize) {
        let found = self.find(path).await;
        self.notice();
        let certain = self.model.certain.get(&path).copied();
        let Some(entry) = found else {
            assert_eq!(certain, None, "{} was kept and is gone", PATHS[path]);
            return;
        };
        let number: u64 = entry.head.headers["x-version"].to_str().unwrap().parse().unwrap();
        let version = self.model.versions[&path].iter().find(|version| version.number == number);
        let version = version.expect("it was kept for this path");
        assert_eq!(version.purged, Gone::No, "{} version {number} was purged", PATHS[path]);
        assert!(certain.is_none_or(|certain| certain == number), "{} is {number}, not {certain:?}", PATHS[path]);
        let (head, now) = (&entry.head, self.now());
        let moment = version.moments.iter().filter(|(at, _)| *at == head.timing.response_at);
        let stale = moment.map(|(_, stale)| *stale).min().expect("it came or was found unchanged then");
        let asked = RequestDirectives::default();
        if let Freshness::Fresh(left) = freshness::decide(&head.retention, &head.timing, &asked, None, now) {
            assert_eq!(stale, Gone::No, "{} version {number} was made stale", PATHS[path]);
            let (age, ahead) = (now.since(head.timing.response_at), head.timing.response_at.since(now));
            assert!(age < LIFE && left <= LIFE && ahead <= CLOCK_STEP, "{age:?} old, {ahead:?} ahead");
        }
        // A body that is still coming cannot be read to its end.
        if self.model.coming.get(&path).is_some_and(|(_, coming)| *coming == number) {
            return;
        }
        let (whole, read) = (body_of(path, number, version.size), read_what_is_there(&entry).await);
        let (bytes, complete) = (read.0, read.1);
        assert!(
            whole.starts_with(&bytes),
            "{} version {number}: wrong from byte {:?}",
            PATHS[path],
            first_difference(&whole, &bytes)
        );
        assert!(!complete || bytes.len() == whole.len(), "{} of {} bytes as the whole", bytes.len(), whole.len());
        self.notice();
        assert!(complete || !self.model.certain.contains_key(&path), "{} was kept whole and is not", PATHS[path]);
    }

    async fn purge(&mut self, number: u8, how: How) {
        let (scope, hits) = scope(number);
        let now = self.now();
        let answered = match how {
            How::Hard => self.cache().purge_all(vec![scope], PurgeMode::Hard).await.map(|_| Gone::ForEver),
            How::Soft => self.cache().purge_all(vec![scope], PurgeMode::soft(now)).await.map(|_| Gone::ForEver),
            How::Invalidate => self.cache().invalidate(vec![scope], None).await.map(|_| Gone::Unsynced),
        };
        match answered {
            Ok(gone) => self.model.purge(hits, how, gone),
            Err(CacheError::TooManyPurges(_)) => {}
            Err(_) => self.model.purge(hits, how, Gone::InMemory),
        }
    }

    /// What is missing comes from the origin, which has this version still.
    async fn mend(&mut self, path: usize) {
        let Some(entry) = self.find(path).await else { return };
        let EntryBody::Sliced(body) = &entry.body else { return };
        let number: u64 = entry.head.headers["x-version"].to_str().unwrap().parse().unwrap();
        let Some(size) = body.size().filter(|_| body.is_sliceable() && !self.model.coming.contains_key(&path)) else {
            return;
        };
        if let Some(gap) = body.first_gap(0..size)
            && let Some(mut writer) = body.claim(gap.clone())
        {
            let whole = body_of(path, number, usize::try_from(size).unwrap());
            let end = (gap.end * SLICE_BYTES).min(size) as usize;
            writer.write(Bytes::copy_from_slice(&whole[gap.start as usize * SLICE_BYTES as usize..end])).await;
            writer.finish().await;
        }
    }

    async fn finish(&mut self, path: usize) {
        let Some((mut writer, number)) = self.model.coming.remove(&path) else { return };
        let size =
            self.model.versions[&path].iter().find(|version| version.number == number).expect("it was begun").size;
        let rest = body_of(path, number, size).split_off(size / 2);
        let kept = writer.write(rest.into()).await && writer.finish().await;
        self.notice();
        let doubtful = self.model.doubtful.remove(&path);
        self.kept(path, number, kept && !doubtful);
    }

    /// A process ends, in one way or another, and the next begins.
    async fn again(&mut self, power_lost: Option<(usize, u64)>) {
        self.disk.kill();
        if let Some((batches, chance)) = power_lost {
            self.platter.lose_power(batches, chance);
            self.model.doubt();
        }
        if let Some(old) = self.rig.take() {
            old.shared.cancel.load().cancel();
        }
        self.model.coming.clear();
        self.model.each_moment(|gone| *gone = gone.after(power_lost.is_some()));
        // A fault may have been meant for those who are gone.
        self.notice();
        self.open();
        self.notice();
    }

    pub async fn step(&mut self, step: Step) {
        match step {
            Step::Put(path, size) if !self.model.coming.contains_key(&path) => {
                let size = SIZES[size];
                let (number, writer) = self.begin(path, size);
                let kept = match writer {
                    Some(mut writer) => {
                        let mut all = true;
                        for piece in body_of(path, number, size).chunks(300_001) {
                            all &= writer.write(Bytes::copy_from_slice(piece)).await;
                        }
                        all && writer.finish().await
                    }
                    None => size == 0,
                };
                self.settle().await;
                self.kept(path, number, kept);
            }
            Step::Begin(path, size) if !self.model.coming.contains_key(&path) && size > 0 => {
                let (number, writer) = self.begin(path, SIZES[size]);
                if let Some(mut writer) = writer {
                    writer.write(body_of(path, number, SIZES[size])[..SIZES[size] / 2].to_vec().into()).await;
                    self.model.doubtful.remove(&path);
                    self.model.coming.insert(path, (writer, number));
                    if !self.sound {
                        self.model.doubt();
                    }
                }
            }
            Step::Put(..) | Step::Begin(..) => {}
            Step::Finish(path) => self.finish(path).await,
            Step::Break(path) => drop(self.model.coming.remove(&path)),
            Step::Get(path) => self.check(path).await,
            Step::Mend(path) => self.mend(path).await,
            Step::Purge(number, how) => {
                self.purge(number, how).await;
                for path in 0..PATHS.len() {
                    self.check(path).await;
                }
            }
            Step::Revalidate(path) => {
                if let Some(entry) = self.find(path).await {
                    let number: u64 = entry.head.headers["x-version"].to_str().unwrap().parse().unwrap();
                    let now = self.now();
                    let versions = self.model.versions.get_mut(&path).expect("it was found");
                    let version = versions.iter_mut().find(|version| version.number == number).expect("it was found");
                    let size = version.size;
                    version.moments.push((now, Gone::No));
                    let fresh = EntryHead { size: entry.head.size, ..self.head(path, number, size) };
                    self.cache().freshen(&entry, fresh);
                }
            }
            Step::Cool => self.cache().shared.hot.clear(),
            Step::Housekeep => self.housekeep().await,
            Step::Forget => {
                // Nobody can tell any more whether what is still coming was purged: it is not kept.
                self.model.doubtful.extend(self.model.coming.keys());
                let shared = &self.cache().shared;
                upkeep::forget_all(&Arc::downgrade(shared), &CancellationToken::new(), shared.purges.newest()).await;
            }
            Step::Restart => {
                for path in 0..PATHS.len() {
                    self.finish(path).await;
                }
                self.settle().await;
                let cache = self.rig.take().expect("a process runs between steps");
                cache.close().await;
                drop(cache);
                self.again(None).await;
            }
            Step::Kill(settled) => {
                if settled {
                    self.settle().await;
                } else {
                    self.model.doubt();
                }
                self.again(None).await;
            }
            Step::PowerLoss(batches, chance) => self.again(Some((batches, chance))).await,
            Step::Fail(fault, after, times) => self.platter.fail(fault, after, times),
            Step::Heal => {
                self.platter.heal();
                self.notice();
                self.clock.advance(Duration::from_secs(20));
                self.sound = true;
            }
            Step::Clock(seconds) => self.clock.set(self.now().as_millis().saturating_add_signed(seconds * 1000)),
            Step::FlipInBody(chance) => {
                self.platter.flip_in_body(chance);
                self.model.doubt();
            }
            Step::FlipInRecord(chance) => {
                self.platter.flip_in_record(chance);
                self.damaged = true;
                self.model.doubt();
            }
        }
        if !matches!(self.model.coming.len(), 1..) {
            self.settle().await;
        }
    }

    /// Collects what earlier processes left behind, evicts until the budget is kept, and counts what is there.
    async fn housekeep(&mut self) {
        let shared = self.cache().shared.clone();
        let work = move || {
            (0..=u8::MAX).for_each(|part| upkeep::collect_part(&shared, part));
            let mut from = Some(0);
            while let Some(id) = from {
                from = upkeep::collect_slices(&shared, id);
            }
            eviction::flush_uses(&shared);
            while eviction::evict(&shared) {}
            eviction::reclaim(&shared);
        };
        tokio::task::spawn_blocking(work).await.unwrap();
        self.notice();
        let coming = self.model.coming.len() as u64;
        if self.sound && !self.damaged && coming == 0 {
            let used = self.cache().stats().disk_bytes;
            assert!(used <= self.budget, "{used} of {}", self.budget);
        }
    }

    /// At the end all is finished, and holds after an orderly restart too.
    pub async fn end(&mut self) {
        for restarted in [false, true] {
            for path in 0..PATHS.len() {
                self.finish(path).await;
                self.check(path).await;
            }
            self.settle().await;
            self.housekeep().await;
            if self.fired == 0 && !self.damaged {
                let counted = self.platter.counted_bytes();
                assert_eq!(self.cache().stats().disk_bytes.cast_signed(), counted, "restarted: {restarted}");
            }
            if !restarted {
                self.step(Step::Restart).await;
            }
        }
    }
}

fn first_difference(whole: &[u8], bytes: &[u8]) -> Option<usize> {
    whole.iter().zip(bytes).position(|(one, other)| one != other)
}

/// The bytes up to the first that is missing, and whether those are all.
async fn read_what_is_there(entry: &Entry) -> (Vec<u8>, bool) {
    let body = match &entry.body {
        EntryBody::Inline(bytes) => return (bytes.to_vec(), true),
        EntryBody::Sliced(body) => body,
    };
    let (mut reader, mut all) = (body.reader(0), Vec::new());
    loop {
        match reader.next(None).await {
            Piece::Bytes(bytes) => all.extend_from_slice(&bytes),
            Piece::End => return (all, true),
            Piece::Missing(_) | Piece::Failed(_) => return (all, false),
        }
    }
}
