//! A purge is carried out: recorded here, or by the program that has the folder now.
//!
//! While the folder passes to another program a purge waits until it is settled who has it. Afterwards the other one records what
//! is purged here, under a number of its own, and tells everybody who still answers, this program included. Where it cannot be
//! reached, the purge is in force here and the caller is told that it is nowhere else.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::error::CacheError;
use super::purges::{PurgeRecorder, PurgeScope, PurgeSequence};
use super::shared::Shared;

/// How long a purge waits while the folder passes to another program, which takes a fraction of a second where nothing is wrong.
const SETTLED_WITHIN: Duration = Duration::from_secs(5);

/// Who has the folder, and records purges there.
pub(super) enum Custody {
    /// This program.
    Here,
    /// It is being handed over: the other program does not serve yet, and may never do.
    Passing,
    /// Another program.
    Elsewhere(Arc<PurgeRecorder>),
}

/// Purges: in force, recorded and told when this returns.
pub(super) async fn purge(shared: &Arc<Shared>, scope: PurgeScope, synced: bool) -> Result<PurgeSequence, CacheError> {
    let mut custody = shared.custody.subscribe();
    let deadline = Instant::now() + SETTLED_WITHIN;
    let reason = loop {
        let turn = shared.purging.lock().await;
        if matches!(*custody.borrow_and_update(), Custody::Here) {
            return record(shared, scope, synced).await;
        }
        // Whoever hands over or takes back needs the turn.
        drop(turn);
        match settled(&mut custody, deadline).await {
            Settled::Here => {}
            Settled::Elsewhere(recorder) => match recorder(scope.clone(), synced).await {
                Ok(sequence) => return Ok(sequence),
                Err(reason) => break reason,
            },
            Settled::NotInTime => break "it does not serve yet".to_owned(),
        }
    };
    shared.purges.apply_next(0, &scope);
    Err(CacheError::PurgeNotPassedOn(reason))
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

/// Purges where this program has the folder. The caller holds the turn.
async fn record(shared: &Arc<Shared>, scope: PurgeScope, synced: bool) -> Result<PurgeSequence, CacheError> {
    let sequence = shared.purges.newest() + 1;
    let recorded = match shared.disk.load_full() {
        Some(disk) => {
            let (shared, scope) = (Arc::clone(shared), scope.clone());
            let record = move || {
                let recorded = disk.record_purge(sequence, &scope, synced);
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
    // In force here and now in any case.
    shared.purges.apply(sequence, &scope);
    shared.sweeps.lock().push(scope.clone());
    if let Some(tell) = shared.purge_listener.load_full() {
        tell(PurgeSequence(sequence), scope).await;
    }
    match recorded {
        None => Ok(PurgeSequence(sequence)),
        Some(reason) => Err(CacheError::PurgeNotRecorded(reason)),
    }
}
