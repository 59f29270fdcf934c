//! What all parts of the cache share, and the operations that touch several of them.

mod bodies;
mod entries;

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::body::SlicedBody;
use super::disk::{Committed, Disk, DiskError};
use super::disk_use::{self, DiskState};
use super::entry::{Entry, EntryBody, EntryHead};
use super::fill::Flights;
use super::hosts::HostBudget;
use super::hot::{Hot, Slot, Used};
use super::index::schema::{self};
use super::index::{self, Column, IndexError, Probe};
use super::key::CacheKey;
use super::pins::Pins;
use super::purge_table::{PurgeTable, Verdict};
use super::purges::{PurgeListener, PurgeScope, PurgeSequence};
use super::purging::Custody;
use super::readers::Readers;
use super::removals::Removals;
use super::runs::Runs;
use super::scrub::Scrub;
use super::vary::VariantKey;
use crate::clock::Clock;
use crate::telemetry::metrics::Metrics;

const SHARDS: usize = 32;
/// Numbers the caches of this process.
static NEXT_NUMBER: AtomicU64 = AtomicU64::new(0);
/// Entries whose use waits to be written down, in each of `SHARDS` buffers. What does not fit is not counted: recency is a
/// hint.
const MAX_NOTED: usize = 2048;
/// Everything, once for each open cache.
pub(super) struct Shared {
    /// Unlike that of any other.
    pub number: u64,
    pub clock: Clock,
    pub metrics: Arc<Metrics>,
    pub hot: Hot,
    pub purges: PurgeTable,
    pub flights: Flights,
    pub disk: ArcSwapOption<Disk>,
    pub disk_state: Mutex<DiskState>,
    /// Milliseconds since 1970 until which nothing is written; 0: the disk works.
    pub paused_until: AtomicU64,
    /// As configured.
    pub disk_budget: AtomicU64,
    /// Bytes of the file system that stay free, or `disk_use::FLOOR_BY_SIZE`.
    pub disk_floor: AtomicU64,
    /// The hosts of hosts.json, for whatever disk there is.
    pub host_budgets: ArcSwap<Arc<[HostBudget]>>,
    /// Those that the metrics tell of.
    pub hosts_shown: Mutex<BTreeSet<String>>,
    /// What the file system has room for, as it was last looked at.
    pub disk_ceiling: AtomicU64,
    /// The most that a fill waits for room for: eviction makes so much beyond what is used.
    pub room_wanted: AtomicU64,
    pub ids: AtomicU64,
    /// One purge at a time, so that they come into force in their order.
    pub purging: tokio::sync::Mutex<()>,
    /// The first purge that could not be written down, until a later one is. The next run knows nothing of it, and gives its number
    /// to another: nothing is written down as asked for after it.
    pub unrecorded: AtomicU64,
    /// Scopes whose entries are to be removed from the disk.
    pub sweeps: Mutex<Vec<PurgeScope>>,
    /// Changes when purges are forgotten: what was read from disk before may be purged and not look so.
    pub forgotten: AtomicU64,
    /// What was removed lately.
    pub removals: Removals,
    /// Bodies of entries that went lately.
    pub bodies_gone: Removals,
    /// Who reads the index.
    pub readers: Readers,
    pub doomed: Mutex<Vec<u64>>,
    /// Bytes of bodies whose entries are gone and that are still read: they will be free without more eviction.
    pub leaving_bytes: Arc<AtomicU64>,
    /// Bytes on disk of bodies that are still coming.
    pub unfinished_bytes: AtomicU64,
    pub wake: Notify,
    pub room: Notify,
    pub tracker: TaskTracker,
    /// Ends the work in the background; another one when it begins anew.
    pub cancel: ArcSwap<CancellationToken>,
    /// The cache is closed for good.
    pub ended: CancellationToken,
    /// Where the disk's part lies, whether it can be used or not; none in tests that have no folder.
    pub folder: OnceLock<PathBuf>,
    /// Who has the folder. It changes with the turn of `purging`.
    pub custody: watch::Sender<Custody>,
    /// Who else is to know of purges before they are answered.
    pub purge_listener: ArcSwapOption<PurgeListener>,
    live: Box<[Live]>,
    bodies: Box<[Bodies]>,
    noted: Box<[Mutex<Vec<Arc<Used>>>]>,
    next_note: AtomicUsize,
    pub fills: AtomicU64,
    pub scrub: Scrub,
    pub pins: Pins,
}

/// Entries whose first fill is under way.
type Live = RwLock<HashMap<CacheKey, Vec<Arc<Entry>>>>;
/// Bodies in use.
type Bodies = Mutex<HashMap<u64, Weak<SlicedBody>>>;

fn sharded<T: Default>() -> Box<[T]> {
    (0..SHARDS).map(|_| T::default()).collect()
}

impl Shared {
    pub fn new(
        clock: Clock,
        metrics: Arc<Metrics>,
        disk_bytes: u64,
        memory_bytes: u64,
        disk: Option<Disk>,
    ) -> Arc<Self> {
        let first_id = disk.as_ref().map_or(1, |disk| disk.first_id);
        Arc::new(Self {
            number: NEXT_NUMBER.fetch_add(1, Ordering::Relaxed),
            clock,
            metrics,
            hot: Hot::new(memory_bytes),
            purges: PurgeTable::default(),
            flights: Flights::new(),
            disk: ArcSwapOption::from_pointee(disk),
            disk_state: Mutex::default(),
            paused_until: AtomicU64::new(0),
            disk_budget: AtomicU64::new(disk_bytes),
            disk_floor: AtomicU64::new(disk_use::FLOOR_BY_SIZE),
            disk_ceiling: AtomicU64::new(u64::MAX),
            host_budgets: ArcSwap::from_pointee(Arc::default()),
            hosts_shown: Mutex::default(),
            room_wanted: AtomicU64::new(0),
            ids: AtomicU64::new(first_id),
            purging: tokio::sync::Mutex::new(()),
            unrecorded: AtomicU64::new(u64::MAX),
            sweeps: Mutex::default(),
            forgotten: AtomicU64::new(0),
            removals: Removals::default(),
            bodies_gone: Removals::default(),
            readers: Readers::new(),
            doomed: Mutex::default(),
            leaving_bytes: Arc::default(),
            unfinished_bytes: AtomicU64::new(0),
            wake: Notify::new(),
            room: Notify::new(),
            tracker: TaskTracker::new(),
            cancel: ArcSwap::from_pointee(CancellationToken::new()),
            ended: CancellationToken::new(),
            folder: OnceLock::new(),
            custody: watch::Sender::new(Custody::Here),
            purge_listener: ArcSwapOption::empty(),
            live: sharded(),
            bodies: sharded(),
            noted: sharded(),
            next_note: AtomicUsize::new(0),
            fills: AtomicU64::new(0),
            scrub: Scrub::default(),
            pins: Pins::default(),
        })
    }

    fn live(&self, key: &CacheKey) -> &Live {
        &self.live[crc32c::crc32c(key.as_bytes()) as usize % SHARDS]
    }

    fn bodies(&self, id: u64) -> &Bodies {
        &self.bodies[id as usize % SHARDS]
    }

    /// Nothing new is kept.
    pub fn is_closing(&self) -> bool {
        self.cancel.load().is_cancelled()
    }

    // Purges.

    /// Whether an entry that is asked for by this path is gone.
    pub fn is_purged(&self, entry: &Entry, asked_path: Option<&str>) -> bool {
        self.judge(entry, asked_path) == Verdict::Gone
    }

    /// What purges say of an entry that is asked for by this path.
    pub fn judge(&self, entry: &Entry, asked_path: Option<&str>) -> Verdict {
        self.purges.judge(&entry.marks(asked_path), entry.head.sequence.0)
    }

    /// The same for an entry in memory, in nearly all cases with one load and a comparison or two. One that is as stale as it is to
    /// be counts as untouched.
    pub fn judge_slot(&self, slot: &Slot, asked_path: &str) -> Verdict {
        let newest = self.purges.newest();
        let entry = &slot.entry;
        if newest <= entry.head.sequence.0 {
            return Verdict::Untouched;
        }
        let own_name = asked_path == entry.head.request_path || asked_path == entry.key.path();
        if own_name && newest <= slot.clean.load(Ordering::Acquire) {
            return Verdict::Untouched;
        }
        match self.judge(entry, Some(asked_path)) {
            Verdict::Gone => return Verdict::Gone,
            Verdict::Stale(at) if self.shortened(&entry.head, at).is_some() => return Verdict::Stale(at),
            Verdict::Stale(_) | Verdict::Untouched => {}
        }
        slot.clean.fetch_max(newest, Ordering::AcqRel);
        Verdict::Untouched
    }

    /// Puts the purges in force that are written down.
    pub fn apply_recorded_purges(&self, disk: &Disk) -> Result<(), IndexError> {
        let newest = index::number(&*disk.index, schema::META_SEQUENCE)?;
        index::each(&*disk.index, Column::Purges, &[], None, |key, record| {
            let Ok(sequence) = key.try_into().map(u64::from_be_bytes) else { return };
            // What it purged may not be known any more: then it was everything.
            let purge = schema::decode_purge(record).unwrap_or_else(|| PurgeScope::All.into());
            self.purges.apply(sequence, &purge);
            if matches!(purge.scope, PurgeScope::Glob { .. }) {
                self.sweeps.lock().push(purge.scope);
            }
        })?;
        self.purges.advance(newest.unsigned_abs());
        Ok(())
    }

    // What goes, and what replaces it.

    /// Forgets an entry in memory and on disk.
    pub fn forget(self: &Arc<Self>, entry: &Entry) {
        self.removals.note(entry.id);
        self.hide(entry);
        let (id, full_key) = (entry.id, schema::full_key(entry.key.as_bytes(), &entry.variant.0));
        let shared = self.clone();
        if self.disk.load().is_some() {
            self.tracker.spawn_blocking(move || shared.remove_from_disk(&full_key, id));
        }
    }

    /// Forgets the entry whose body cannot be read.
    pub async fn forget_body(self: &Arc<Self>, body: &SlicedBody) {
        let (id, full_key, shared) = (body.id, body.full_key.clone(), self.clone());
        self.hot.retain(|entry| entry.id != id);
        let _ = self.tracker.spawn_blocking(move || shared.remove_from_disk(&full_key, id)).await;
    }

    /// Blocking.
    pub fn remove_from_disk(&self, full_key: &[u8], id: u64) {
        if let Some(disk) = self.disk.load_full() {
            let removed = self.counted(disk.remove(full_key, id)).flatten();
            self.gone(full_key, removed, id);
        }
    }

    /// An entry is no longer in the index. Memory lets go of its body too, or the disk would not become free.
    pub fn gone(&self, full_key: &[u8], key_length: Option<usize>, id: u64) {
        let parts = key_length.and_then(|length| full_key.split_at_checked(length));
        if let Some((key, variant)) = parts
            && let Some(key) = CacheKey::from_bytes(key)
            && self.live_body(id).is_some()
        {
            let variant = VariantKey(variant.get(2..).unwrap_or_default().into());
            self.hot.remove(&key, &variant, id);
        }
        self.doom(id);
    }

    /// Bytes on disk, without those that become free by themselves.
    pub fn disk_bytes(&self) -> u64 {
        let bytes = self.disk.load().as_ref().map_or(0, |disk| disk.bytes());
        bytes.saturating_sub(self.leaving_bytes.load(Ordering::Relaxed))
    }

    /// Puts a newer form of an entry in its place in memory, if it stands there.
    pub fn replace_in_memory(&self, entry: &Arc<Entry>) {
        self.hot.replace(entry);
        if self.removals.has(entry.id) {
            self.hide(entry);
        }
    }

    /// The head of an entry is replaced; the body stays.
    pub fn freshen(self: &Arc<Self>, entry: &Arc<Entry>, mut head: EntryHead) -> Arc<Entry> {
        // What is asked about may have been found while it came; by now it is whole, and a small one lies in its entry.
        let standing = self.hot.standing(&entry.key, &entry.variant, entry.id);
        let entry = standing.as_ref().unwrap_or(entry);
        head.size = match &entry.body {
            EntryBody::Inline(bytes) => Some(bytes.len() as u64),
            EntryBody::Sliced(body) => head.size.or_else(|| body.size()),
        };
        let fresh = Arc::new(entry.with_head(head));
        // Of purges that were forgotten since it was asked for nothing is known any more.
        let too_old = self.purges.is_before_floor(fresh.head.sequence.0);
        if too_old || self.is_purged(entry, None) || self.is_purged(&fresh, None) {
            return fresh;
        }
        if let EntryBody::Sliced(body) = &fresh.body {
            let mut live = self.live(&fresh.key).write();
            let coming = live.get_mut(&fresh.key).and_then(|all| all.iter_mut().find(|other| other.id == fresh.id));
            if let Some(coming) = coming {
                *coming = fresh.clone();
                body.state.lock().latest = Some(fresh.clone());
            }
        }
        self.replace_in_memory(&fresh);
        let (shared, to_write) = (self.clone(), fresh.clone());
        if self.disk_takes(0) {
            self.tracker.spawn_blocking(move || {
                if let Some(disk) = shared.disk.load_full() {
                    let written = shared.counted(disk.freshen(&shared.as_recorded(&to_write)));
                    // Small ones that the disk has lost meanwhile can be put back whole.
                    if written == Some(false) && matches!(to_write.body, EntryBody::Inline(_)) {
                        shared.commit(&to_write);
                    }
                }
            });
        }
        fresh
    }

    // The disk.

    /// A record: at once if memory has it, else by those who wait for the disk.
    pub async fn record(self: &Arc<Self>, column: Column, key: Vec<u8>) -> Option<Vec<u8>> {
        let disk = self.disk.load_full()?;
        let begun = Instant::now();
        let known = self.known(&disk, column, &key);
        let probing = begun.elapsed();
        if let Some(known) = known {
            self.metrics.cache_index_reads.observe(probing);
            return known;
        }
        let shared = self.clone();
        let read = move || {
            let begun = Instant::now();
            let record = disk.index.get(column, &key).map_err(DiskError::from);
            shared.metrics.cache_index_reads.observe(probing + begun.elapsed());
            shared.counted(record).flatten()
        };
        self.tracker.spawn_blocking_on(read, &self.readers.handle()).await.ok().flatten()
    }

    /// A record or that there is none, if memory has it.
    pub fn known(&self, disk: &Disk, column: Column, key: &[u8]) -> Option<Option<Vec<u8>>> {
        self.readers.try_at_once(|| match disk.index.probe(column, key) {
            Probe::Found(record) => Some(Some(record)),
            Probe::Absent => Some(None),
            Probe::Unknown => None,
        })
    }

    /// Which slices of a body are on disk: the same way.
    pub async fn slices(self: &Arc<Self>, id: u64) -> Option<Runs> {
        let disk = self.disk.load_full()?;
        if let Some(known) = self.readers.try_at_once(|| disk.slices_at_once(id)) {
            return Some(known);
        }
        let shared = self.clone();
        let read = move || shared.counted(disk.slices(id));
        self.tracker.spawn_blocking_on(read, &self.readers.handle()).await.ok()?
    }

    /// An entry as the next run may know it: asked for after no purge that is not written down.
    fn as_recorded(&self, entry: &Arc<Entry>) -> Arc<Entry> {
        let before = self.unrecorded.load(Ordering::Acquire).saturating_sub(1);
        if entry.head.sequence.0 <= before {
            return entry.clone();
        }
        Arc::new(entry.with_head(EntryHead { sequence: PurgeSequence(before), ..entry.head.clone() }))
    }

    /// Blocking: puts an entry into the index, if it was not purged or removed meanwhile.
    pub fn commit(&self, entry: &Arc<Entry>) -> bool {
        let Some(disk) = self.disk.load_full() else { return false };
        let body = match &entry.body {
            EntryBody::Sliced(body) => Some(body),
            EntryBody::Inline(_) => None,
        };
        let doomed = body.is_some_and(|body| body.doomed.load(Ordering::Acquire));
        let verdict = self.judge(entry, None);
        let removed = || self.removals.has(entry.id);
        if doomed || verdict == Verdict::Gone || removed() || self.purges.is_before_floor(entry.head.sequence.0) {
            return false;
        }
        let judged = self.as_recorded(&self.as_judged(entry, verdict));
        match self.written(disk.commit(&judged, self.clock.now())) {
            Some(Committed::Yes { replaced, crowded_out }) => {
                if let Some(body) = body {
                    body.committed.store(true, Ordering::Release);
                }
                for variant in crowded_out {
                    self.metrics.cache_evictions.inc();
                    self.remove_from_disk(&variant.full_key, variant.id);
                }
                if let Some(id) = replaced {
                    self.doom(id);
                }
                if removed() || self.purges.is_before_floor(entry.head.sequence.0) {
                    // Meanwhile: the one that removed it may not have found it, as little as the sweep after which a purge of it was
                    // forgotten.
                    self.remove_from_disk(&schema::full_key(entry.key.as_bytes(), &entry.variant.0), entry.id);
                    return false;
                }
                true
            }
            Some(Committed::Older) | None => false,
        }
    }
}
