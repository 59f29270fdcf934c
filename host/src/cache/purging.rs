//! Purges are carried out: recorded here, or by the program that has the folder now.
//!
//! While the folder passes to another program a purge waits until it is settled who has it. Afterwards the other one records what
//! is purged here, under a number of its own, and tells everybody who still answers, this program included. Where it cannot be
//! reached, the purge is in force here and the caller is told that it is nowhere else.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::sync::watch;
use tokio::time::Instant;

use super::error::CacheError;
use super::purge_table::{MOST_GLOBS, Marks, PurgeTable, Verdict};
use super::purges::{Candidate, Purge, PurgeMode, PurgeRecorder, PurgeScope, PurgeSequence, Purged};
use super::shared::Shared;
use super::upkeep;

/// How long a purge waits while the folder passes to another program, which takes a fraction of a second where nothing is wrong.
const SETTLED_WITHIN: Duration = Duration::from_secs(5);
/// Purges that another program is told of at once.
const TOLD_AT_ONCE: usize = 32;
/// Purges whose entries are not yet gone from the disk; each has a record in the index. What clients invalidate is not refused.
const MOST_WAITING: u64 = 2_000_000;

/// Who has the folder, and records purges there.
pub(super) enum Custody {
    /// This program.
    Here,
    /// It is being handed over: the other program does not serve yet, and may never do.
    Passing,
    /// Another program.
    Elsewhere(Arc<PurgeRecorder>),
}

/// Purges: in force, recorded and told when this returns. The candidate is judged right before, with no other purge between.
pub(super) async fn purge(
    shared: &Arc<Shared>,
    purges: Vec<Purge>,
    synced: bool,
    candidate: Option<Candidate>,
) -> Result<Purged, CacheError> {
    let mut custody = shared.custody.subscribe();
    let deadline = Instant::now() + SETTLED_WITHIN;
    let reason = loop {
        let turn = shared.purging.lock().await;
        if matches!(*custody.borrow_and_update(), Custody::Here) {
            let overtaken = candidate.is_some_and(|candidate| candidate.is_overtaken(&shared.purges));
            let before_first = shared.purges.newest();
            let recorded = record(shared, purges, synced).await;
            return recorded.map(|last| Purged { first: PurgeSequence(before_first + 1), last, overtaken });
        }
        // Whoever hands over or takes back needs the turn.
        drop(turn);
        match settled(&mut custody, deadline).await {
            Settled::Here => {}
            Settled::Elsewhere(recorder) => match ask(&recorder, &purges, synced).await {
                // Nothing is kept here any more.
                Ok(last) => return Ok(Purged { first: last, last, overtaken: true }),
                Err(reason) => break reason,
            },
            Settled::NotInTime => break "it does not serve yet".to_owned(),
        }
    };
    purges.iter().for_each(|purge| shared.purges.apply_next(0, purge));
    Err(CacheError::PurgeNotPassedOn(reason))
}

impl Candidate {
    fn is_overtaken(&self, purges: &PurgeTable) -> bool {
        let [key_path, request_path, origin_path] = self.paths.each_ref().map(|path| Some(path.as_str()));
        let marks = Marks { host: &self.host, paths: [key_path, request_path, origin_path, None], tags: &self.tags };
        let after = self.asked_after.0;
        purges.is_before_floor(after) || purges.judge(&marks, after) != Verdict::Untouched
    }
}

enum Settled {
    Here,
    Elsewhere(Arc<PurgeRecorder>),
    NotInTime,
}

async fn settled(custody: &mut watch::Receiver<Custody>, deadline: Instant) -> Settled {
    let settled = custody.wait_for(|custody| !matches!(custody, Custody::Passing));
    match tokio::time::timeout_at(deadline, settled).await {
        Ok(Ok(custody)) => match &*custody {
            Custody::Elsewhere(recorder) => Settled::Elsewhere(Arc::clone(recorder)),
            Custody::Here | Custody::Passing => Settled::Here,
        },
        // The cache is gone, and nobody asks it for anything.
        Ok(Err(_)) | Err(_) => Settled::NotInTime,
    }
}

/// Asks the program that has the folder for all of them.
async fn ask(recorder: &PurgeRecorder, purges: &[Purge], synced: bool) -> Result<PurgeSequence, String> {
    let asked = stream::iter(purges.to_vec()).map(|purge| recorder(purge, synced));
    let mut answers = asked.buffer_unordered(TOLD_AT_ONCE);
    let mut last = PurgeSequence(0);
    let mut failed = None;
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(sequence) => last = last.max(sequence),
            Err(reason) => failed = Some(reason),
        }
    }
    failed.map_or(Ok(last), Err)
}

/// Purges where this program has the folder. The caller holds the turn.
async fn record(shared: &Arc<Shared>, purges: Vec<Purge>, synced: bool) -> Result<PurgeSequence, CacheError> {
    make_room(shared, &purges, synced).await?;
    let purges: Arc<[Purge]> = purges.into();
    let first = shared.purges.newest() + 1;
    let recorded = match shared.disk.load_full() {
        Some(disk) => {
            let (shared, purges) = (Arc::clone(shared), Arc::clone(&purges));
            let record = move || {
                let recorded = disk.record_purges(first, &purges, synced);
                let error = recorded.as_ref().err().map(ToString::to_string);
                shared.written(recorded);
                error
            };
            tokio::task::spawn_blocking(record).await.unwrap_or_else(|error| Some(error.to_string()))
        }
        // The folder holds entries that a later run may find again.
        None => {
            let state = shared.disk_state.lock();
            state.error.clone().filter(|_| state.unreachable_index)
        }
    };
    // Before anything can be asked for under the number that a later run may give to another purge.
    match recorded {
        None => shared.unrecorded.store(u64::MAX, Ordering::Release),
        Some(_) => {
            shared.unrecorded.fetch_min(first, Ordering::AcqRel);
        }
    }
    // In force here and now in any case.
    let mut last = first - 1;
    for purge in &*purges {
        last += 1;
        shared.purges.apply(last, purge);
    }
    note_for_sweeps(shared, &purges);
    if let Some(tell) = shared.purge_listener.load_full() {
        let numbered: Vec<_> = (first..).map(PurgeSequence).zip(purges.iter().cloned()).collect();
        let told = stream::iter(numbered).map(|(sequence, purge)| tell(sequence, purge));
        told.buffer_unordered(TOLD_AT_ONCE).collect::<()>().await;
    }
    match recorded {
        None => Ok(PurgeSequence(last)),
        Some(reason) => Err(CacheError::PurgeNotRecorded(reason)),
    }
}

/// What is to be removed from the disk. What is stale stays there; patterns are applied to it, so that they need not be
/// remembered.
fn note_for_sweeps(shared: &Shared, purges: &[Purge]) {
    let mut sweeps = shared.sweeps.lock();
    let room = sweeps.len() < upkeep::MAX_SWEEPS;
    // Patterns are few, and are only forgotten when they were applied.
    let wanted = |purge: &&Purge| match purge.scope {
        PurgeScope::Glob { .. } => true,
        _ => room && purge.mode == PurgeMode::Hard,
    };
    sweeps.extend(purges.iter().filter(wanted).map(|purge| purge.scope.clone()));
}

async fn make_room(shared: &Arc<Shared>, purges: &[Purge], synced: bool) -> Result<(), CacheError> {
    if synced && shared.purges.records() + purges.len() as u64 > MOST_WAITING {
        return Err(CacheError::TooManyPurges("what was purged before is still being removed from the disk"));
    }
    let globs = purges.iter().filter(|purge| matches!(purge.scope, PurgeScope::Glob { .. })).count() as u64;
    if globs > MOST_GLOBS {
        return Err(CacheError::TooManyPurges("at most 256 patterns at a time"));
    }
    if shared.purges.room_for_globs() < globs {
        upkeep::drop_globs(shared).await;
        if shared.purges.room_for_globs() < globs {
            return Err(CacheError::TooManyPurges("256 patterns are still being applied to what is on disk"));
        }
    }
    Ok(())
}
