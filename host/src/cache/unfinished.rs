//! How much of the disk bodies take that are still coming.
//!
//! Nothing evicts a body that is coming. So many at once could drive out all that is kept, and for nothing, if there is no room for
//! all of them: they share a part of the budget, and what goes beyond it goes to its readers without the disk.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::shared::Shared;

/// Of what may be kept on disk, a part: what bodies that are coming take together. One that comes alone may take all.
const PART: u64 = 2;

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
    pub fn take(&mut self, bytes: u64) -> bool {
        let most = self.shared.disk_limit() / PART;
        let all = &self.shared.unfinished_bytes;
        // All there is may be its own.
        let fits = |before: u64| (before <= self.bytes || before + bytes <= most).then_some(before + bytes);
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
