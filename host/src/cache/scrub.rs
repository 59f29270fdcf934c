//! Scrubbing: everything on disk is read once in a while and held against its checksums, so that what rots is found while the
//! origin still has it, and not when it is asked for.
//!
//! Every read checks anyway; this is for what nobody reads. One slice at a time, at a bounded rate, and more slowly while fills
//! are busy. A bad slice is forgotten: its next use fetches it again. Where a pass is stands in the index, so that restarts do not
//! begin it anew.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::disk::{Disk, DiskError};
use super::entry::SLICE_BYTES;
use super::index::schema::{self, EntryRecord, SliceRecord};
use super::index::{self, CHUNK, Change, Column};
use super::shared::Shared;
use super::upkeep::{SWEEP_PAUSE, blocking};

/// How often it is looked whether there is something to do.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Slices between two notes of how far it is.
const STRETCH: usize = 16;
/// Bytes in a second: no fewer, so that a small cache is soon done, and no more, so that clients do not feel it.
const LEAST_RATE: u64 = 4 << 20;
const MOST_RATE: u64 = 64 << 20;
/// With more fills than that it waits, for so long at a time: a cache that is always busy rots too.
const BUSY_FILLS: u64 = 16;
const BUSY_PATIENCE: Duration = Duration::from_secs(10);
/// As the place where a pass is: there is none.
const DONE: i64 = -1;

/// What is to be done, and how far it is.
#[derive(Debug, Default)]
pub(super) struct Scrub {
    /// Between the beginnings of two passes; 0: off.
    every_ms: AtomicU64,
    began_s: AtomicI64,
    finished_s: AtomicI64,
    under_way: AtomicU64,
    bytes: AtomicU64,
    bad: AtomicU64,
}

/// How far it is, for a person.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct ScrubStats {
    /// Seconds between the beginnings of two passes; none: it is off.
    pub every_s: Option<u64>,
    /// Whether a pass is under way.
    pub under_way: bool,
    /// When the newest pass began, in seconds since 1970; 0: never.
    pub began_s: i64,
    /// When one last came to its end, since the program started; 0: never.
    pub finished_s: i64,
    /// Bytes that it has read, since the program started.
    pub read_bytes: u64,
    /// Slices and records that were bad, since the program started.
    pub bad_pieces: u64,
}

impl Scrub {
    /// None: off.
    pub fn configure(&self, every: Option<Duration>) {
        let every = every.map_or(0, |every| u64::try_from(every.as_millis()).unwrap_or(u64::MAX));
        self.every_ms.store(every, Ordering::Relaxed);
    }

    fn every(&self) -> Option<Duration> {
        Some(self.every_ms.load(Ordering::Relaxed)).filter(|every| *every > 0).map(Duration::from_millis)
    }

    pub fn stats(&self) -> ScrubStats {
        ScrubStats {
            every_s: self.every().map(|every| every.as_secs()),
            under_way: self.under_way.load(Ordering::Relaxed) != 0,
            began_s: self.began_s.load(Ordering::Relaxed),
            finished_s: self.finished_s.load(Ordering::Relaxed),
            read_bytes: self.bytes.load(Ordering::Relaxed),
            bad_pieces: self.bad.load(Ordering::Relaxed),
        }
    }
}

/// One pass after the other, as long as the cache is there.
pub(super) async fn run(shared: Weak<Shared>, cancel: CancellationToken) {
    let recorded = |shared: &Arc<Shared>| {
        let disk = shared.disk.load_full()?;
        let number = |key| shared.counted(index::number(&*disk.index, key).map_err(DiskError::from));
        Some((number(schema::META_SCRUB_BEGAN)?, number(schema::META_SCRUB_AT)?))
    };
    let Some(Some((began, at))) = blocking(&shared, recorded).await else { return };
    // What was never begun stands at 0 too, and is due at once.
    let mut from = (began > 0 && at != DONE).then(|| schema::slice_key(at.unsigned_abs(), 0));
    if let Some(shared) = shared.upgrade() {
        shared.scrub.began_s.store(began, Ordering::Relaxed);
    }
    while pause(LOOK_EVERY, &cancel).await {
        let Some(strong) = shared.upgrade() else { return };
        let (scrub, now) = (&strong.scrub, i64::try_from(strong.clock.now().as_secs()).unwrap_or(i64::MAX));
        let Some(every) = scrub.every() else {
            scrub.under_way.store(0, Ordering::Relaxed);
            continue;
        };
        if from.is_none() {
            let began = scrub.began_s.load(Ordering::Relaxed);
            // One that seems to begin in the future is of a clock that was set back.
            if began > 0 && (began..began.saturating_add_unsigned(every.as_secs())).contains(&now) {
                continue;
            }
            scrub.began_s.store(now, Ordering::Relaxed);
            from = Some(Vec::new());
        }
        scrub.under_way.store(1, Ordering::Relaxed);
        drop(strong);
        let Some(start) = from.take() else { continue };
        from = pass(&shared, &cancel, every, start).await;
        if let Some(shared) = shared.upgrade()
            && from.is_none()
        {
            shared.scrub.under_way.store(0, Ordering::Relaxed);
        }
    }
}

/// Sleeps; false if it is to end.
async fn pause(length: Duration, cancel: &CancellationToken) -> bool {
    tokio::select! {
        () = tokio::time::sleep(length) => true,
        () = cancel.cancelled() => false,
    }
}

/// Goes on with a pass. Returns where to go on, if it was turned off or the disk failed; none: that was the end.
async fn pass(shared: &Weak<Shared>, cancel: &CancellationToken, every: Duration, start: Vec<u8>) -> Option<Vec<u8>> {
    let mut from = start;
    loop {
        let at = from.clone();
        let stretch = move |shared: &Arc<Shared>| {
            let disk = shared.disk.load_full().filter(|disk| !disk.is_handed_over())?;
            // What follows the id says where in the body it is; that body is begun anew after a restart.
            record(shared, &disk, at.first_chunk().map_or(0, |id| i64::from_be_bytes(*id)));
            shared.counted(disk.index.scan(Column::Slices, &at, None, STRETCH).map_err(DiskError::from))
        };
        let Some(Some(records)) = blocking(shared, stretch).await else { return Some(from) };
        let Some((last, _)) = records.last() else { break };
        let next = index::after(last);
        for (key, value) in records {
            let Some(strong) = shared.upgrade().filter(|shared| shared.scrub.every().is_some()) else {
                return Some(from);
            };
            let rate = (strong.disk_bytes() / every.as_secs().max(1)).clamp(LEAST_RATE, MOST_RATE);
            let is_busy = strong.fills.load(Ordering::Relaxed) > BUSY_FILLS;
            drop(strong);
            let read = blocking(shared, move |shared| check_slice(shared, &key, &value)).await.unwrap_or(0);
            let rest = if is_busy { BUSY_PATIENCE } else { Duration::from_secs_f64(read as f64 / rate as f64) };
            if !pause(rest, cancel).await {
                return Some(from);
            }
        }
        from = next;
    }
    let mut from = Vec::new();
    loop {
        let at = std::mem::take(&mut from);
        match blocking(shared, move |shared| check_entries(shared, &at)).await.flatten() {
            Some(next) => from = next,
            None => break,
        }
        if !pause(SWEEP_PAUSE, cancel).await {
            return Some(Vec::new());
        }
    }
    blocking(shared, |shared| {
        let now = i64::try_from(shared.clock.now().as_secs()).unwrap_or(i64::MAX);
        shared.scrub.finished_s.store(now, Ordering::Relaxed);
        if let Some(disk) = shared.disk.load_full() {
            record(shared, &disk, DONE);
        }
    })
    .await;
    None
}

/// Blocking: notes how far it is.
fn record(shared: &Shared, disk: &Disk, at: i64) {
    if disk.is_handed_over() {
        return;
    }
    let began = shared.scrub.began_s.load(Ordering::Relaxed);
    let put = |key: &[u8], number: i64| Change::Put(Column::Meta, key.to_vec(), number.to_be_bytes().to_vec());
    let changes = vec![put(schema::META_SCRUB_BEGAN, began), put(schema::META_SCRUB_AT, at)];
    shared.counted(disk.index.write(changes, false).map_err(DiskError::from));
}

/// Blocking: reads a slice. Returns how much that was.
fn check_slice(shared: &Arc<Shared>, key: &[u8], value: &[u8]) -> u64 {
    let (Some((id, Some(slice))), Some(disk)) = (schema::parse_slice_key(key), shared.disk.load_full()) else {
        return 0;
    };
    let slice = u64::from(slice);
    let wanted = SliceRecord::decode(value);
    let length = wanted.as_ref().map_or(0, |record| u64::from(record.length));
    let is_good = || {
        let wanted = wanted.as_ref()?;
        let bytes = disk.store.read(id, slice * SLICE_BYTES, wanted.length as usize).ok()?;
        wanted.matches(&bytes).then_some(())
    };
    // What was removed or written anew in this moment is not bad.
    let still = || {
        let now = shared.counted(disk.index.get(Column::Slices, key).map_err(DiskError::from)).flatten();
        now.is_some_and(|now| now == value)
    };
    if is_good().is_none() && still() && is_good().is_none() && still() {
        shared.scrub.bad.fetch_add(1, Ordering::Relaxed);
        shared.slice_is_bad(&disk, id, slice);
        if let Some(body) = shared.live_body(id) {
            body.state.lock().present.remove(slice);
            if !body.is_sliceable() {
                // It cannot be mended: the next request shall find a miss.
                shared.hot.retain(|entry| entry.id != id);
                shared.remove_from_disk(&body.full_key, id);
            }
        }
    }
    read(shared, length);
    length
}

fn read(shared: &Shared, bytes: u64) {
    shared.scrub.bytes.fetch_add(bytes, Ordering::Relaxed);
    shared.metrics.cache_scrubbed_bytes.inc_by(bytes);
}

/// Blocking: reads some records of entries, with the small bodies in them. Returns where to go on.
fn check_entries(shared: &Arc<Shared>, from: &[u8]) -> Option<Vec<u8>> {
    let disk = shared.disk.load_full().filter(|disk| !disk.is_handed_over())?;
    let records = shared.counted(disk.index.scan(Column::Entries, from, None, CHUNK / 4).map_err(DiskError::from))?;
    for (full_key, value) in &records {
        read(shared, value.len() as u64);
        match EntryRecord::decode(value) {
            None => {
                shared.scrub.bad.fetch_add(1, Ordering::Relaxed);
                shared.metrics.cache_corruptions.inc();
                shared.counted(disk.drop_record(full_key));
            }
            // Its variants may be gone without its knowledge.
            Some(EntryRecord { entry: None, .. }) => drop(shared.counted(disk.drop_idle_base(full_key))),
            Some(_) => {}
        }
    }
    records.last().map(|(last, _)| index::after(last))
}
