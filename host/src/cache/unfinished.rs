//! How much of the disk bodies take that are still coming.
//!
//! Nothing evicts a body that is coming. So many at once could drive out all that is kept, and for nothing, if there is no room for
//! all of them: they share a part of the budget, and what goes beyond it goes to its readers without the disk.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::shared::Shared;

/// Of what may be kept on disk, or of a host's budget, a part: what bodies that are coming take together.
const PART: u64 = 2;
/// ... and so much in any case, however much is pinned.
const LEAST_PART: u64 = 10;

impl Shared {
    /// What all bodies that are coming may take. They evict nothing that is pinned, and not all else: who asks for one large object
    /// must not be able to empty the disk.
    fn most_unfinished(&self) -> u64 {
        let limit = self.disk_limit();
        let unpinned = limit.saturating_sub(self.pins.bytes());
        (limit / PART).min(unpinned).max(limit / LEAST_PART)
    }

    /// The same for one of this host.
    pub(super) fn most_unfinished_of(&self, host: &str) -> u64 {
        let disk = self.disk.load();
        let own = disk.as_ref().and_then(|disk| disk.hosts.of(host)?.budget);
        self.most_unfinished().min(own.map_or(u64::MAX, |own| own / PART))
    }
}

/// What one of them has taken.
pub(super) struct Unfinished {
    shared: Arc<Shared>,
    bytes: u64,
}

impl Unfinished {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared, bytes: 0 }
    }

    /// Takes some more, if there is so much.
    pub fn take(&mut self, host: &str, bytes: u64) -> bool {
        if self.bytes + bytes > self.shared.most_unfinished_of(host) {
            return false;
        }
        let most = self.shared.most_unfinished();
        let all = &self.shared.unfinished_bytes;
        let fits = |before: u64| (before + bytes <= most).then_some(before + bytes);
        let is_taken = all.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).is_ok();
        if is_taken {
            self.bytes += bytes;
        }
        is_taken
    }

    /// Gives back what was taken and did not get to the disk.
    pub fn give_back(&mut self, bytes: u64) {
        self.bytes -= bytes;
        self.shared.unfinished_bytes.fetch_sub(bytes, Ordering::AcqRel);
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.shared.unfinished_bytes.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}
