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
    /// What a body of this host may take that is coming. It evicts nothing that is pinned, and not all else: who asks for one large
    /// object must not be able to empty the disk.
    pub(super) fn most_unfinished(&self, host: &str) -> u64 {
        let limit = self.disk_limit();
        let unpinned = limit.saturating_sub(self.pins.bytes());
        let all = (limit / PART).min(unpinned).max(limit / LEAST_PART);
        let disk = self.disk.load();
        let own = disk.as_ref().and_then(|disk| disk.hosts.of(host)?.budget);
        own.map_or(all, |own| all.min(own / PART))
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
        let most = self.shared.most_unfinished(host);
        // Others may be of hosts with more.
        let all_most = (self.shared.disk_limit() / PART).max(most);
        if self.bytes + bytes > most {
            return false;
        }
        let all = &self.shared.unfinished_bytes;
        let fits = |before: u64| (before + bytes <= all_most).then_some(before + bytes);
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
