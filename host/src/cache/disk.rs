//! The index and the store together: what is committed with what, and how many bytes that is.
//!
//! All functions wait for the disk; they run on the blocking pool. The running total of bytes is changed in the batch that
//! changes what it counts, so that it is right after any crash.

mod bases;
mod bodies;

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::entry::{Entry, EntryBody, EntryHead};
use super::hosts::{Counting, Hosts};
use super::index::rocks::RocksIndex;
use super::index::schema::uses::Uses;
use super::index::schema::{self, EntryRecord, MAX_FIELD_SETS, RecencyKey, RecencyRecord, StoredEntry};
use super::index::{Change, Column, Index, IndexError};
use super::key;
use super::purges::Purge;
use super::store::{Store, layout};
use super::vary::{MAX_VARIANTS, VaryFields};
use super::worth::{self, Ghosts, ONE_USE, Pace, Use};
use crate::clock::Timestamp;

/// What the records of a slice and of recency take beside keys, about.
const AROUND_BYTES: i64 = 64;
const STRIPES: usize = 64;
/// Between a key and its variant; a base has them at its end.
const NULS: usize = 2;
/// Ids that one process may give out: more than it can.
const ID_BLOCK: i64 = 1 << 40;
/// Variants of a key that stay when there are too many: some fewer, so that it is not asked at each who is to go.
const VARIANTS_LEFT: usize = MAX_VARIANTS - MAX_VARIANTS / 8;

/// Why the disk could not do it.
#[derive(Debug, thiserror::Error)]
pub(super) enum DiskError {
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error("body: {0}")]
    Store(#[from] std::io::Error),
    #[error("another program has the cache folder now")]
    HandedOver,
}

impl DiskError {
    /// Whether there was no room.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Store(error) => matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded),
            // RocksDB gives its reasons as text.
            Self::Index(error) => error.to_string().contains("No space left"),
            Self::HandedOver => false,
        }
    }
}

/// The cache folder, open.
#[derive(Debug)]
pub(super) struct Disk {
    pub index: Arc<dyn Index>,
    pub store: Arc<dyn Store>,
    /// Where; none in tests that have no folder.
    pub dir: Option<PathBuf>,
    /// Ids below were given out by earlier processes.
    pub first_id: u64,
    bytes: AtomicI64,
    /// The same by host.
    pub hosts: Hosts,
    /// How long entries lie idle.
    pub pace: Pace,
    /// What was evicted.
    pub ghosts: Mutex<Ghosts>,
    stripes: Box<[Mutex<()>]>,
    /// Of bodies, by their ids: what is counted of slices is looked up before it is written.
    bodies: Box<[Mutex<()>]>,
    /// Another program has the folder: nothing is written there any more.
    handed_over: bool,
    /// The lock on the folder, held until this is dropped.
    lock: Option<std::fs::File>,
    /// Since when a folder is open whose mark is of an older format.
    older: Mutex<Option<Instant>>,
}

fn stripes() -> Box<[Mutex<()>]> {
    (0..STRIPES).map(|_| Mutex::new(())).collect()
}

/// What became of a commit.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Committed {
    /// In the index.
    Yes {
        /// The body with this id was replaced.
        replaced: Option<u64>,
        /// Variants of the key that are one too many: they are for the caller to remove.
        crowded_out: Vec<RecencyRecord>,
    },
    /// A newer response stands there.
    Older,
}

impl Disk {
    /// `lock` is held as long as this lives.
    pub fn new(
        index: Arc<dyn Index>,
        store: Arc<dyn Store>,
        dir: Option<PathBuf>,
        lock: Option<std::fs::File>,
    ) -> Result<Self, IndexError> {
        let bytes = super::index::number(&*index, schema::META_BYTES)?;
        let first_id = super::index::number(&*index, schema::META_NEXT_ID)?.max(1);
        let next =
            Change::Put(Column::Meta, schema::META_NEXT_ID.to_vec(), (first_id + ID_BLOCK).to_be_bytes().to_vec());
        index.write(vec![next], true)?;
        Ok(Self {
            index,
            store,
            dir,
            first_id: first_id.unsigned_abs(),
            bytes: AtomicI64::new(bytes),
            hosts: Hosts::default(),
            pace: Pace::default(),
            ghosts: Mutex::new(Ghosts::new(Ghosts::COUNTERS)),
            stripes: stripes(),
            bodies: stripes(),
            handed_over: false,
            lock,
            older: Mutex::new(None),
        })
    }

    /// The same folder as it is now, for reading alone: another program goes on with it. None where there is no folder.
    pub fn for_reading(&self) -> Result<Option<Self>, DiskError> {
        let Some(dir) = &self.dir else { return Ok(None) };
        self.index.flush()?;
        // Compactions go on while the files are opened.
        self.index.keep_files(true)?;
        let index = match RocksIndex::open_to_read(&dir.join(layout::INDEX)) {
            Ok(index) => index,
            Err(error) => {
                self.index.keep_files(false)?;
                return Err(error.into());
            }
        };
        Ok(Some(Self {
            index: Arc::new(index),
            store: Arc::clone(&self.store),
            dir: Some(dir.clone()),
            first_id: self.first_id,
            bytes: AtomicI64::new(self.bytes.load(Ordering::Relaxed)),
            hosts: Hosts::default(),
            pace: Pace::default(),
            // Nothing is kept or evicted here.
            ghosts: Mutex::new(Ghosts::new(2)),
            stripes: stripes(),
            bodies: stripes(),
            handed_over: true,
            lock: None,
            older: Mutex::new(None),
        }))
    }

    /// The mark is of an older format, whose programs can read all that is here by now.
    pub fn in_older_format(self) -> Self {
        Self { older: Mutex::new(Some(Instant::now())), ..self }
    }

    /// Whether uses may be merged, which older formats do not know: in a folder of such a one after a while, when its mark has been
    /// raised.
    pub fn merges(&self, after: Duration) -> bool {
        let mut older = self.older.lock();
        let Some(since) = *older else { return true };
        if since.elapsed() < after {
            return false;
        }
        let raised = self.lock.as_ref().map_or(Ok(()), layout::raise_mark);
        match raised {
            Ok(()) => *older = None,
            Err(error) => {
                tracing::warn!(%error, "the mark of the cache folder cannot be written");
                *older = Some(Instant::now());
            }
        }
        older.is_none()
    }

    /// Whether the folder is still the one that was opened: somebody may have removed it, or put another one in its place.
    pub fn is_there(&self) -> bool {
        let (Some(dir), Some(lock)) = (&self.dir, &self.lock) else { return true };
        // Numbers of files are not the same everywhere that one file is looked at (overlays).
        let is_unlinked = lock.metadata().is_ok_and(|opened| opened.nlink() == 0);
        let is_missing =
            std::fs::metadata(dir.join(layout::MARK)).is_err_and(|error| error.kind() == ErrorKind::NotFound);
        !is_unlinked && !is_missing
    }

    /// Goes on behind a purge and an id that were given before it was opened, so that none is given twice.
    pub fn go_on_from(&self, sequence: u64, id: u64) -> Result<(), DiskError> {
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let next = super::index::number(&*self.index, schema::META_NEXT_ID)?.max(number(id).saturating_add(ID_BLOCK));
        let put = |key: &[u8], number: i64| Change::Put(Column::Meta, key.to_vec(), number.to_be_bytes().to_vec());
        let changes = vec![put(schema::META_SEQUENCE, number(sequence)), put(schema::META_NEXT_ID, next)];
        Ok(self.index.write(changes, true)?)
    }

    /// Whether another program has the folder.
    pub fn is_handed_over(&self) -> bool {
        self.handed_over
    }

    /// About how many entries there are: what was used, replaced or removed lately may be counted more than once.
    pub fn entries(&self) -> u64 {
        // Column entries would be worse: each variant that comes writes its base anew.
        self.index.estimate(Column::Recency)
    }

    /// Bytes that records and slices take.
    pub fn bytes(&self) -> u64 {
        u64::try_from(self.bytes.load(Ordering::Relaxed)).unwrap_or(0)
    }

    fn write(
        &self,
        counting: &Counting<'_>,
        mut changes: Vec<Change>,
        host: &str,
        delta: i64,
    ) -> Result<(), DiskError> {
        self.writable()?;
        if delta != 0 {
            changes.push(Change::Add(schema::META_BYTES.to_vec(), delta));
            changes.push(Change::Add(schema::host_bytes_key(host), delta));
        }
        self.index.write(changes, false)?;
        self.bytes.fetch_add(delta, Ordering::Relaxed);
        counting.add(host, delta);
        Ok(())
    }

    /// How long entries of a host lie idle, if that is looked at, or else all.
    fn with_pace<T>(&self, host: &str, with: impl FnOnce(&Pace) -> T) -> T {
        match self.hosts.with_budget(host) {
            Some(host) => with(&host.pace),
            None => with(&self.pace),
        }
    }

    /// Uses of an entry of a host, to be merged into what is known of it.
    pub fn uses(&self, host: &str, id: u64, times: u32, size: Option<u64>, now: u64) -> Uses {
        Uses { id, now, times, size, idle_seconds: self.with_pace(host, Pace::idle_seconds) }
    }

    /// What is known of the use of an entry after it was used so many times more.
    fn used_again(&self, record: &RecencyRecord, times: u32, now: u64) -> Use {
        self.with_pace(key::host_of(&record.full_key), |pace| record.of_use().again(times, now, pace))
    }

    fn writable(&self) -> Result<(), DiskError> {
        if self.handed_over { Err(DiskError::HandedOver) } else { Ok(()) }
    }

    /// The lock of a key's records: the base and its variants are changed together.
    fn stripe(&self, key: &[u8]) -> &Mutex<()> {
        &self.stripes[crc32c::crc32c(key) as usize % STRIPES]
    }

    fn record(&self, full_key: &[u8]) -> Result<Option<(EntryRecord, usize)>, DiskError> {
        let record = self.index.get(Column::Entries, full_key)?;
        Ok(record.and_then(|bytes| Some((EntryRecord::decode(&bytes)?, bytes.len()))))
    }

    /// Puts an entry into the index, in the place of an older one.
    pub fn commit(&self, entry: &Entry, at: Timestamp) -> Result<Committed, DiskError> {
        let now = at.as_secs();
        let key = entry.key.as_bytes();
        let full_key = schema::full_key(key, &entry.variant.0);
        let _stripe = self.stripe(key).lock();
        let (old, old_length) = self.record(&full_key)?.unwrap_or_default();
        let mut before = None;
        let mut replaced = None;
        if let Some(old) = &old.entry {
            if old.id != entry.id {
                if old.head.is_newer(old.id, &entry.head, entry.id, at) {
                    return Ok(Committed::Older);
                }
                replaced = Some(old.id);
            }
            before = self.recency(&full_key)?.map(|record| self.used_again(&record, 1, now));
        }
        let (inline, size) = match &entry.body {
            EntryBody::Inline(bytes) => (Some(bytes.clone()), bytes.len() as u64),
            EntryBody::Sliced(body) => (None, body.slices_on_disk() * super::entry::SLICE_BYTES),
        };
        let stored = StoredEntry { id: entry.id, key_length: key.len() as u32, head: entry.head.clone(), inline };
        let mut changes = Vec::with_capacity(4);
        let mut delta = 0;
        let mut crowded_out = Vec::new();
        let own = if entry.variant.0.is_empty() {
            let field_sets = newest_first(&entry.head.vary, old.field_sets);
            EntryRecord { field_sets, entry: Some(stored), variants: old.variants }
        } else {
            let base_key = schema::full_key(key, &[]);
            let (mut base, base_length) = self.record(&base_key)?.unwrap_or_default();
            let had_entry = base.entry.is_some();
            let field_sets = newest_first(&entry.head.vary, with_plain(base.field_sets.clone(), had_entry));
            let variant = schema::recency_key(&full_key);
            let known = base.variants.contains(&variant);
            if !known || field_sets != base.field_sets {
                if !known && base.variants.len() >= MAX_VARIANTS {
                    crowded_out = self.crowd_out(&mut base.variants, now)?;
                }
                if !known {
                    base.variants.push(variant);
                }
                let record = EntryRecord { field_sets, ..base }.encode();
                delta += record.len() as i64 - base_length as i64;
                changes.push(Change::Put(Column::Entries, base_key, record));
            }
            EntryRecord { entry: Some(stored), ..EntryRecord::default() }
        };
        let record = own.encode();
        delta += record.len() as i64 - old_length as i64;
        if old.entry.is_none() {
            delta += full_key.len() as i64 * 2 + AROUND_BYTES;
        }
        let place = schema::recency_key(&full_key);
        let used = match before {
            Some(before) => before,
            // That it was evicted, and how often it was used before, counts for it.
            None => {
                let uses = (1 + self.ghosts.lock().uses(u128::from_be_bytes(place))) * ONE_USE;
                Use { last_use: now, uses, size, id: entry.id }
            }
        };
        let Use { last_use, uses, .. } = used;
        let is_error = entry.head.status.as_u16() >= 400;
        let recency = RecencyRecord { last_use, uses, size, id: entry.id, is_error, full_key: full_key.clone() };
        changes.push(Change::Put(Column::Recency, place.to_vec(), recency.encode()));
        changes.push(Change::Put(Column::Entries, full_key, record));
        let counting = self.hosts.counting();
        if let Some(place) = counting.place(entry.key.host(), &place) {
            changes.push(Change::Put(Column::Budgets, place.to_vec(), Vec::new()));
        }
        self.write(&counting, changes, entry.key.host(), delta)?;
        Ok(Committed::Yes { replaced, crowded_out })
    }

    /// Takes those out of a list of variants that are least worth keeping, and tells which are still there to be removed.
    fn crowd_out(&self, variants: &mut Vec<RecencyKey>, now: u64) -> Result<Vec<RecencyRecord>, DiskError> {
        let mut kept = Vec::with_capacity(variants.len());
        for variant in variants.iter() {
            let record = self.index.get(Column::Recency, variant)?;
            // Those without a record are gone already.
            kept.extend(record.and_then(|record| RecencyRecord::decode(&record)).map(|record| (*variant, record)));
        }
        let sample: Vec<Use> = kept.iter().map(|(_, record)| record.of_use()).collect();
        let mut worst = worth::order_to_go(&sample, now, &self.pace);
        worst.truncate(kept.len().saturating_sub(VARIANTS_LEFT));
        let mut out = Vec::with_capacity(worst.len());
        variants.clear();
        for (at, (variant, record)) in kept.into_iter().enumerate() {
            if worst.contains(&at) {
                out.push(record);
            } else {
                variants.push(variant);
            }
        }
        Ok(out)
    }

    /// Replaces the head of an entry that is in the index; false if it is not.
    pub fn freshen(&self, entry: &Entry) -> Result<bool, DiskError> {
        let key = entry.key.as_bytes();
        let full_key = schema::full_key(key, &entry.variant.0);
        let _stripe = self.stripe(key).lock();
        let Some((record, old_length)) = self.record(&full_key)? else { return Ok(false) };
        let Some(stored) = record.entry.clone().filter(|stored| stored.id == entry.id) else { return Ok(false) };
        // Where the length was not known yet when this was judged, and is by now.
        let size = entry.head.size.or(stored.head.size);
        let stored = StoredEntry { head: EntryHead { size, ..entry.head.clone() }, ..stored };
        let record = EntryRecord { entry: Some(stored), ..record }.encode();
        let delta = record.len() as i64 - old_length as i64;
        self.write(
            &self.hosts.counting(),
            vec![Change::Put(Column::Entries, full_key, record)],
            entry.key.host(),
            delta,
        )?;
        Ok(true)
    }

    /// Takes an entry out of the index if it is still this one. Returns the
    /// length of its key if that was so: the body is for the caller to reclaim.
    pub fn remove(&self, full_key: &[u8], id: u64) -> Result<Option<usize>, DiskError> {
        let Some(bytes) = self.index.get(Column::Entries, full_key)? else { return Ok(None) };
        let key_length = match EntryRecord::decode(&bytes) {
            Some(EntryRecord { entry: Some(entry), .. }) => entry.key_length as usize,
            _ => return Ok(None),
        };
        let _stripe = self.stripe(full_key.get(..key_length).unwrap_or(full_key)).lock();
        // Once more, under the lock.
        let Some((record, length)) = self.record(full_key)? else { return Ok(None) };
        if record.entry.as_ref().is_none_or(|entry| entry.id != id) {
            return Ok(None);
        }
        let mut delta = -(length as i64 + full_key.len() as i64 * 2 + AROUND_BYTES);
        let others: Vec<_> = record.field_sets.into_iter().filter(|set| !set.0.is_empty()).collect();
        let change = if others.is_empty() || !self.is_any_kept(&record.variants)? {
            Change::Delete(Column::Entries, full_key.to_vec())
        } else {
            let base = EntryRecord { field_sets: others, entry: None, variants: record.variants }.encode();
            delta += base.len() as i64;
            Change::Put(Column::Entries, full_key.to_vec(), base)
        };
        let (host, place) = (key::host_of(full_key), schema::recency_key(full_key));
        let mut changes = vec![change, Change::Delete(Column::Recency, place.to_vec())];
        if let Some(key) = full_key.get(..key_length).filter(|key| key.len() + NULS < full_key.len())
            && let Some((base, grows)) = self.base_without(key, &place)?
        {
            changes.push(base);
            delta += grows;
        }
        let counting = self.hosts.counting();
        if let Some(place) = counting.place(host, &place) {
            changes.push(Change::Delete(Column::Budgets, place.to_vec()));
        }
        self.write(&counting, changes, host, delta)?;
        Ok(Some(key_length))
    }

    /// Removes a record that does not decode.
    pub fn drop_record(&self, full_key: &[u8]) -> Result<(), DiskError> {
        let Some(bytes) = self.index.get(Column::Entries, full_key)? else { return Ok(()) };
        if EntryRecord::decode(&bytes).is_some() {
            return Ok(());
        }
        let change = Change::Delete(Column::Entries, full_key.to_vec());
        self.write(&self.hosts.counting(), vec![change], key::host_of(full_key), -(bytes.len() as i64))
    }

    /// The use of an entry.
    pub fn recency(&self, full_key: &[u8]) -> Result<Option<RecencyRecord>, DiskError> {
        let record = self.index.get(Column::Recency, &schema::recency_key(full_key))?;
        Ok(record.and_then(|record| RecencyRecord::decode(&record)))
    }

    /// Writes a purge down, safe against a power cut.
    pub fn record_purges(&self, first: u64, purges: &[Purge], synced: bool) -> Result<(), DiskError> {
        self.writable()?;
        let mut changes = Vec::with_capacity(purges.len() + 1);
        let mut last = first;
        for (sequence, purge) in (first..).zip(purges) {
            changes.push(Change::Put(Column::Purges, sequence.to_be_bytes().to_vec(), schema::encode_purge(purge)));
            last = sequence;
        }
        let number = i64::try_from(last).unwrap_or(i64::MAX);
        changes.push(Change::Put(Column::Meta, schema::META_SEQUENCE.to_vec(), number.to_be_bytes().to_vec()));
        Ok(self.index.write(changes, synced)?)
    }

    /// Makes an entry live no longer than that, if it is still this one.
    pub fn shorten(&self, full_key: &[u8], entry: &StoredEntry, lifetime: Duration) -> Result<(), DiskError> {
        let _stripe = self.stripe(full_key.get(..entry.key_length as usize).unwrap_or(full_key)).lock();
        let Some((mut record, _)) = self.record(full_key)? else { return Ok(()) };
        let same = |stored: &&mut StoredEntry| stored.id == entry.id && stored.head.sequence == entry.head.sequence;
        let Some(stored) = record.entry.as_mut().filter(same) else { return Ok(()) };
        stored.head.retention.lifetime = stored.head.retention.lifetime.min(lifetime);
        // A record of the same length.
        let change = Change::Put(Column::Entries, full_key.to_vec(), record.encode());
        self.write(&self.hosts.counting(), vec![change], key::host_of(full_key), 0)
    }
}

/// Field sets with the newest in front.
fn newest_first(newest: &VaryFields, mut sets: Vec<VaryFields>) -> Vec<VaryFields> {
    if sets.is_empty() && newest.0.is_empty() {
        return sets;
    }
    sets.retain(|set| set != newest);
    sets.insert(0, newest.clone());
    sets.truncate(MAX_FIELD_SETS);
    sets
}

/// A base without sets that has an entry has, tacitly, the empty set.
fn with_plain(sets: Vec<VaryFields>, has_entry: bool) -> Vec<VaryFields> {
    if sets.is_empty() && has_entry { vec![VaryFields::default()] } else { sets }
}
