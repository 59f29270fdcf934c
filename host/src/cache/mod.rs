//! RFC 9111: what is kept of responses, how long, and where. The cache does not know what an origin is: it is handed a head
//! and the pieces of a body. This file is the room's only door.
//!
//! Memory tier first (no lock that all hits share, no system call), then the RocksDB index and body files.
//! A failing disk never fails a request: reads become misses, writes are dropped and counted.

mod body;
pub mod control;
mod disk;
mod disk_use;
pub mod entry;
pub mod error;
mod eviction;
pub mod fill;
pub mod freshness;
mod front;
pub mod glob;
pub mod groups;
mod handover;
mod host_walk;
pub mod hosts;
mod hot;
pub mod index;
pub mod key;
mod leaving;
mod lookup;
mod mending;
mod pins;
mod purge_crowd;
mod purge_table;
pub mod purges;
mod purging;
mod readers;
mod recovery;
mod removals;
mod runs;
pub mod scrub;
mod shared;
mod soft;
pub mod storable;
pub mod store;
pub mod survey;
pub mod tags;
pub mod targeted;
mod unfinished;
mod upkeep;
pub mod validation;
pub mod vary;
mod victims;
mod worth;
mod writer;
mod written;

#[cfg(test)]
mod tests;

pub use pins::PinJudge;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::HeaderMap;

use crate::clock::Clock;
use crate::region::Region;
use crate::telemetry::metrics::Metrics;
use disk::Disk;
use entry::{Entry, EntryHead};
use error::CacheError;
use fill::{Flights, Join, Writer};
use hosts::HostBudget;
use key::CacheKey;
use purge_table::Verdict;
use purges::{Candidate, Purge, PurgeMode, PurgeScope, PurgeSequence, Purged};
use recovery::Opened;
use shared::Shared;

/// How long `close` waits for work that is under way.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// How the cache is set up.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Folder: created if missing; refused if it is not empty and bears no mark of ours.
    pub dir: PathBuf,
    /// Budget for bodies and records on disk.
    pub disk_bytes: u64,
    /// Budget of the memory tier.
    pub memory_bytes: u64,
    /// Bytes of the file system that stay free; none: a fiftieth of it, within bounds.
    pub free_bytes: Option<u64>,
    /// Everything on disk is read and checked once in this time; none: only what is asked for.
    pub scrub: Option<Duration>,
    /// All hosts of hosts.json.
    pub hosts: Arc<[HostBudget]>,
}

/// The cache. Cheap to clone.
#[derive(Clone)]
pub struct Cache {
    shared: Arc<Shared>,
}

/// What is looked for.
pub struct Asked<'a> {
    /// The key without variant.
    pub key: &'a CacheKey,
    /// Fields of the request that select a variant (after the policy's view, as the client sent them).
    pub headers: &'a HeaderMap,
    /// The path as the client asked for it: a purge of it counts for whatever entry the key leads to.
    pub request_path: &'a str,
}

/// Where an entry was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// Memory.
    Memory,
    /// The index on disk.
    Disk,
    /// A fill under way: the head is there, the body is coming.
    Filling,
}

/// An entry that was found; fresh or stale is for `freshness` to say.
pub struct Found {
    /// The entry.
    pub entry: Arc<Entry>,
    /// Where.
    pub tier: Tier,
}

/// What is missing where nothing was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// Nothing is kept for the key.
    Key,
    /// What is kept for it was selected by other request fields.
    Variant,
    /// Something was, and is perhaps no more.
    Unknown,
}

impl Cache {
    /// Opens or creates the folder. Nothing is scanned. A read-only or unusable folder gives a cache that works from memory
    /// alone and says so once; a folder of others is an error; one of another format version is emptied in the background.
    /// Call it within a tokio runtime.
    pub fn open(settings: Settings, clock: Clock, metrics: Arc<Metrics>) -> Result<Self, CacheError> {
        let cache = match recovery::open(&settings.dir)? {
            Opened::Disk(disk) => {
                let cache = Self::over(settings.disk_bytes, settings.memory_bytes, clock, metrics, Some(*disk))?;
                cache.configure(&settings);
                // Before anything is kept.
                if let Some(disk) = cache.shared.disk.load_full() {
                    cache.shared.configure_hosts(&disk);
                }
                cache
            }
            Opened::Unusable { reason, has_index } => {
                tracing::error!(%reason, "the cache folder is of no use; serving from memory alone");
                let cache = Self::over(settings.disk_bytes, settings.memory_bytes, clock, metrics, None)?;
                cache.configure_disk(&settings);
                let mut state = cache.shared.disk_state.lock();
                state.error = Some(reason);
                state.unreachable_index = has_index;
                drop(state);
                cache
            }
        };
        let _ = cache.shared.folder.set(settings.dir);
        tokio::spawn(mending::run(Arc::downgrade(&cache.shared)));
        Ok(cache)
    }

    /// Whether a folder can be the cache's: it is none of others. Nothing is touched, and a folder that is not there can be made.
    pub fn check_folder(dir: &std::path::Path) -> Result<(), CacheError> {
        recovery::check(dir)
    }

    fn over(
        disk_bytes: u64,
        memory_bytes: u64,
        clock: Clock,
        metrics: Arc<Metrics>,
        disk: Option<Disk>,
    ) -> Result<Self, CacheError> {
        let shared = Shared::new(clock, metrics, disk_bytes, memory_bytes, disk);
        if let Some(disk) = shared.disk.load_full() {
            let failed = |error: index::IndexError| CacheError::Disk {
                path: disk.dir.clone().unwrap_or_default(),
                reason: error.to_string(),
            };
            shared.apply_recorded_purges(&disk).map_err(failed)?;
        }
        shared.measure_space();
        upkeep::start(&shared);
        Ok(Self { shared })
    }

    /// The memory tier and fills under way only; takes no shared lock, makes no system call.
    pub fn lookup_memory(&self, asked: &Asked<'_>) -> Option<Found> {
        lookup::in_memory(&self.shared, asked)
    }

    /// Whether memory knows of entries for this key, whatever request fields select them: after a miss, it is a miss of the
    /// variant only.
    pub fn knows(&self, asked: &Asked<'_>) -> bool {
        self.shared.hot.knows(asked.key, |slot| self.shared.judge_slot(slot, asked.request_path) == Verdict::Gone)
    }

    /// The index on disk; what is found goes to the memory tier. Block cache first, then the blocking pool.
    pub async fn lookup_disk(&self, asked: &Asked<'_>) -> Option<Found> {
        self.find_on_disk(asked).await.ok()
    }

    /// The same, and what is known where nothing is found, in memory neither.
    pub async fn find_on_disk(&self, asked: &Asked<'_>) -> Result<Found, Absent> {
        let absent = match lookup::on_disk(&self.shared, asked).await {
            Ok(found) => return Ok(found),
            Err(absent) => absent,
        };
        Err(if self.knows(asked) { Absent::Variant } else { absent })
    }

    /// Joins what is going on for this key: become the leader who asks the origin, or wait for one.
    /// `Uncoalesced` when the key is remembered as not cacheable.
    pub fn join(&self, asked: &Asked<'_>) -> Join {
        Flights::join(&self.shared, asked, || None)
    }

    /// The same, for a caller whose lookup gave `seen`, in memory and on disk: when a leader landed between that lookup and
    /// this call, what it brought is followed, and the origin is not asked twice.
    pub fn join_since(&self, asked: &Asked<'_>, seen: Option<&Arc<Entry>>) -> Join {
        Flights::join(&self.shared, asked, || {
            let found = self.shared.find(asked.key, asked.headers, asked.request_path)?;
            let newer = seen
                .is_none_or(|seen| seen.id != found.id || seen.head.timing.response_at < found.head.timing.response_at);
            newer.then_some(found)
        })
    }

    /// Keeps a response without leading (a background refresh, a range of an object, an uncoalesced request that turned out
    /// storable). `sequence` was taken before the origin was asked.
    pub fn keep(&self, key: &CacheKey, request: &HeaderMap, head: EntryHead) -> (Arc<Entry>, Option<Writer>) {
        self.shared.begin(key, request, head, None)
    }

    /// The same for a response that is a part of an object: these slices, in whole (but for the body's end), of a sliceable
    /// one. The writer takes bytes from `slices.start * SLICE_BYTES` on.
    pub fn keep_slices(
        &self,
        key: &CacheKey,
        request: &HeaderMap,
        head: EntryHead,
        slices: Range<u64>,
    ) -> (Arc<Entry>, Option<Writer>) {
        self.shared.begin(key, request, head, Some(slices))
    }

    /// The sequence to note before an origin is asked: a purge after it keeps the response out.
    pub fn sequence(&self) -> PurgeSequence {
        PurgeSequence(self.shared.purges.newest())
    }

    /// Replaces the head of an entry (RFC 9111 section 4.3.4); the body stays. Nothing happens if it was purged meanwhile.
    pub fn freshen(&self, entry: &Arc<Entry>, head: EntryHead) -> Arc<Entry> {
        self.shared.freshen(entry, head)
    }

    /// Says what is evicted last; none: nothing is.
    pub fn pin(&self, judge: Option<PinJudge>) {
        self.shared.pins.set(judge);
    }

    /// Says how much of the disk is pinned, and whether that is more than it may be: then there is nothing that is kept in any case.
    /// Tells whether it was before.
    pub fn set_pins_over(&self, bytes: u64, over: bool) -> bool {
        self.shared.pins.set_over(bytes, over)
    }

    /// Cancelled when nothing is kept any more: it is being closed, or another program takes the folder over.
    pub fn closing(&self) -> tokio_util::sync::CancellationToken {
        self.shared.cancel.load().as_ref().clone()
    }

    /// Forgets one entry and its body.
    pub fn remove(&self, entry: &Arc<Entry>) {
        self.shared.forget(entry);
    }

    /// Purges. In force for lookups and fills, and safe against a kill -9, when it returns. Where another program has the folder,
    /// that is so in both.
    pub async fn purge(&self, scope: PurgeScope) -> Result<PurgeSequence, CacheError> {
        self.purge_all(vec![scope], PurgeMode::Hard).await
    }

    /// The same for many at once, for the price of one; the sequence is that of the last. Some may be in force a moment before the
    /// others.
    pub async fn purge_all(&self, scopes: Vec<PurgeScope>, mode: PurgeMode) -> Result<PurgeSequence, CacheError> {
        self.shared.metrics.purges.inc_by(scopes.len() as u64);
        let purges = scopes.into_iter().map(|scope| Purge { scope, mode }).collect();
        self.purge_with(purges, true, None).await.map(|purged| purged.last)
    }

    /// Invalidates after an unsafe request (RFC 9111 section 4.4): a purge that survives a kill -9 but not the loss of power,
    /// since a disk that is synced for every POST would let clients hold everybody's. The answer to it may be kept under the
    /// number of the last purge, if the candidate was not overtaken.
    pub async fn invalidate(
        &self,
        scopes: Vec<PurgeScope>,
        candidate: Option<Candidate>,
    ) -> Result<Purged, CacheError> {
        self.purge_with(scopes.into_iter().map(Purge::from).collect(), false, candidate).await
    }

    /// Purges for another program that has given the folder over.
    pub async fn purge_for_other(&self, purge: Purge, synced: bool) -> Result<PurgeSequence, CacheError> {
        self.purge_with(vec![purge], synced, None).await.map(|purged| purged.last)
    }

    async fn purge_with(
        &self,
        purges: Vec<Purge>,
        synced: bool,
        candidate: Option<Candidate>,
    ) -> Result<Purged, CacheError> {
        let (shared, task) = (self.shared.clone(), self.shared.tracker.clone());
        // A task of its own: a caller who leaves does not leave half a purge.
        let purge = task.spawn(async move { purging::purge(&shared, purges, synced, candidate).await });
        purge.await.unwrap_or_else(|error| Err(CacheError::PurgeNotRecorded(error.to_string())))
    }

    /// Where bodies in memory lie that the kernel can send without copying.
    pub fn region(&self) -> Option<&Arc<Region>> {
        self.shared.hot.region()
    }

    /// Numbers for the admin listener.
    pub fn stats(&self) -> Stats {
        let shared = &self.shared;
        let disk = shared.disk.load();
        Stats {
            disk_bytes: disk.as_ref().map_or(0, |disk| disk.bytes()),
            disk_budget_bytes: shared.disk_limit(),
            memory_bytes: shared.hot.bytes(),
            memory_budget_bytes: shared.hot.budget(),
            entries: disk.as_ref().map_or(0, |disk| disk.entries()),
            fills: shared.fills.load(Ordering::Relaxed),
            purge_sequence: shared.purges.newest(),
            purges_remembered: shared.purges.records(),
            scrub: shared.scrub.stats(),
            disk_error: shared.disk_state.lock().error.clone(),
        }
    }

    /// What is known of the entry that a request selects, for a person: tier, id, sizes, tags.
    pub async fn entry_json(&self, asked: &Asked<'_>) -> Option<serde_json::Value> {
        lookup::describe(&self.shared, asked).await
    }

    /// Changes all but the folder, at a reload.
    pub fn configure(&self, settings: &Settings) {
        self.shared.hot.set_budget(settings.memory_bytes);
        self.configure_disk(settings);
    }

    fn configure_disk(&self, settings: &Settings) {
        let shared = &self.shared;
        shared.disk_budget.store(settings.disk_bytes, Ordering::Relaxed);
        shared.disk_floor.store(settings.free_bytes.unwrap_or(disk_use::FLOOR_BY_SIZE), Ordering::Relaxed);
        shared.scrub.configure(settings.scrub);
        // They come into force with the next round of housekeeping, since it reads from the disk.
        shared.host_budgets.store(Arc::new(settings.hosts.clone()));
        shared.wake.notify_one();
    }

    /// Flushes recency and closes the index; fills under way are not committed.
    pub async fn close(&self) {
        let shared = self.shared.clone();
        shared.ended.cancel();
        shared.cancel.load().cancel();
        shared.tracker.close();
        let deadline = tokio::time::Instant::now() + CLOSE_PATIENCE;
        let _ = tokio::time::timeout_at(deadline, shared.tracker.wait()).await;
        // The folder is not being mended.
        let turn = Arc::clone(&shared);
        let _turn = tokio::time::timeout_at(deadline, turn.purging.lock()).await;
        let flushed = tokio::task::spawn_blocking(move || {
            front::tidy(&shared, true);
            eviction::flush_uses(&shared);
            eviction::reclaim(&shared);
            let disk = shared.disk.swap(None)?;
            if !disk.is_handed_over() {
                shared.counted(disk.index.flush().map_err(disk::DiskError::from));
            }
            Some(disk)
        });
        let Ok(Some(mut disk)) = flushed.await else { return };
        // The folder is free when the last who reads from it is done.
        while let Err(shared) = Arc::try_unwrap(disk) {
            if tokio::time::Instant::now() >= deadline {
                return;
            }
            disk = shared;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Numbers for the admin listener.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Stats {
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// Budget on disk, or less where the file system has less room.
    pub disk_budget_bytes: u64,
    /// Bytes in memory.
    pub memory_bytes: u64,
    /// Budget in memory.
    pub memory_budget_bytes: u64,
    /// Entries on disk, estimated.
    pub entries: u64,
    /// Fills under way.
    pub fills: u64,
    /// Newest purge.
    pub purge_sequence: u64,
    /// Purges that are held against what is looked up, until all that they hit is gone from the disk.
    pub purges_remembered: u64,
    /// How far the check of everything on disk is.
    pub scrub: scrub::ScrubStats,
    /// Why the disk is out of use, if it is.
    pub disk_error: Option<String>,
}
