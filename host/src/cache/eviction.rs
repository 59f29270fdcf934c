//! What goes when the disk budget is used up: of a few entries taken at random, the one least worth keeping (as Redis does).
//!
//! There is no list of all entries in memory. Column `recency` is ordered by a hash of the key, so neighbours at a random place
//! are a fair sample. Uses are noted in memory and written down in batches; they survive a restart.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::disk::DiskError;
use super::entry::EntryBody;
use super::index::schema::{self, RecencyRecord};
use super::index::{Change, Column};
use super::shared::Shared;

/// Entries that are compared.
const SAMPLE: usize = 16;
/// Of the budget, in percent: what eviction aims for once it has begun.
const TARGET_PERCENT: u64 = 97;
/// Entries evicted before other housekeeping has its turn.
const ROUND: usize = 256;
/// Uses count half after each so many idle seconds.
const FADE_SECONDS: u64 = 24 * 3600;

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
            let uses = faded(&record, now).saturating_add(uses);
            let record = RecencyRecord { last_use: now.max(record.last_use), uses, size, ..record };
            changes.push(Change::Put(Column::Recency, schema::recency_key(&full_key).to_vec(), record.encode()));
        }
        if !changes.is_empty() {
            shared.written(disk.index.write(changes, false).map_err(DiskError::from));
        }
    }
}

fn faded(record: &RecencyRecord, now: u64) -> u32 {
    let halvings = now.saturating_sub(record.last_use) / FADE_SECONDS;
    u32::try_from(halvings).ok().and_then(|halvings| record.uses.checked_shr(halvings)).unwrap_or(0)
}

/// How little an entry is worth: idle time over uses, more for large ones, which make room for many.
pub(super) fn dispensability(record: &RecencyRecord, now: u64) -> f64 {
    let idle = now.saturating_sub(record.last_use) as f64 + 1.0;
    let weight = 1.0 + (record.size as f64 / (1 << 20) as f64 + 1.0).log2() / 8.0;
    idle * weight / (1.0 + f64::from(faded(record, now)))
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
    for _ in 0..ROUND {
        if shared.disk_bytes() <= target || shared.is_closing() {
            break;
        }
        let Some(victim) = choose(shared) else { return false };
        match shared.counted(disk.remove(&victim.full_key, victim.id)) {
            Some(Some(key_length)) => {
                shared.metrics.cache_evictions.inc();
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
fn choose(shared: &Shared) -> Option<RecencyRecord> {
    let disk = shared.disk.load_full()?;
    let now = shared.clock.now().as_secs();
    let place = fastrand::u128(..).to_be_bytes();
    let mut sample = shared.counted(disk.index.scan(Column::Recency, &place, None, SAMPLE).map_err(DiskError::from))?;
    if sample.len() < SAMPLE {
        let missing = SAMPLE - sample.len();
        let start = disk.index.scan(Column::Recency, &[], Some(&place), missing).map_err(DiskError::from);
        sample.extend(shared.counted(start)?);
    }
    let mut best: Option<(f64, RecencyRecord)> = None;
    for (key, value) in sample {
        let Some(record) = RecencyRecord::decode(&value) else {
            shared.metrics.cache_corruptions.inc();
            shared
                .counted(disk.index.write(vec![Change::Delete(Column::Recency, key)], false).map_err(DiskError::from));
            continue;
        };
        let filling = shared.live_body(record.id).is_some_and(|body| body.filling.load(Ordering::Acquire));
        let worth = dispensability(&record, now) / if filling { 1e6 } else { 1.0 };
        if best.as_ref().is_none_or(|(most, _)| worth > *most) {
            best = Some((worth, record));
        }
    }
    best.map(|(_, record)| record)
}

/// Blocking: removes the bodies of entries that are gone.
pub(super) fn reclaim(shared: &Shared) {
    let doomed = std::mem::take(&mut *shared.doomed.lock());
    let Some(disk) = shared.disk.load_full() else { return };
    for id in doomed {
        shared.counted(disk.reclaim(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(last_use: u64, uses: u32, size: u64) -> RecencyRecord {
        RecencyRecord { last_use, uses, size, id: 1, full_key: Vec::new() }
    }

    #[test]
    fn idle_rarely_used_and_large_entries_go_first() {
        let now = 1_000_000;
        let worth = |record| dispensability(&record, now);
        assert!(worth(used(now - 1000, 1, 0)) > worth(used(now - 10, 1, 0)));
        assert!(worth(used(now - 1000, 1, 0)) > worth(used(now - 1000, 9, 0)));
        assert!(worth(used(now - 1000, 1, 1 << 30)) > worth(used(now - 1000, 1, 1 << 10)));
        assert!(worth(used(0, 1_000_000, 0)) > worth(used(now - 10, 1, 0)), "old fame fades");
    }
}
