//! The cache folder passes to another program while this one goes on answering what it was asked.
//!
//! RocksDB admits one program that writes. So what is open for writing is closed here, and the same files are opened for reading
//! as they are: answers under way go on from memory and disk, and nothing is kept any more. If the other program does not come
//! up, the folder is taken back.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::disk::DiskError;
use super::purges::{Purge, PurgeListener, PurgeRecorder, PurgeSequence};
use super::purging::Custody;
use super::recovery::{self, Opened};
use super::{CLOSE_PATIENCE, Cache, eviction, upkeep};

/// How often it is looked whether those who write are done.
const LOOK_EVERY: Duration = Duration::from_millis(1);

impl Cache {
    /// Lets another program have the folder: it is free when this returns. Lookups go on, nothing is kept any more, and purges
    /// wait until `purges_go_to` or `take_back` is called.
    ///
    /// # Errors
    ///
    /// Says why it could not be done; then everything is as it was.
    pub async fn hand_over(&self) -> Result<(), String> {
        let shared = &self.shared;
        // No purge is half recorded.
        let _turn = shared.purging.lock().await;
        shared.custody.send_replace(Custody::Passing);
        let outcome = self.let_go().await;
        if outcome.is_err() {
            shared.custody.send_replace(Custody::Here);
        }
        outcome
    }

    async fn let_go(&self) -> Result<(), String> {
        let shared = &self.shared;
        shared.cancel.load().cancel();
        let swapping = Arc::clone(shared);
        let swapped = tokio::task::spawn_blocking(move || {
            eviction::flush_uses(&swapping);
            let Some(disk) = swapping.disk.load_full() else { return Ok(None) };
            let reading = disk.for_reading()?.map(Arc::new);
            swapping.disk.store(reading);
            Ok::<_, DiskError>(Some(disk))
        });
        let mut disk = match swapped.await {
            Ok(Ok(Some(disk))) => disk,
            Ok(Ok(None)) => return Ok(()),
            Ok(Err(error)) => {
                self.begin_anew();
                return Err(format!("the cache folder cannot be handed over: {error}"));
            }
            Err(error) => return Err(format!("the cache folder cannot be handed over: {error}")),
        };
        // Those who were writing are done in a moment.
        let deadline = tokio::time::Instant::now() + CLOSE_PATIENCE;
        while let Err(still_used) = Arc::try_unwrap(disk) {
            if tokio::time::Instant::now() >= deadline {
                if let Err(error) = still_used.index.keep_files(false) {
                    tracing::warn!(%error, "files of the index stay that are not needed any more");
                }
                shared.disk.store(Some(still_used));
                self.begin_anew();
                return Err("the cache folder cannot be handed over: the disk hangs".to_owned());
            }
            disk = still_used;
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Takes the folder again after `hand_over`. Where it is of no use any more, memory alone serves, as at a start.
    pub async fn take_back(&self) {
        let shared = Arc::clone(&self.shared);
        let _turn = shared.purging.lock().await;
        let taking = Arc::clone(&self.shared);
        let taken = tokio::task::spawn_blocking(move || {
            let Some(reading) = taking.disk.load_full().filter(|disk| disk.is_handed_over()) else { return Ok(()) };
            let Some(dir) = &reading.dir else { return Ok(()) };
            let disk = match recovery::open(dir).map_err(|error| error.to_string())? {
                Opened::Disk(disk) => disk,
                Opened::Unusable { reason, .. } => return Err(reason),
            };
            taking.apply_recorded_purges(&disk).map_err(|error| error.to_string())?;
            taking.configure_hosts(&disk);
            taking.ids.fetch_max(disk.first_id, std::sync::atomic::Ordering::Relaxed);
            taking.disk.store(Some(Arc::from(disk)));
            Ok(())
        });
        if let Err(reason) = taken.await.unwrap_or_else(|error| Err(error.to_string())) {
            tracing::error!(%reason, "the cache folder is of no use; serving from memory alone");
            shared.disk.store(None);
            let mut state = shared.disk_state.lock();
            (state.error, state.unreachable_index) = (Some(reason), true);
        }
        // Unless `hand_over` had failed, and it has begun anew already.
        if self.shared.is_closing() {
            self.begin_anew();
        }
        self.shared.custody.send_replace(Custody::Here);
    }

    /// Somebody else who is told of each purge before it is answered.
    pub fn tell_purges_to(&self, listener: PurgeListener) {
        self.shared.purge_listener.store(Some(Arc::new(listener)));
    }

    /// From now on another program, to which the folder was handed over, records purges.
    pub fn purges_go_to(&self, recorder: PurgeRecorder) {
        self.shared.custody.send_replace(Custody::Elsewhere(Arc::new(recorder)));
    }

    /// A purge that another program has recorded in the folder comes into force here. What is returned tells it to whoever is
    /// told of this program's own.
    pub fn purged_elsewhere(&self, sequence: PurgeSequence, purge: Purge) -> BoxFuture<'static, ()> {
        // One that was not passed on may have taken its number.
        self.shared.purges.apply_next(sequence.0, &purge);
        match self.shared.purge_listener.load_full() {
            Some(tell) => tell(sequence, purge),
            None => Box::pin(std::future::ready(())),
        }
    }

    /// The work in the background goes on.
    fn begin_anew(&self) {
        self.shared.cancel.store(Arc::new(CancellationToken::new()));
        upkeep::start(&self.shared);
    }
}
