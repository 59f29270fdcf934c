//! Brings column `budgets` to what it should have after hosts.json gave other hosts a budget, or names to other hosts.
//!
//! What is kept meanwhile is put there as it is kept; so the walk may take its time, and begins anew if the program ends before
//! it does.

use std::sync::{Arc, Weak};

use tokio_util::sync::CancellationToken;

use super::disk::{Disk, DiskError};
use super::index::schema::{self, EntryRecord};
use super::index::{self, CHUNK, Change, Column, after_prefix};
use super::key;
use super::shared::Shared;
use super::upkeep::{PART, SWEEP_PAUSE, blocking};

/// Walks, if it is called for.
pub(super) async fn walk(shared: &Weak<Shared>, cancel: &CancellationToken) {
    let look = |shared: &Arc<Shared>| {
        let disk = shared.disk.load_full().filter(|disk| !disk.is_handed_over())?;
        shared.counted(disk.hosts.unwalked(&*disk.index).map_err(DiskError::from)).flatten()
    };
    let Some((mark, generation)) = blocking(shared, look).await.flatten() else { return };
    for column in [Column::Budgets, Column::Entries] {
        let mut from = Vec::new();
        loop {
            let part = move |shared: &Arc<Shared>| {
                let disk = shared.disk.load_full().filter(|disk| disk.hosts.generation() == generation)?;
                let next = if column == Column::Budgets { tidy(&disk, &from) } else { enter(&disk, &from) };
                shared.written(next)
            };
            match blocking(shared, part).await.flatten() {
                Some(Some(next)) => from = next,
                Some(None) => break,
                // The disk failed, or hosts.json changed again.
                None => return,
            }
            tokio::select! {
                () = tokio::time::sleep(SWEEP_PAUSE) => {}
                () = cancel.cancelled() => return,
            }
        }
    }
    let done = move |shared: &Arc<Shared>| {
        let disk = shared.disk.load_full()?;
        shared.written(disk.hosts.walked(mark, generation, &*disk.index).map_err(DiskError::from))
    };
    blocking(shared, done).await;
}

/// Removes a part of what belongs to hosts that have no budget any more. Returns where the next part begins.
fn tidy(disk: &Disk, from: &[u8]) -> Result<Option<Vec<u8>>, DiskError> {
    let records = disk.index.scan(Column::Budgets, from, None, CHUNK)?;
    let Some((last, _)) = records.last() else { return Ok(None) };
    let mut next = index::after(last);
    let mut removals = Vec::new();
    for (key, _) in &records {
        match schema::parse_budget_key(key) {
            Some((group, _)) if disk.hosts.has_group(group) => {
                // All the rest of this host stays.
                match after_prefix(&group) {
                    Some(after) => next = after,
                    None => return Ok(None),
                }
                break;
            }
            _ => removals.push(Change::Delete(Column::Budgets, key.clone())),
        }
    }
    disk.index.write(removals, false)?;
    Ok(Some(next))
}

/// Enters a part of what is kept. Returns where the next part begins.
fn enter(disk: &Disk, from: &[u8]) -> Result<Option<Vec<u8>>, DiskError> {
    let records = disk.index.scan(Column::Entries, from, None, PART)?;
    let counting = disk.hosts.counting();
    let mut entered = Vec::new();
    for (full_key, record) in &records {
        let recency = schema::recency_key(full_key);
        if let Some(place) = counting.place(key::host_of(full_key), &recency)
            && EntryRecord::decode(record).is_some_and(|record| record.entry.is_some())
        {
            entered.push(Change::Put(Column::Budgets, place.to_vec(), Vec::new()));
        }
    }
    if !entered.is_empty() {
        disk.index.write(entered, false)?;
    }
    let more = records.len() == PART;
    Ok(records.last().filter(|_| more).map(|(last, _)| index::after(last)))
}

/// Does it now.
#[cfg(test)]
pub(super) async fn walk_now(shared: &Arc<Shared>) {
    walk(&Arc::downgrade(shared), &CancellationToken::new()).await;
}
