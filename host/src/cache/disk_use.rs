//! Whether and how far the disk is used: the room there is on it, the pause after a write that failed, and what is said of both.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::disk::DiskError;
use super::entry::SLICE_BYTES;
use super::hosts::HostUse;
use super::shared::Shared;
use crate::clock::Timestamp;

/// After a failed write the disk is left alone for so long.
const DISK_PAUSE: Duration = Duration::from_secs(15);
/// ... and for so long when there was no room and eviction has made some.
const FULL_PAUSE: Duration = Duration::from_secs(2);
/// As a floor: the one that follows from the size of the file system.
pub(super) const FLOOR_BY_SIZE: u64 = u64::MAX;
/// This part of the file system stays free, at least and at most so many bytes (but never more than a quarter).
const FLOOR_PART: u64 = 50;
const FLOOR_BYTES_MIN: u64 = 16 << 20;
const FLOOR_BYTES_MAX: u64 = 1 << 30;
/// Of a budget: what it is overshot by at most while eviction catches up.
const OVERSHOOT_PART: u64 = 20;
/// Of the budget, a part: what bodies that are gone, but still read, may take beyond it.
const LEAVING_PART: u64 = 4;
/// How long a fill waits for eviction before it goes on without the disk.
const ROOM_PATIENCE: Duration = Duration::from_secs(2);

/// Why the disk is out of use.
#[derive(Debug, Default)]
pub(super) struct DiskState {
    pub error: Option<String>,
    /// The error was that there is no room.
    pub full: bool,
    /// It was said that the file system has less room than the budget.
    pub short: bool,
    /// There is an index in the folder that cannot be reached: purges can't be recorded for it.
    pub unreachable_index: bool,
}

impl Shared {
    /// What may be kept on disk: the budget, or less where the file system has less room.
    pub fn disk_limit(&self) -> u64 {
        self.disk_budget.load(Ordering::Relaxed).min(self.disk_ceiling.load(Ordering::Relaxed))
    }

    /// Blocking: looks at how much room the file system has. Something of it always stays free, for the index, which needs
    /// room to remove things, and for whoever else writes there.
    pub fn measure_space(&self) {
        let Some(disk) = self.disk.load_full() else { return };
        let Some(space) = disk.store.space() else { return };
        let floor = match self.disk_floor.load(Ordering::Relaxed) {
            FLOOR_BY_SIZE => (space.total / FLOOR_PART).clamp(FLOOR_BYTES_MIN.min(space.total / 4), FLOOR_BYTES_MAX),
            floor => floor,
        };
        let ceiling = (disk.bytes() + space.available).saturating_sub(floor);
        let budget = self.disk_budget.load(Ordering::Relaxed);
        self.disk_ceiling.store(ceiling, Ordering::Relaxed);
        let mut state = self.disk_state.lock();
        let short = ceiling < budget.saturating_add(if state.short { floor } else { 0 });
        if std::mem::replace(&mut state.short, short) != short && short {
            tracing::warn!(
                available_bytes = space.available,
                limit_bytes = ceiling,
                budget_bytes = budget,
                "the file system of the cache folder has less room than cache.disk: the cache keeps less"
            );
        }
        // A write failed for want of room, and there is room now: no need to sit the pause out.
        let soon = self.clock.now().plus(DISK_PAUSE.saturating_sub(FULL_PAUSE)).as_millis();
        if space.available >= floor && state.full && self.paused_until.load(Ordering::Relaxed) <= soon {
            self.paused_until.fetch_min(1, Ordering::Relaxed);
        }
    }

    /// Whether the disk is in use and takes a body of this size.
    pub fn disk_takes(&self, size: u64) -> bool {
        let paused = self.paused_until.load(Ordering::Relaxed);
        size <= self.disk_limit()
            && self.disk.load().as_ref().is_some_and(|disk| !disk.is_handed_over())
            && (paused == 0 || self.is_over(paused))
    }

    /// Whether a pause is over; one that is longer than any began before the clock went back.
    fn is_over(&self, paused_until: u64) -> bool {
        let (now, until) = (self.clock.now(), Timestamp::from_millis(paused_until));
        now >= until || until.since(now) > DISK_PAUSE
    }

    /// The same for a body of a host, whose budget it must fit too.
    pub fn disk_takes_of(&self, host: &str, size: u64) -> bool {
        if !self.disk_takes(size) {
            return false;
        }
        let disk = self.disk.load();
        let budget = disk.as_ref().and_then(|disk| disk.hosts.of(host)?.budget);
        budget.is_none_or(|budget| size <= budget)
    }

    /// Waits a little until eviction made room, on the disk and in the budget of the host; false if it did not.
    pub async fn room_for(&self, host: &str, bytes: u64) -> bool {
        let host = self.disk.load().as_ref().and_then(|disk| disk.hosts.with_budget(host));
        let own_overshoot = |host: &HostUse| host.budget.unwrap_or_default() / OVERSHOOT_PART;
        let fits_all = |overshoot: u64| {
            // The budget may be overshot for a moment, the disk may not.
            let budget = self.disk_budget.load(Ordering::Relaxed).saturating_add(overshoot);
            self.disk_bytes() + bytes <= budget.min(self.disk_ceiling.load(Ordering::Relaxed))
        };
        let fits = |overshoot: u64| {
            let own = |host: &Arc<HostUse>| host.fits(bytes, if overshoot == 0 { 0 } else { own_overshoot(host) });
            fits_all(overshoot) && host.as_ref().is_none_or(own)
        };
        // What waits for its readers to go becomes free by itself, but when is theirs to say: no eviction helps.
        let is_held_up = || {
            let leaving = self.leaving_bytes.load(Ordering::Relaxed);
            let budget = self.disk_budget.load(Ordering::Relaxed);
            let most = budget.saturating_add(budget / LEAVING_PART).min(self.disk_ceiling.load(Ordering::Relaxed));
            fits_all(0) && leaving > 0 && self.disk_bytes() + leaving + bytes > most
        };
        if is_held_up() {
            return false;
        }
        if fits(0) {
            return true;
        }
        if !fits_all(0) {
            self.room_wanted.fetch_max(bytes, Ordering::Relaxed);
        }
        if let Some(host) = host.as_ref().filter(|host| !host.fits(bytes, 0)) {
            host.wanted.fetch_max(bytes, Ordering::Relaxed);
        }
        self.wake.notify_one();
        // Some slices more than the budget while eviction catches up.
        let overshoot = (self.disk_limit() / OVERSHOOT_PART).clamp(4 * SLICE_BYTES, 256 * SLICE_BYTES);
        let deadline = tokio::time::Instant::now() + ROOM_PATIENCE;
        loop {
            let mut room = std::pin::pin!(self.room.notified());
            room.as_mut().enable();
            if is_held_up() {
                return false;
            }
            if fits(overshoot) {
                return true;
            }
            if tokio::time::timeout_at(deadline, room).await.is_err() {
                return false;
            }
        }
    }

    /// What came of a read or a removal; errors are counted, and are nothing more than a miss.
    pub fn counted<T>(&self, result: Result<T, DiskError>) -> Option<T> {
        result
            .inspect_err(|error| {
                if matches!(error, DiskError::HandedOver) {
                    return;
                }
                self.metrics.cache_disk_errors.inc();
                tracing::debug!(%error, "cache folder");
            })
            .ok()
    }

    /// What came of a write. After an error the disk is left alone for a while; a person should come, once.
    pub fn written<T>(&self, result: Result<T, DiskError>) -> Option<T> {
        match result {
            Ok(done) => {
                let paused = self.paused_until.load(Ordering::Relaxed);
                // One that was under way when another failed does not end the pause.
                if paused != 0 && self.is_over(paused) {
                    self.paused_until.store(0, Ordering::Relaxed);
                    let mut state = self.disk_state.lock();
                    (state.error, state.full) = (None, false);
                    drop(state);
                    tracing::info!("the cache folder can be written again");
                }
                Some(done)
            }
            // What it was to write is of no use to anybody any more.
            Err(DiskError::HandedOver) => None,
            Err(error) => {
                self.metrics.cache_disk_errors.inc();
                let until = self.clock.now().plus(DISK_PAUSE).as_millis().max(1);
                if self.paused_until.swap(until, Ordering::Relaxed) == 0 {
                    tracing::error!(%error, "the cache folder cannot be written; serving goes on without it");
                }
                let mut state = self.disk_state.lock();
                (state.error, state.full) = (Some(error.to_string()), error.is_full());
                drop(state);
                // Eviction may make room.
                self.wake.notify_one();
                None
            }
        }
    }
}
