//! Which entry goes next: of a few taken at random the one that `worth` says, what is pinned last.
//!
//! Column `recency` is ordered by a hash of the key, so neighbours at a random place are a fair sample; so are they in column
//! `budgets` among those of a host. Where most of what is kept is pinned (`pins.rs`), samples may have nothing else in them: then
//! all is walked through, from where that was left. Of a host's own only samples are taken.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::disk::{Disk, DiskError};
use super::hosts::HostUse;
use super::index::schema::{self, RecencyRecord};
use super::index::{Change, Column, Records, after_prefix};
use super::shared::Shared;
use super::worth::{Pace, SAMPLE, Use, order_to_go};
use super::{key, pins};

/// A body that is still coming goes only where there is nothing else: those who fetch and read it are here now.
const FILLING_USES: u32 = u32::MAX;

/// Where victims come from.
pub(super) enum From {
    /// Everything.
    All,
    /// One host.
    Host(Arc<HostUse>),
}

impl From {
    /// Bytes there are.
    pub fn bytes(&self, shared: &Shared) -> u64 {
        match self {
            Self::All => shared.disk_bytes(),
            Self::Host(host) => host.bytes(),
        }
    }

    /// Bytes there may be.
    pub fn budget(&self, shared: &Shared) -> u64 {
        match self {
            Self::All => shared.disk_limit(),
            Self::Host(host) => host.budget.unwrap_or(u64::MAX),
        }
    }

    /// Bytes that are wanted beside those there are. A host with a small budget may have to give all it has for one body.
    pub fn take_wanted(&self, shared: &Shared, budget: u64) -> u64 {
        match self {
            Self::All => shared.room_wanted.swap(0, Ordering::Relaxed).min(budget / 4),
            Self::Host(host) => host.wanted.swap(0, Ordering::Relaxed).min(budget),
        }
    }

    pub fn pace<'a>(&'a self, disk: &'a Disk) -> &'a Pace {
        match self {
            Self::All => &disk.pace,
            Self::Host(host) => &host.pace,
        }
    }
}

/// What came of a sample.
pub(super) enum Chosen {
    /// The most dispensable.
    Victim(RecencyRecord),
    /// What was in it did not belong there, and is there no more.
    NoneOfThese,
}

/// The most dispensable of a sample; of what is pinned only where there is nothing else. None if there is nothing, or the disk
/// failed.
pub(super) fn choose(shared: &Shared, disk: &Disk, from: &From, now: u64) -> Option<Chosen> {
    let pace = from.pace(disk);
    let pins = &shared.pins;
    if !pins.any() {
        let records = gather(shared, disk, from, now)?;
        return Some(first_to_go(shared, records, now, pace).map_or(Chosen::NoneOfThese, Chosen::Victim));
    }
    let mut pinned = Vec::new();
    for _ in 0..if pins.are_over() { 1 } else { pins::SAMPLES } {
        let records = gather(shared, disk, from, now)?;
        let (held, others): (Vec<_>, Vec<_>) = records.into_iter().partition(|record| pins.is_pinned(record));
        if let Some(victim) = first_to_go(shared, others, now, pace) {
            return Some(Chosen::Victim(victim));
        }
        pinned = held;
    }
    if matches!(from, From::All) && !pins.are_over() {
        loop {
            match walk(shared, disk)? {
                Walked::Found(record) => return Some(Chosen::Victim(record)),
                Walked::NothingElse => break,
                Walked::NotYet if shared.is_closing() => return None,
                Walked::NotYet if pins.are_over() => break,
                Walked::NotYet => {}
            }
        }
    }
    let Some(victim) = first_to_go(shared, pinned, now, pace) else { return Some(Chosen::NoneOfThese) };
    shared.metrics.cache_pinned_evictions.inc();
    Some(Chosen::Victim(victim))
}

/// A sample, which the pace goes by too.
fn gather(shared: &Shared, disk: &Disk, from: &From, now: u64) -> Option<Vec<RecencyRecord>> {
    let records = match from {
        From::All => sample(shared, disk)?,
        From::Host(host) => sample_of(shared, disk, host)?,
    };
    let uses: Vec<Use> = records.iter().map(RecencyRecord::of_use).collect();
    from.pace(disk).observe(&uses, now);
    Some(records)
}

/// The one of these that goes first.
fn first_to_go(shared: &Shared, mut records: Vec<RecencyRecord>, now: u64, pace: &Pace) -> Option<RecencyRecord> {
    let mut uses: Vec<Use> = records.iter().map(RecencyRecord::of_use).collect();
    for used in &mut uses {
        // That a body is read counts for nothing: or else whoever reads slowly would drive out what others use.
        if shared.live_body(used.id).is_some_and(|body| body.filling.load(Ordering::Acquire)) {
            (used.last_use, used.uses) = (now, FILLING_USES);
        }
    }
    let first = order_to_go(&uses, now, pace).first().copied()?;
    Some(records.swap_remove(first))
}

/// What a walk through all that is kept has come to.
enum Walked {
    Found(RecencyRecord),
    /// There may be something further on.
    NotYet,
    /// All of it is pinned.
    NothingElse,
}

/// Looks for something that is not pinned, from where it was left.
fn walk(shared: &Shared, disk: &Disk) -> Option<Walked> {
    let mut walk = shared.pins.walk.lock();
    for _ in 0..pins::PARTS {
        let found = disk.index.scan(Column::Recency, &walk.0, None, pins::PART).map_err(DiskError::from);
        let found = shared.counted(found)?;
        let ended = found.len() < pins::PART;
        for (key, value) in found {
            // The next one: what is found here will be gone, or is in use.
            walk.0 = (u128::from_be_bytes(key.try_into().unwrap_or_default()).wrapping_add(1)).to_be_bytes();
            let Some(record) = RecencyRecord::decode(&value) else { continue };
            let is_filling = shared.live_body(record.id).is_some_and(|body| body.filling.load(Ordering::Acquire));
            if !is_filling && !shared.pins.is_pinned(&record) {
                walk.1 = 0;
                return Some(Walked::Found(record));
            }
        }
        if ended {
            *walk = (Default::default(), walk.1 + 1);
            // From one end to the other.
            if walk.1 >= 2 {
                walk.1 = 0;
                return Some(Walked::NothingElse);
            }
        }
    }
    Some(Walked::NotYet)
}

/// Neighbours at a random place of what begins with `prefix`, in a column that is ordered by a hash behind it. None if there are
/// none.
fn neighbours(shared: &Shared, disk: &Disk, column: Column, prefix: &[u8]) -> Option<Records> {
    let place = [prefix, &fastrand::u128(..).to_be_bytes()].concat();
    let scan = |from: &[u8], to: Option<&[u8]>, most: usize| {
        shared.counted(disk.index.scan(column, from, to, most).map_err(DiskError::from))
    };
    let mut found = scan(&place, after_prefix(prefix).as_deref(), SAMPLE)?;
    if found.len() < SAMPLE {
        found.extend(scan(prefix, Some(&place), SAMPLE - found.len())?);
    }
    (!found.is_empty()).then_some(found)
}

/// Some of all.
fn sample(shared: &Shared, disk: &Disk) -> Option<Vec<RecencyRecord>> {
    let found = neighbours(shared, disk, Column::Recency, &[])?;
    let mut records = Vec::with_capacity(found.len());
    for (key, value) in found {
        match RecencyRecord::decode(&value) {
            Some(record) => records.push(record),
            None => {
                shared.metrics.cache_corruptions.inc();
                let removal = vec![Change::Delete(Column::Recency, key)];
                shared.counted(disk.index.write(removal, false).map_err(DiskError::from))?;
            }
        }
    }
    Some(records)
}

/// Some of a host's.
fn sample_of(shared: &Shared, disk: &Disk, host: &HostUse) -> Option<Vec<RecencyRecord>> {
    let found = neighbours(shared, disk, Column::Budgets, &host.group)?;
    let mut records = Vec::with_capacity(found.len());
    let mut strays = Vec::new();
    for (key, _) in found {
        let record = match schema::parse_budget_key(&key) {
            Some((_, entry)) => shared.counted(disk.index.get(Column::Recency, &entry).map_err(DiskError::from))?,
            None => None,
        };
        let record = record.as_deref().and_then(RecencyRecord::decode);
        let is_own = |record: &RecencyRecord| {
            let of = disk.hosts.of(key::host_of(&record.full_key));
            of.is_some_and(|of| of.group == host.group)
        };
        match record.filter(is_own) {
            Some(record) => records.push(record),
            None => strays.push(Change::Delete(Column::Budgets, key)),
        }
    }
    if !strays.is_empty() {
        shared.counted(disk.index.write(strays, false).map_err(DiskError::from))?;
    }
    Some(records)
}
