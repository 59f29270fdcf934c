//! What was removed a moment ago.
//!
//! An entry leaves the index on the blocking pool, and until then, or behind it, somebody may read its record, show it in memory or
//! commit it: a fill that just ends, or a lookup that has read the record already. Everybody who puts an entry somewhere looks here
//! *afterwards*, and takes it back; removing notes it here first. So it is gone for all that ask after it was removed. Where the disk
//! refuses to remove the record (which is counted and told as any error of its), that holds as long as the program remembers it.

use std::collections::{HashSet, VecDeque};

use parking_lot::Mutex;

/// So many are known: more than can be removed while one record is read or written.
const MOST: usize = 16 << 10;

/// Ids of entries that were removed; each id is given once.
#[derive(Debug, Default)]
pub struct Removals(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    ids: HashSet<u64>,
    oldest_first: VecDeque<u64>,
}

impl Removals {
    /// Before an entry is taken away anywhere.
    pub fn note(&self, id: u64) {
        let mut known = self.0.lock();
        if !known.ids.insert(id) {
            return;
        }
        known.oldest_first.push_back(id);
        if known.oldest_first.len() > MOST
            && let Some(oldest) = known.oldest_first.pop_front()
        {
            known.ids.remove(&oldest);
        }
    }

    /// Whether an entry was removed.
    pub fn has(&self, id: u64) -> bool {
        self.0.lock().ids.contains(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_known_and_no_more_than_so_many() {
        let removals = Removals::default();
        let last = MOST as u64 + 10;
        (0..=last).chain([last]).for_each(|id| removals.note(id));
        assert!(!removals.has(10) && removals.has(11) && removals.has(last));
        assert_eq!(removals.0.lock().ids.len(), MOST);
    }
}
