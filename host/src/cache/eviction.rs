//! What goes when the disk budget is used up: of a few entries taken at random, the one that `worth` says.
//!
//! There is no list of all entries in memory. Column `recency` is ordered by a hash of the key, so neighbours at a random place
//! are a fair sample. Uses are noted in memory and written down in batches; they survive a restart.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::disk::{Disk, DiskError};
use super::entry::EntryBody;
use super::index::schema::{self, RecencyRecord};
use super::index::{Change, Column};
use super::shared::Shared;
use super::worth::{SAMPLE, Use, order_to_go};

/// Of the budget, in percent: what eviction aims for once it has begun.
const TARGET_PERCENT: u64 = 97;
/// Entries evicted before other housekeeping has its turn.
const ROUND: usize = 256;
/// A body that is still coming goes only where there is nothing else: those who fetch and read it are here now.
const FILLING_USES: u32 = u32::MAX;

/// Blocking: writes down what was used.
pub(super) fn flush_uses(shared: &Shared) {
    let noted = shared.take_noted();
    let Some(disk) = shared.disk.load_full().filter(|_| shared.disk_takes(0)) else {
        noted.iter().for_each(|slot| slot.noted.store(false, Ordering::Relaxed));
        return;
    };
    let now = shared.clock.now().as_secs();
    for chunk in noted.chunks(super::disk::CHUNK) {
        let mut changes = Vec::with_capacity(chunk.len());
        for slot in chunk {
            slot.noted.store(false, Ordering::Relaxed);
            let uses = slot.uses.swap(0, Ordering::Relaxed);
            let entry = &slot.entry;
            let full_key = schema::full_key(entry.key.as_bytes(), &entry.variant.0);
            // Only what is in the index; an entry that was evicted or replaced must not come back as a use.
            let Some(record) = shared.counted(disk.recency(&full_key)).flatten().filter(|old| old.id == entry.id)
            else {
                continue;
            };
            let size = match &entry.body {
                EntryBody::Inline(bytes) => bytes.len() as u64,
                EntryBody::Sliced(body) => body.slices_on_disk() * super::entry::SLICE_BYTES,
            };
            let Use { last_use, uses, .. } = record.of_use().again(uses, now, &disk.pace);
            let record = RecencyRecord { last_use, uses, size, ..record };
            changes.push(Change::Put(Column::Recency, schema::recency_key(&full_key).to_vec(), record.encode()));
        }
        if !changes.is_empty() {
            shared.written(disk.index.write(changes, false).map_err(DiskError::from));
        }
    }
}

/// Blocking: evicts some entries if the disk is over its budget. Returns whether there is more to do.
pub(super) fn evict(shared: &Arc<Shared>) -> bool {
    let Some(disk) = shared.disk.load_full() else { return false };
    let budget = shared.disk_limit();
    let wanted = shared.room_wanted.swap(0, Ordering::Relaxed).min(budget / 4);
    if shared.disk_bytes() + wanted <= budget {
        return false;
    }
    let target = (budget / 100 * TARGET_PERCENT).min(budget - wanted);
    let now = shared.clock.now().as_secs();
    let entries = disk.index.estimate(Column::Recency);
    for _ in 0..ROUND {
        if shared.disk_bytes() <= target || shared.is_closing() {
            break;
        }
        let Some(victim) = choose(shared, &disk, now) else { return false };
        match shared.counted(disk.remove(&victim.full_key, victim.id)) {
            Some(Some(key_length)) => {
                shared.metrics.cache_evictions.inc();
                let place = u128::from_be_bytes(schema::recency_key(&victim.full_key));
                disk.ghosts.lock().remember(place, victim.of_use(), now, &disk.pace, entries);
                shared.gone(&victim.full_key, Some(key_length), victim.id);
            }
            // The entry is gone or another; the use was left behind.
            Some(None) => {
                let stale = Change::Delete(Column::Recency, schema::recency_key(&victim.full_key).to_vec());
                let replaced =
                    shared.counted(disk.recency(&victim.full_key)).flatten().is_some_and(|now| now.id != victim.id);
                if !replaced && shared.counted(disk.index.write(vec![stale], false).map_err(DiskError::from)).is_none()
                {
                    return false;
                }
            }
            None => return false,
        }
        reclaim(shared);
    }
    shared.room.notify_waiters();
    shared.disk_bytes() > target
}

/// The most dispensable of a sample.
fn choose(shared: &Shared, disk: &Disk, now: u64) -> Option<RecencyRecord> {
    let place = fastrand::u128(..).to_be_bytes();
    let mut found = shared.counted(disk.index.scan(Column::Recency, &place, None, SAMPLE).map_err(DiskError::from))?;
    if found.len() < SAMPLE {
        let missing = SAMPLE - found.len();
        let start = disk.index.scan(Column::Recency, &[], Some(&place), missing).map_err(DiskError::from);
        found.extend(shared.counted(start)?);
    }
    let mut records = Vec::with_capacity(found.len());
    for (key, value) in found {
        match RecencyRecord::decode(&value) {
            Some(record) => records.push(record),
            None => {
                shared.metrics.cache_corruptions.inc();
                let removal = vec![Change::Delete(Column::Recency, key)];
                shared.counted(disk.index.write(removal, false).map_err(DiskError::from));
            }
        }
    }
    let mut sample: Vec<Use> = records.iter().map(RecencyRecord::of_use).collect();
    disk.pace.observe(&sample, now);
    for used in &mut sample {
        if shared.live_body(used.id).is_some_and(|body| body.filling.load(Ordering::Acquire)) {
            (used.last_use, used.uses) = (now, FILLING_USES);
        }
    }
    let first = order_to_go(&sample, now, &disk.pace).first().copied()?;
    Some(records.swap_remove(first))
}

/// Blocking: removes the bodies of entries that are gone.
pub(super) fn reclaim(shared: &Shared) {
    let doomed = std::mem::take(&mut *shared.doomed.lock());
    let Some(disk) = shared.disk.load_full() else { return };
    for id in doomed {
        shared.counted(disk.reclaim(id));
    }
}
