//! What goes when the disk budget is used up (`victims.rs`): a host's own entries where it is the host that is over its budget.
//!
//! There is no list of all entries in memory. Uses are noted in memory and written down in batches; they survive a restart.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::disk::{Disk, DiskError};
use super::entry::EntryBody;
use super::hot::Used;
use super::index::schema;
use super::index::{Change, Column};
use super::shared::Shared;
use super::victims::{Chosen, From, choose};
use crate::telemetry::metrics::SiteLabels;

/// Of the budget, in percent: what eviction aims for once it has begun.
const TARGET_PERCENT: u64 = 97;
/// Entries evicted before other housekeeping has its turn.
const ROUND: usize = 256;
/// Entries brought back at once: where the disk is smaller than memory, it is not written over again and again.
const BROUGHT_BACK: usize = 256;

/// So long a folder of an older format stays one that the older program can go on with: an upgrade that fails gives it back.
const SETTLED: Duration = Duration::from_secs(60);

/// Blocking: writes down what was used.
pub(super) fn flush_uses(shared: &Arc<Shared>) {
    let noted = shared.take_noted();
    let mut brought_back = 0;
    let Some(disk) = shared.disk.load_full().filter(|_| shared.disk_takes(0)) else {
        noted.iter().for_each(|used| used.noted.store(false, Ordering::Relaxed));
        return;
    };
    let now = shared.clock.now().as_secs();
    let merges = disk.merges(SETTLED);
    for chunk in noted.chunks(super::index::CHUNK) {
        let mut changes = Vec::with_capacity(chunk.len());
        for used in chunk {
            used.noted.store(false, Ordering::Relaxed);
            let uses = used.uses.swap(0, Ordering::Relaxed);
            let full_key = schema::full_key(used.key.as_bytes(), &used.variant.0);
            let place = schema::recency_key(&full_key).to_vec();
            let new = disk.uses(used.key.host(), used.id, uses, used.size(), now);
            // What was read from the disk just now stands there: most of what is used was, and to look each up again costs as much as
            // reading it did.
            if used.has_come.swap(false, Ordering::Relaxed) && merges {
                changes.push(Change::Use(place, new));
                continue;
            }
            // What has been in memory for a while may have been evicted; and an entry that was replaced must not come back as a use.
            let Some(mut record) = shared.counted(disk.recency(&full_key)).flatten().filter(|old| old.id == used.id)
            else {
                if uses > 0 && brought_back < BROUGHT_BACK && bring_back(shared, used) {
                    brought_back += 1;
                }
                continue;
            };
            new.add_to(&mut record);
            changes.push(Change::Put(Column::Recency, place, record.encode()));
        }
        if !changes.is_empty() {
            shared.written(disk.index.write(changes, false).map_err(DiskError::from));
        }
    }
}

/// Blocking: writes down again what was evicted from the disk while memory served it. A restart shall find what is asked for.
fn bring_back(shared: &Arc<Shared>, used: &Used) -> bool {
    let Some(entry) = shared.hot.standing(&used.key, &used.variant, used.id) else { return false };
    matches!(&entry.body, EntryBody::Inline(bytes) if shared.disk_takes_of(entry.key.host(), bytes.len() as u64))
        && shared.commit(&entry)
}

/// Blocking: evicts some entries of hosts that are over their budgets, and if the disk is over its own. Returns whether there is
/// more to do.
pub(super) fn evict(shared: &Arc<Shared>) -> bool {
    let Some(disk) = shared.disk.load_full().filter(|disk| !disk.is_handed_over()) else { return false };
    let mut more = false;
    for host in disk.hosts.over_budget() {
        more |= evict_from(shared, &disk, &From::Host(host));
    }
    evict_from(shared, &disk, &From::All) || more
}

fn evict_from(shared: &Arc<Shared>, disk: &Disk, from: &From) -> bool {
    let budget = from.budget(shared);
    let wanted = from.take_wanted(shared, budget);
    if from.bytes(shared).saturating_add(wanted) <= budget {
        return false;
    }
    let target = (budget / 100 * TARGET_PERCENT).min(budget - wanted);
    let now = shared.clock.now().as_secs();
    let entries = disk.entries();
    for _ in 0..ROUND {
        if from.bytes(shared) <= target || shared.is_closing() {
            break;
        }
        let victim = match choose(shared, disk, from, now) {
            Some(Chosen::Victim(victim)) => victim,
            Some(Chosen::NoneOfThese) => continue,
            None => return false,
        };
        match shared.counted(disk.remove(&victim.full_key, victim.id)) {
            Some(Some(key_length)) => {
                shared.metrics.cache_evictions.inc();
                if let From::Host(host) = from {
                    let labels = SiteLabels { host: host.name.clone() };
                    shared.metrics.cache_host_evictions.get_or_create(&labels).inc();
                }
                let place = u128::from_be_bytes(schema::recency_key(&victim.full_key));
                disk.ghosts.lock().remember(place, victim.of_use(), now, from.pace(disk), entries);
                shared.gone(&victim.full_key, Some(key_length), victim.id);
            }
            // The entry is gone or another; the use was left behind.
            Some(None) => {
                if shared.counted(disk.settle_use(&victim.full_key, victim.id)).is_none() {
                    return false;
                }
            }
            None => return false,
        }
        reclaim(shared);
    }
    shared.room.notify_waiters();
    from.bytes(shared) > target
}

/// Blocking: removes the bodies of entries that are gone.
pub(super) fn reclaim(shared: &Shared) {
    let doomed = std::mem::take(&mut *shared.doomed.lock());
    let Some(disk) = shared.disk.load_full() else { return };
    for id in doomed {
        shared.counted(disk.reclaim(id));
    }
}
