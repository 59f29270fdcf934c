//! What a soft purge makes of an entry: one whose life ends at the moment of the purge. So it is revalidated at its next use, the
//! windows of RFC 5861 count from that moment, and nothing else has to know of soft purges.

use std::sync::Arc;
use std::time::Duration;

use super::entry::{Entry, EntryHead};
use super::purge_table::Verdict;
use super::shared::Shared;
use crate::clock::Timestamp;

impl Shared {
    /// The life of what is stale since `at`; none if it is so by itself.
    pub fn shortened(&self, head: &EntryHead, at: Timestamp) -> Option<Duration> {
        // A clock that went back does not make it fresh again.
        let at = at.min(self.clock.now());
        let lifetime = head.timing.age(at);
        (lifetime < head.retention.lifetime).then_some(lifetime)
    }

    /// An entry under what purges said of it.
    pub fn as_judged(&self, entry: &Arc<Entry>, verdict: Verdict) -> Arc<Entry> {
        let Verdict::Stale(at) = verdict else { return entry.clone() };
        match self.shortened(&entry.head, at) {
            Some(lifetime) => {
                let mut head = entry.head.clone();
                head.retention.lifetime = lifetime;
                Arc::new(entry.with_head(head))
            }
            None => entry.clone(),
        }
    }

    /// The same for an entry in memory, where it takes the other's place.
    pub fn stale_in_memory(&self, entry: &Arc<Entry>, at: Timestamp) -> Arc<Entry> {
        let stale = self.as_judged(entry, Verdict::Stale(at));
        self.replace_in_memory(&stale);
        stale
    }
}
