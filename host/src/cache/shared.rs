//! What all parts of the cache share, and the operations that touch several of them.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use http::HeaderMap;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::body::{BodyParts, Fill, SlicedBody};
use super::disk::{CHUNK, Committed, Disk, DiskError};
use super::disk_use::{self, DiskState};
use super::entry::{Entry, EntryBody, EntryHead, SLICE_BYTES};
use super::fill::Flights;
use super::front::{self, Front};
use super::hot::{Hot, Slot};
use super::index::schema::{self, SliceRecord};
use super::index::{self, Column, IndexError, Probe};
use super::key::CacheKey;
use super::purge_table::{PurgeTable, Verdict};
use super::purges::{PurgeListener, PurgeScope};
use super::purging::Custody;
use super::runs::Runs;
use super::scrub::Scrub;
use super::vary::{VariantKey, VaryFields};
use super::writer::Writer;
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
    /// What the file system has room for, as it was last looked at.
    pub disk_ceiling: AtomicU64,
    /// The most that a fill waits for room for: eviction makes so much beyond what is used.
    pub room_wanted: AtomicU64,
    pub ids: AtomicU64,
    /// One purge at a time, so that they come into force in their order.
    pub purging: tokio::sync::Mutex<()>,
    /// Scopes whose entries are to be removed from the disk.
    pub sweeps: Mutex<Vec<PurgeScope>>,
    /// Changes when purges are forgotten: what was read from disk before may be purged and not look so.
    pub forgotten: AtomicU64,
    pub doomed: Mutex<Vec<u64>>,
    /// Bytes of bodies whose entries are gone and that are still read: they will be free without more eviction.
    pub leaving_bytes: AtomicU64,
    pub wake: Notify,
    pub room: Notify,
    pub tracker: TaskTracker,
    /// Ends the work in the background; another one when it begins anew.
    pub cancel: ArcSwap<CancellationToken>,
    /// Who has the folder. It changes with the turn of `purging`.
    pub custody: watch::Sender<Custody>,
    /// Who else is to know of purges before they are answered.
    pub purge_listener: ArcSwapOption<PurgeListener>,
    live: Box<[Live]>,
    bodies: Box<[Bodies]>,
    noted: Box<[Mutex<Vec<Arc<Slot>>>]>,
    next_note: AtomicUsize,
    pub fills: AtomicU64,
    pub scrub: Scrub,
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
            room_wanted: AtomicU64::new(0),
            ids: AtomicU64::new(first_id),
            purging: tokio::sync::Mutex::new(()),
            sweeps: Mutex::default(),
            forgotten: AtomicU64::new(0),
            doomed: Mutex::default(),
            leaving_bytes: AtomicU64::new(0),
            wake: Notify::new(),
            room: Notify::new(),
            tracker: TaskTracker::new(),
            cancel: ArcSwap::from_pointee(CancellationToken::new()),
            custody: watch::Sender::new(Custody::Here),
            purge_listener: ArcSwapOption::empty(),
            live: sharded(),
            bodies: sharded(),
            noted: sharded(),
            next_note: AtomicUsize::new(0),
            fills: AtomicU64::new(0),
            scrub: Scrub::default(),
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
        let mut from = Vec::new();
        loop {
            let records = disk.index.scan(Column::Purges, &from, None, CHUNK)?;
            for (key, record) in &records {
                let Ok(sequence) = key.as_slice().try_into().map(u64::from_be_bytes) else { continue };
                // What it purged may not be known any more: then it was everything.
                let purge = schema::decode_purge(record).unwrap_or_else(|| PurgeScope::All.into());
                self.purges.apply(sequence, &purge);
                if matches!(purge.scope, PurgeScope::Glob { .. }) {
                    self.sweeps.lock().push(purge.scope);
                }
            }
            match records.into_iter().last() {
                Some((last, _)) => from = [last.as_slice(), &[0]].concat(),
                None => break,
            }
        }
        self.purges.advance(newest.unsigned_abs());
        Ok(())
    }

    // Entries in memory and fills under way.

    /// An entry in memory, or one that is coming.
    pub fn find(&self, key: &CacheKey, headers: &HeaderMap, request_path: &str) -> Option<Arc<Entry>> {
        let hash = self.hot.hash(key);
        let untold = match front::find(self, key, hash, request_path) {
            Front::Entry(entry) => return Some(entry),
            Front::Ask(untold) => untold,
        };
        let found = self.hot.select(
            key,
            |set| VariantKey::of(set, headers),
            |slot, alone| {
                match self.judge_slot(slot, request_path) {
                    Verdict::Untouched => {}
                    Verdict::Gone => return None,
                    Verdict::Stale(at) => return Some(self.stale_in_memory(&slot.entry, at)),
                }
                self.note_use(slot, untold + 1);
                if alone {
                    front::offer(self, hash, slot);
                }
                Some(slot.entry.clone())
            },
        );
        found.or_else(|| {
            let live = self.live(key).read();
            // Made once for many that vary by the same fields.
            let mut wanted: Option<(&VaryFields, VariantKey)> = None;
            for entry in live.get(key)?.iter().rev() {
                let set = &entry.head.vary;
                let variant = match wanted.take() {
                    Some((of, variant)) if of == set => variant,
                    _ => VariantKey::of(set, headers),
                };
                // Of what purges said before the floor nothing is known any more.
                if variant == entry.variant && !self.purges.is_before_floor(entry.head.sequence.0) {
                    match self.judge(entry, Some(request_path)) {
                        Verdict::Gone => {}
                        verdict => return Some(self.as_judged(entry, verdict)),
                    }
                }
                wanted = Some((set, variant));
            }
            None
        })
    }

    fn note_use(&self, slot: &Arc<Slot>, uses: u32) {
        slot.uses.fetch_add(uses, Ordering::Relaxed);
        if !slot.noted.load(Ordering::Relaxed) && !slot.noted.swap(true, Ordering::Relaxed) {
            // Once for each entry and flush, and never waiting for another.
            let buffer = self.next_note.fetch_add(1, Ordering::Relaxed) % SHARDS;
            match self.noted[buffer].try_lock() {
                Some(mut noted) if noted.len() < MAX_NOTED => noted.push(slot.clone()),
                _ => slot.noted.store(false, Ordering::Relaxed),
            }
        }
    }

    /// Takes what was used since the last time.
    pub fn take_noted(&self) -> Vec<Arc<Slot>> {
        self.noted.iter().flat_map(|noted| std::mem::take(&mut *noted.lock())).collect()
    }

    /// Begins to keep a response.
    pub fn begin(
        self: &Arc<Self>,
        key: &CacheKey,
        request: &HeaderMap,
        head: EntryHead,
        slices: Option<Range<u64>>,
    ) -> (Arc<Entry>, Option<Writer>) {
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let variant = VariantKey::of(&head.vary, request);
        let empty = head.size == Some(0);
        let full_key = schema::full_key(key.as_bytes(), &variant.0);
        let (size, sliceable) = (head.size, head.sliceable);
        let mut entry =
            Entry { id, key: key.clone(), variant, head, body: EntryBody::Inline(Bytes::new()), ready: None };
        let refused = self.is_purged(&entry, None) || self.purges.is_before_floor(entry.head.sequence.0);
        // A part can only be kept of a body that may be completed.
        let part = slices.is_some();
        if refused || self.is_closing() || (part && !(sliceable && size.is_some())) {
            return (Arc::new(entry), None);
        }
        if empty {
            let entry = Arc::new(entry);
            self.show(&entry);
            let (shared, to_commit) = (self.clone(), entry.clone());
            if self.disk_takes(0) {
                self.tracker.spawn_blocking(move || shared.commit(&to_commit));
            }
            return (entry, None);
        }
        let parts = BodyParts { id, size, sliceable, full_key, present: Runs::default(), committed: false };
        let body = SlicedBody::new(self, parts);
        self.bodies(id).lock().insert(id, Arc::downgrade(&body));
        let last = size.map(|size| size.div_ceil(SLICE_BYTES));
        let slices = slices.map(|slices| slices.start..slices.end.min(last.unwrap_or(u64::MAX)));
        let (first, end) = slices.map_or((0, last), |slices| (slices.start, Some(slices.end)));
        let position = first * SLICE_BYTES;
        let number = {
            let mut state = body.state.lock();
            let number = state.number();
            state.fills.push(Fill { number, slice: first, end, pieces: Vec::new(), position });
            number
        };
        let limit = size.map(|size| end.map_or(size, |end| (end * SLICE_BYTES).min(size)));
        body.filling.store(true, Ordering::Release);
        entry.body = EntryBody::Sliced(body.clone());
        let entry = Arc::new(entry);
        self.fills.fetch_add(1, Ordering::Relaxed);
        self.live(key).write().entry(key.clone()).or_default().push(entry.clone());
        self.hot.insert(&entry, &[], false);
        (entry.clone(), Some(Writer::of_entry(self.clone(), entry, body, number, position, limit)))
    }

    /// The first fill of an entry is over.
    pub fn filled(&self, entry: &Entry) {
        let mut live = self.live(&entry.key).write();
        if let Some(entries) = live.get_mut(&entry.key) {
            let before = entries.len();
            entries.retain(|other| other.id != entry.id);
            if entries.len() < before {
                self.fills.fetch_sub(1, Ordering::Relaxed);
            }
            if entries.is_empty() {
                live.remove(&entry.key);
            }
        }
        drop(live);
        if let EntryBody::Sliced(body) = &entry.body {
            body.filling.store(false, Ordering::Release);
        }
    }

    /// Puts an entry into the memory tier, unless something newer stands there.
    pub fn show(&self, entry: &Arc<Entry>) {
        let newer = self.hot.select(
            &entry.key,
            |_| entry.variant.clone(),
            |slot, _| {
                let other = &slot.entry;
                (other.variant == entry.variant
                    && other.id != entry.id
                    && other.head.moment(other.id) > entry.head.moment(entry.id))
                .then_some(())
            },
        );
        let too_old = || self.purges.is_before_floor(entry.head.sequence.0);
        if newer.is_none() && !too_old() {
            self.hot.insert(entry, &[], false);
            // Purges may have been forgotten in this moment.
            if too_old() {
                self.hot.remove(&entry.key, &entry.variant, entry.id);
            }
        }
    }

    /// Nobody new shall find an entry; those who read it go on.
    pub fn hide(&self, entry: &Entry) {
        self.hot.remove(&entry.key, &entry.variant, entry.id);
        if let Some(entries) = self.live(&entry.key).write().get_mut(&entry.key) {
            let before = entries.len();
            entries.retain(|other| other.id != entry.id);
            if entries.len() < before {
                self.fills.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// Forgets an entry in memory and on disk.
    pub fn forget(self: &Arc<Self>, entry: &Entry) {
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

    /// The head of an entry is replaced; the body stays.
    pub fn freshen(self: &Arc<Self>, entry: &Arc<Entry>, mut head: EntryHead) -> Arc<Entry> {
        if let EntryBody::Inline(bytes) = &entry.body {
            head.size = Some(bytes.len() as u64);
        }
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
        self.hot.replace(&fresh);
        let (shared, to_write) = (self.clone(), fresh.clone());
        if self.disk_takes(0) {
            self.tracker.spawn_blocking(move || {
                if let Some(disk) = shared.disk.load_full() {
                    let written = shared.counted(disk.freshen(&to_write));
                    // Small ones that the disk has lost meanwhile can be put back whole.
                    if written == Some(false) && matches!(to_write.body, EntryBody::Inline(_)) {
                        shared.commit(&to_write);
                    }
                }
            });
        }
        fresh
    }

    // Bodies.

    /// The body of an entry on disk: the one that is in use, or a new one.
    pub fn body_for(self: &Arc<Self>, parts: BodyParts) -> Arc<SlicedBody> {
        let mut bodies = self.bodies(parts.id).lock();
        if let Some(body) = bodies.get(&parts.id).and_then(Weak::upgrade) {
            return body;
        }
        let id = parts.id;
        let body = SlicedBody::new(self, parts);
        bodies.insert(id, Arc::downgrade(&body));
        body
    }

    /// The body in use with this id.
    pub fn live_body(&self, id: u64) -> Option<Arc<SlicedBody>> {
        self.bodies(id).lock().get(&id).and_then(Weak::upgrade)
    }

    /// The last who used a body is gone.
    pub fn body_dropped(&self, body: &SlicedBody) {
        let mut bodies = self.bodies(body.id).lock();
        // Another may have been made of the same entry in this moment.
        if bodies.get(&body.id).is_some_and(|other| other.strong_count() == 0) {
            bodies.remove(&body.id);
            let garbage = body.stored.load(Ordering::Acquire) && !body.committed.load(Ordering::Acquire);
            if garbage || body.doomed.load(Ordering::Acquire) {
                self.leaving_bytes.fetch_sub(body.doomed_bytes.load(Ordering::Acquire), Ordering::AcqRel);
                self.doomed.lock().push(body.id);
                self.wake.notify_one();
            }
        }
    }

    /// The entry of a body is gone: the body follows when nobody reads it.
    pub fn doom(&self, id: u64) {
        let bodies = self.bodies(id).lock();
        // Upgraded while locked; dropped after, for the last one takes the same lock.
        let body = bodies.get(&id).and_then(Weak::upgrade);
        if let Some(body) = &body {
            if !body.doomed.swap(true, Ordering::AcqRel) {
                let bytes = body.slices_on_disk() * SLICE_BYTES;
                body.doomed_bytes.store(bytes, Ordering::Release);
                self.leaving_bytes.fetch_add(bytes, Ordering::AcqRel);
            }
        } else {
            self.doomed.lock().push(id);
            self.wake.notify_one();
        }
        drop(bodies);
    }

    // The disk.

    /// A record: from the block cache if it is there, else on the blocking pool.
    pub async fn record(self: &Arc<Self>, column: Column, key: Vec<u8>) -> Option<Vec<u8>> {
        let disk = self.disk.load_full()?;
        match disk.index.probe(column, &key) {
            Probe::Found(record) => Some(record),
            Probe::Absent => None,
            Probe::Unknown => {
                let shared = self.clone();
                let read = move || shared.counted(disk.index.get(column, &key).map_err(DiskError::from)).flatten();
                self.tracker.spawn_blocking(read).await.ok().flatten()
            }
        }
    }

    /// A slice from disk, checked.
    pub async fn load_slice(self: &Arc<Self>, id: u64, slice: u64) -> Option<Bytes> {
        let disk = self.disk.load_full()?;
        let key = schema::slice_key(id, u32::try_from(slice).ok()?);
        if let Probe::Found(record) = disk.index.probe(Column::Slices, &key)
            && let Some(record) = SliceRecord::decode(&record)
            && let Some(bytes) = disk.store.read_now(id, slice * SLICE_BYTES, record.length as usize)
            && record.matches(&bytes)
        {
            return Some(bytes);
        }
        let shared = self.clone();
        let read = move || {
            let record = shared.counted(disk.index.get(Column::Slices, &key).map_err(DiskError::from))??;
            let record = SliceRecord::decode(&record);
            let read = |record: SliceRecord| {
                let bytes = disk.store.read(id, slice * SLICE_BYTES, record.length as usize).ok()?;
                record.matches(&bytes).then_some(bytes)
            };
            let bytes = record.and_then(read);
            if bytes.is_none() {
                shared.slice_is_bad(&disk, id, slice);
            }
            bytes
        };
        self.tracker.spawn_blocking(read).await.ok().flatten()
    }

    /// Blocking: forgets a slice that is not what it was.
    pub fn slice_is_bad(&self, disk: &Disk, id: u64, slice: u64) {
        self.metrics.cache_corruptions.inc();
        tracing::warn!(body = id, slice, "a slice on disk is damaged or gone; it will be fetched again");
        self.counted(disk.drop_slice(id, slice));
    }

    /// Blocking: stores a slice. False if the disk did not take it.
    pub fn store_slice(&self, body: &SlicedBody, slice: u64, bytes: &[u8]) -> bool {
        let Some(disk) = self.disk.load_full() else { return false };
        self.written(disk.store_slice(body.id, &body.full_key, slice, bytes)).is_some()
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
        if doomed || verdict == Verdict::Gone || self.purges.is_before_floor(entry.head.sequence.0) {
            return false;
        }
        let judged = self.as_judged(entry, verdict);
        match self.written(disk.commit(&judged, self.clock.now().as_secs())) {
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
                true
            }
            Some(Committed::Older) | None => false,
        }
    }
}
