//! Work in the background: writing down uses, evicting, removing what was purged and what was left behind.
//!
//! One task, which ends when the cache is closed or dropped. Each round is short, on the blocking pool; long work goes on in
//! the next round.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::disk::{Disk, DiskError};
use super::entry::Entry;
use super::eviction;
use super::front;
use super::glob::Glob;
use super::host_walk;
use super::index::schema::{self, EntryRecord, StoredEntry};
use super::index::{self, CHUNK, Change, Column, after_prefix};
use super::key;
use super::purge_table::{Marks, Verdict};
use super::purges::PurgeScope;
use super::recovery;
use super::scrub;
use super::shared::Shared;

/// Between rounds, when nothing wakes it.
const ROUND: Duration = Duration::from_secs(1);
/// Rounds between two flushes of uses.
const FLUSH_ROUNDS: u64 = 5;
/// ... and, while there is so much to evict that a round does not end, rounds of evictions.
const FLUSH_EVICTIONS: u64 = 16;
/// So many purges are remembered; past that all entries are judged once and the purges forgotten.
pub(super) const MAX_PURGES: u64 = 100_000;
/// Scopes that wait to be swept; more are swept when there are too many purges to remember.
pub(super) const MAX_SWEEPS: usize = 100_000;
/// Records of entries that are read in one go: they have bodies in them.
pub(super) const PART: usize = CHUNK / 4;
/// Between parts of a sweep: it must not be felt.
pub(super) const SWEEP_PAUSE: Duration = Duration::from_millis(20);

/// Starts the task.
pub(super) fn start(shared: &Arc<Shared>) {
    let cancel = CancellationToken::clone(&shared.cancel.load());
    let rounds = run(Arc::downgrade(shared), cancel.clone());
    let sweeps = sweep_all(Arc::downgrade(shared), cancel.clone());
    let scrub = scrub::run(Arc::downgrade(shared), cancel.clone());
    let garbage = collect(Arc::downgrade(shared), cancel);
    shared.tracker.spawn(rounds);
    shared.tracker.spawn(sweeps);
    shared.tracker.spawn(scrub);
    shared.tracker.spawn(garbage);
}

/// Does something on the blocking pool; none if the cache is gone.
pub(super) async fn blocking<T: Send + 'static>(
    shared: &Weak<Shared>,
    work: impl FnOnce(&Arc<Shared>) -> T + Send + 'static,
) -> Option<T> {
    let shared = shared.upgrade()?;
    tokio::task::spawn_blocking(move || work(&shared)).await.ok()
}

async fn run(shared: Weak<Shared>, cancel: CancellationToken) {
    for round in 1u64.. {
        if let Some(shared) = shared.upgrade() {
            let woken = async {
                let _ = tokio::time::timeout(ROUND, shared.wake.notified()).await;
            };
            tokio::select! {
                () = woken => {}
                () = cancel.cancelled() => return,
            }
        }
        let work = move |shared: &Arc<Shared>| {
            front::tidy(shared, false);
            eviction::reclaim(shared);
            if let Some(disk) = shared.disk.load_full() {
                shared.configure_hosts(&disk);
            }
            shared.measure_space();
            if let Some(region) = shared.hot.region() {
                region.watch();
            }
            let mut evictions = 0u64;
            while eviction::evict(shared) && !shared.is_closing() {
                evictions += 1;
                // What is used while a crawl presses must be seen to be used.
                if evictions.is_multiple_of(FLUSH_EVICTIONS) {
                    front::tidy(shared, false);
                    eviction::flush_uses(shared);
                }
            }
            if round.is_multiple_of(FLUSH_ROUNDS) {
                eviction::flush_uses(shared);
                shared.hot.share();
            }
            gauge(shared);
        };
        if blocking(&shared, work).await.is_none() {
            return;
        }
    }
}

fn gauge(shared: &Shared) {
    let metrics = &shared.metrics;
    let disk = shared.disk.load();
    metrics.cache_disk_bytes.set(disk.as_ref().map_or(0, |disk| disk.bytes()).cast_signed());
    metrics.cache_entries.set(disk.as_ref().map_or(0, |disk| disk.entries()).cast_signed());
    metrics.cache_memory_bytes.set(shared.hot.bytes().cast_signed());
}

/// Removes the entries that purges hit, host by host; and when there are too many purges to remember, all of them, and then
/// the purges.
async fn sweep_all(shared: Weak<Shared>, cancel: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(ROUND) => {}
            () = cancel.cancelled() => return,
        }
        let Some(strong) = shared.upgrade() else { return };
        let scopes = std::mem::take(&mut *strong.sweeps.lock());
        let too_many = strong.purges.records() > MAX_PURGES || strong.purges.is_full();
        let newest = strong.purges.newest();
        drop(strong);
        host_walk::walk(&shared, &cancel).await;
        if too_many {
            forget_all(&shared, &cancel, newest).await;
            continue;
        }
        let (globs, others): (Vec<_>, Vec<_>) =
            scopes.into_iter().partition(|scope| matches!(scope, PurgeScope::Glob { .. }));
        for start in outermost(others.iter().map(range_of).collect()) {
            let end = after_prefix(&start);
            sweep(&shared, &cancel, &start, end.as_deref(), Soft::Stays).await;
        }
        let mut again = Vec::new();
        for start in outermost(globs.iter().map(range_of).collect()) {
            let end = after_prefix(&start);
            let swept = sweep(&shared, &cancel, &start, end.as_deref(), Soft::IsWrittenDown).await;
            if !swept {
                again.extend(globs.iter().filter(|scope| range_of(scope) == start).cloned());
            } else if let Some(shared) = shared.upgrade()
                && let Some(host) = start.strip_suffix(&[0]).and_then(|host| std::str::from_utf8(host).ok())
            {
                shared.purges.globs_applied(host, newest);
            }
        }
        if let Some(shared) = shared.upgrade() {
            shared.sweeps.lock().extend(again);
        }
    }
}

/// Judges everything on disk, and forgets the purges up to `newest`.
pub(super) async fn forget_all(shared: &Weak<Shared>, cancel: &CancellationToken, newest: u64) {
    if sweep(shared, cancel, &[], None, Soft::IsWrittenDown).await {
        forget_purges(shared, newest).await;
    }
}

/// The ranges that lie in no other.
fn outermost(mut ranges: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    ranges.sort();
    ranges.dedup_by(|next, before| next.starts_with(before));
    ranges
}

/// What a sweep does with what a soft purge hits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Soft {
    /// It is judged when it is looked up.
    Stays,
    /// It will be stale by itself: the purge is about to be forgotten.
    IsWrittenDown,
}

/// What the keys begin with that a purge may hit. Entries that it hits by another name than their key's are found when they
/// are looked up, or evicted; with a pattern all of the host is looked at, since that is what lets it be forgotten.
fn range_of(scope: &PurgeScope) -> Vec<u8> {
    match scope {
        PurgeScope::All | PurgeScope::TagEverywhere { .. } => Vec::new(),
        PurgeScope::Host { host } | PurgeScope::Tag { host, .. } | PurgeScope::Glob { host, .. } => {
            key::host_range(host)
        }
        PurgeScope::Prefix { host, prefix } => key::prefix_range(host, prefix),
        PurgeScope::Path { host, path } => key::path_range(host, path),
    }
}

/// The same for counting: with a pattern, what it begins with.
pub(super) fn narrow_range_of(scope: &PurgeScope) -> Vec<u8> {
    match scope {
        PurgeScope::Glob { host, glob } => {
            key::prefix_range(host, &Glob::parse(glob).map(|glob| glob.prefix()).unwrap_or_default())
        }
        scope => range_of(scope),
    }
}

/// Judges all entries of a range. Returns whether it came to the end.
async fn sweep(
    shared: &Weak<Shared>,
    cancel: &CancellationToken,
    start: &[u8],
    end: Option<&[u8]>,
    soft: Soft,
) -> bool {
    let mut from = start.to_vec();
    loop {
        if let Some(shared) = shared.upgrade()
            && shared.disk.load().is_none()
        {
            // Nothing is kept but in memory, and what lies on the disk does not come back.
            return !cancel.is_cancelled() && !shared.disk_state.lock().unreachable_index;
        }
        let end = end.map(<[u8]>::to_vec);
        let part = move |shared: &Arc<Shared>| sweep_part(shared, &from, end.as_deref(), soft);
        match blocking(shared, part).await.flatten() {
            Some(Some(next)) => from = next,
            Some(None) => return true,
            None => return false,
        }
        tokio::select! {
            () = tokio::time::sleep(SWEEP_PAUSE) => {}
            () = cancel.cancelled() => return false,
        }
    }
}

/// None: the disk failed. Some(None): that was the end.
fn sweep_part(shared: &Arc<Shared>, from: &[u8], end: Option<&[u8]>, soft: Soft) -> Option<Option<Vec<u8>>> {
    let disk = shared.disk.load_full()?;
    let records = shared.counted(disk.index.scan(Column::Entries, from, end, PART).map_err(DiskError::from))?;
    for (full_key, value) in &records {
        match EntryRecord::decode(value) {
            Some(EntryRecord { entry: Some(entry), .. }) => {
                match shared.purges.judge(&marks_of(full_key, &entry), entry.head.sequence.0) {
                    // What could not be removed must not be taken for removed: the purge is forgotten after this.
                    Verdict::Gone => {
                        let removed = shared.counted(disk.remove(full_key, entry.id))?;
                        shared.gone(full_key, removed, entry.id);
                    }
                    Verdict::Stale(at) if soft == Soft::IsWrittenDown => {
                        if let Some(lifetime) = shared.shortened(&entry.head, at) {
                            shared.written(disk.shorten(full_key, &entry, lifetime))?;
                        }
                    }
                    Verdict::Stale(_) | Verdict::Untouched => {}
                }
            }
            Some(EntryRecord { entry: None, .. }) => drop(shared.counted(disk.drop_idle_base(full_key))),
            None => {
                shared.metrics.cache_corruptions.inc();
                shared.counted(disk.drop_record(full_key));
            }
        }
    }
    let more = records.len() == PART;
    Some(records.last().filter(|_| more).map(|(last, _)| index::after(last)))
}

/// What purges may hit an entry of the index by.
pub(super) fn marks_of<'a>(full_key: &'a [u8], entry: &'a StoredEntry) -> Marks<'a> {
    let mut parts = full_key.get(..entry.key_length as usize).unwrap_or(full_key).split(|byte| *byte == 0);
    let host = parts.next().and_then(|host| std::str::from_utf8(host).ok()).unwrap_or_default();
    let path = parts.next().and_then(|path| std::str::from_utf8(path).ok());
    let head = &entry.head;
    let paths = [path, Some(head.request_path.as_str()), head.origin_path.as_deref(), None];
    Marks { host, paths, tags: &head.tags }
}

/// Forgets purges up to `sequence`, whose entries are gone from the disk by now.
async fn forget_purges(shared: &Weak<Shared>, sequence: u64) {
    let work = move |shared: &Arc<Shared>| {
        forget_in_memory(shared, || shared.purges.forget(sequence));
        let Some(disk) = shared.disk.load_full() else { return };
        while let Some(records) = shared.counted(
            disk.index.scan(Column::Purges, &[], Some(&(sequence + 1).to_be_bytes()), CHUNK).map_err(DiskError::from),
        ) {
            let removals: Vec<_> = records.into_iter().map(|(key, _)| Change::Delete(Column::Purges, key)).collect();
            if removals.is_empty()
                || shared.written(disk.index.write(removals, false).map_err(DiskError::from)).is_none()
            {
                break;
            }
        }
    };
    blocking(shared, work).await;
}

/// Forgets purges whose entries are gone from the disk, or stale there by themselves. The same goes for what is in memory first.
fn forget_in_memory<T>(shared: &Shared, forget: impl FnOnce() -> T) -> T {
    let untouched = |entry: &Entry| shared.judge(entry, None) == Verdict::Untouched;
    shared.hot.retain(untouched);
    // What was asked for before and is not kept yet must not be kept any more, and what was read from disk before the
    // sweep must not come into memory.
    shared.forgotten.fetch_add(1, std::sync::atomic::Ordering::AcqRel);
    let forgotten = forget();
    shared.hot.retain(untouched);
    forgotten
}

/// Forgets patterns that are applied to all that is kept, so that there is room for others.
pub(super) async fn drop_globs(shared: &Arc<Shared>) {
    let work = |shared: &Arc<Shared>| {
        let dropped = forget_in_memory(shared, || shared.purges.drop_applied_globs());
        let Some(disk) = shared.disk.load_full() else { return };
        let key = |sequence: u64| Change::Delete(Column::Purges, sequence.to_be_bytes().to_vec());
        shared.written(disk.index.write(dropped.into_iter().map(key).collect(), false).map_err(DiskError::from));
    };
    blocking(&Arc::downgrade(shared), work).await;
}

/// Collects what earlier processes left behind: bodies whose entry is gone, discarded folders.
async fn collect(shared: Weak<Shared>, cancel: CancellationToken) {
    let Some(disk) = shared.upgrade().and_then(|shared| shared.disk.load_full()) else { return };
    let dir = disk.dir.clone();
    drop(disk);
    if let Some(dir) = dir {
        blocking(&shared, move |_| recovery::remove_discarded(&dir)).await;
    }
    for part in 0..=u8::MAX {
        tokio::select! {
            () = tokio::time::sleep(SWEEP_PAUSE) => {}
            () = cancel.cancelled() => return,
        }
        if blocking(&shared, move |shared| collect_part(shared, part)).await.is_none() {
            return;
        }
    }
    let mut from = Some(0);
    while let Some(id) = from {
        tokio::select! {
            () = tokio::time::sleep(SWEEP_PAUSE) => {}
            () = cancel.cancelled() => return,
        }
        from = blocking(&shared, move |shared| collect_slices(shared, id)).await.flatten();
    }
}

/// Blocking: one of 256 parts of all bodies.
pub(super) fn collect_part(shared: &Shared, part: u8) {
    let Some(disk) = shared.disk.load_full() else { return };
    for id in shared.counted(disk.store.list(part).map_err(DiskError::from)).unwrap_or_default() {
        collect_body(shared, &disk, id);
    }
}

/// Removes a body of an earlier process if no entry has it.
fn collect_body(shared: &Shared, disk: &Disk, id: u64) {
    if id >= disk.first_id || shared.live_body(id).is_some() {
        return;
    }
    let owned = || -> Result<bool, DiskError> {
        let owner = disk.index.get(Column::Slices, &schema::owner_key(id))?;
        let Some(full_key) = owner.as_deref().and_then(schema::decode_owner) else { return Ok(false) };
        let record = disk.index.get(Column::Entries, &full_key)?;
        let record = record.as_deref().and_then(EntryRecord::decode).and_then(|record| record.entry);
        Ok(record.is_some_and(|entry| entry.id == id))
    };
    if shared.counted(owned()) == Some(false) {
        shared.counted(disk.reclaim(id));
    }
}

/// The same for records of slices, whose file may be gone. Returns the next id.
pub(super) fn collect_slices(shared: &Shared, mut id: u64) -> Option<u64> {
    let disk = shared.disk.load_full()?;
    for _ in 0..CHUNK / 4 {
        let next = shared
            .counted(disk.index.scan(Column::Slices, &schema::slice_key(id, 0), None, 1).map_err(DiskError::from))?;
        let (found, _) = next.first().and_then(|(key, _)| schema::parse_slice_key(key))?;
        if found >= disk.first_id {
            return None;
        }
        collect_body(shared, &disk, found);
        id = found + 1;
    }
    Some(id)
}
