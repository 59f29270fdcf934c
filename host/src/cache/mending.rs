//! A cache folder that is out of use is taken into use again, without a restart.
//!
//! Three things put it out of use: the index cannot be written (RocksDB refuses all writes after one that failed, until it is opened
//! anew), the folder could not be opened when the program started, and somebody removed it. It is looked at every few seconds; then
//! the index is closed and the folder opened as at a start. Memory alone serves meanwhile, and purges wait for the turn.
//!
//! An index needs room to be opened and to remove what is in it. Where another program has filled the disk, some bodies go first:
//! what is missing on the disk is a miss.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::disk::{Disk, DiskError};
use super::index::Change;
use super::index::schema;
use super::purging::Custody;
use super::recovery::{self, Opened};
use super::shared::Shared;
use super::store::disk::DiskStore;
use super::store::{Space, Store, layout};
use super::upkeep::blocking;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(5);
/// How long those who use the disk have to let go of it.
const PATIENCE: Duration = Duration::from_secs(5);
/// ... and between two looks whether they have.
const LET_GO_LOOK: Duration = Duration::from_millis(1);
/// Room that an index should have: its log and a flush of what is in memory.
const ROOM_BYTES: u64 = 64 << 20;
/// ... but no more than this part of the file system.
const ROOM_PART: u64 = 4;
/// Bodies removed between two looks at the room.
const REMOVED_AT_ONCE: usize = 16;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ailment {
    /// The folder was removed, or another one put in its place.
    Lost,
    /// The index takes nothing.
    Unwritable,
    /// It is not open.
    Out,
}

/// Looks after the folder until the cache is closed.
pub(super) async fn run(shared: Weak<Shared>) {
    loop {
        let Some(ended) = shared.upgrade().map(|shared| shared.ended.clone()) else { return };
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = ended.cancelled() => return,
        }
        if let Some(Some(ailment)) = blocking(&shared, ailment).await
            && let Some(shared) = shared.upgrade()
        {
            mend(&shared, ailment).await;
        }
    }
}

/// Blocking.
pub(super) fn ailment(shared: &Arc<Shared>) -> Option<Ailment> {
    let Some(disk) = shared.disk.load_full() else {
        return shared.disk_state.lock().error.is_some().then_some(Ailment::Out);
    };
    if disk.is_handed_over() {
        None
    } else if !disk.is_there() {
        Some(Ailment::Lost)
    } else if shared.disk_state.lock().error.is_none() || !shared.disk_takes(0) {
        None
    } else {
        // The pause after the write that failed is over.
        let nothing = Change::Add(schema::META_BYTES.to_vec(), 0);
        disk.index.write(vec![nothing], true).is_err().then_some(Ailment::Unwritable)
    }
}

pub(super) async fn mend(shared: &Arc<Shared>, ailment: Ailment) {
    let _turn = shared.purging.lock().await;
    if !matches!(*shared.custody.borrow(), Custody::Here) || shared.is_closing() || shared.ended.is_cancelled() {
        return;
    }
    let Some(folder) = shared.folder.get().cloned() else { return };
    match ailment {
        Ailment::Lost => tracing::error!(
            folder = %folder.display(),
            "the cache folder was removed while it was in use; what was on the disk is gone, and it begins anew"
        ),
        Ailment::Unwritable => tracing::warn!(folder = %folder.display(), "the cache index is opened anew"),
        Ailment::Out => {}
    }
    // Until it is open again no purge may be forgotten for being carried out.
    let had_index = shared.disk_state.lock().unreachable_index;
    let has_index = match ailment {
        Ailment::Lost => false,
        Ailment::Unwritable => true,
        Ailment::Out => had_index,
    };
    shared.disk_state.lock().unreachable_index = has_index;
    if !let_go(shared).await {
        shared.disk_state.lock().unreachable_index = had_index;
        return;
    }
    let opening = Arc::clone(shared);
    // It would come to the same again and again.
    let is_rotten = ailment == Ailment::Unwritable
        && shared.disk_state.lock().error.as_ref().is_some_and(|error| error.contains("Corruption"));
    let weak = Arc::downgrade(shared);
    let opened = blocking(&weak, move |shared| {
        if ailment != Ailment::Lost {
            make_room(&folder, |id| shared.live_body(id).is_some());
        }
        open(shared, &folder, is_rotten)
    });
    match opened.await.unwrap_or_else(|| Err("the cache is being closed".to_owned())) {
        Ok(disk) => {
            opening.ids.fetch_max(disk.first_id, Ordering::Relaxed);
            opening.disk.store(Some(Arc::new(disk)));
            {
                let mut state = opening.disk_state.lock();
                (state.error, state.full, state.unreachable_index) = (None, false, false);
            }
            opening.paused_until.store(0, Ordering::Relaxed);
            opening.wake.notify_one();
            tracing::info!("the cache folder is in use again");
        }
        Err(reason) => {
            let mut state = opening.disk_state.lock();
            let is_news = ailment != Ailment::Out;
            (state.error, state.unreachable_index) = (Some(reason.clone()), has_index);
            drop(state);
            if is_news {
                tracing::error!(%reason, "the cache folder is of no use; serving from memory alone until it is");
            }
        }
    }
    // `close` may have given up waiting.
    if opening.ended.is_cancelled() {
        opening.disk.store(None);
    }
}

/// Takes the disk out of use and closes it. False: somebody does not let go of it, and it stays as it is.
async fn let_go(shared: &Arc<Shared>) -> bool {
    let Some(mut disk) = shared.disk.swap(None) else { return true };
    let deadline = Instant::now() + PATIENCE;
    loop {
        match Arc::try_unwrap(disk) {
            Ok(disk) => return tokio::task::spawn_blocking(move || drop(disk)).await.is_ok(),
            Err(still_used) if Instant::now() >= deadline => {
                shared.disk.store(Some(still_used));
                return false;
            }
            Err(still_used) => disk = still_used,
        }
        tokio::time::sleep(LET_GO_LOOK).await;
    }
}

/// Blocking.
fn open(shared: &Shared, folder: &Path, is_rotten: bool) -> Result<Disk, String> {
    if is_rotten {
        tracing::error!(folder = %folder.display(), "the cache index is damaged; beginning with an empty one");
        recovery::discard(folder).map_err(|error| error.to_string())?;
    }
    let disk = match recovery::open(folder).map_err(|error| error.to_string())? {
        Opened::Disk(disk) => *disk,
        Opened::Unusable { reason, .. } => return Err(reason),
    };
    let taken = || -> Result<(), DiskError> {
        shared.apply_recorded_purges(&disk)?;
        disk.go_on_from(shared.purges.newest(), shared.ids.load(Ordering::Relaxed))
    };
    taken().map_err(|error| error.to_string())?;
    shared.configure_hosts(&disk);
    Ok(disk)
}

/// Blocking: removes bodies that nobody reads, wherever they lie, until an index has room. Nothing where it has.
fn make_room(folder: &Path, is_read: impl Fn(u64) -> bool) {
    make_room_of(folder, |space| ROOM_BYTES.min(space.total / ROOM_PART), is_read);
}

/// The same with as much room as is wanted of a file system.
pub(super) fn make_room_of(folder: &Path, wanted: impl Fn(Space) -> u64, is_read: impl Fn(u64) -> bool) {
    let bodies = folder.join(layout::BODIES);
    let Some(store) = bodies.is_dir().then(|| DiskStore::open(&bodies).ok()).flatten() else { return };
    let Some(space) = store.space() else { return };
    let wanted = wanted(space);
    if space.available >= wanted / 2 {
        return;
    }
    let has_room = || store.space().is_none_or(|space| space.available >= wanted);
    let first = fastrand::u8(..);
    let parts = (0..=u8::MAX).map(|part| part.wrapping_add(first));
    let mut ids = parts.flat_map(|part| store.list(part).unwrap_or_default()).filter(|id| !is_read(*id));
    let mut removed = 0;
    while !has_room() {
        let before = removed;
        removed += ids.by_ref().take(REMOVED_AT_ONCE).filter(|id| store.remove(*id).is_ok()).count();
        if removed == before {
            break;
        }
    }
    if removed > 0 {
        tracing::warn!(bodies = removed, "the disk is full: bodies were removed so that the index has room");
    }
}
