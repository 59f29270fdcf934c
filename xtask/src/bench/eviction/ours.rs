//! Our policy: the decisions of the cache, over a map in the place of the index.

use std::collections::BTreeMap;

use super::rivals::Policy;
use super::trace::{Chance, Request, mix};
use super::worth::{Ghosts, ONE_USE, Pace, SAMPLE, Use, order_to_go};

/// Requests in a second: the cache knows times to the second.
const PER_SECOND: u64 = 1000;

/// As `cache/eviction.rs` does it: ordered by a hash, neighbours at a random place are the sample.
pub struct Ours {
    capacity: u64,
    bytes: u64,
    entries: BTreeMap<u128, Use>,
    pace: Pace,
    ghosts: Ghosts,
    chance: Chance,
    turn: u64,
}

impl Ours {
    pub fn new(capacity: u64, seed: u64) -> Self {
        let (pace, ghosts) = (Pace::default(), Ghosts::new(Ghosts::COUNTERS));
        Self { capacity, bytes: 0, entries: BTreeMap::new(), pace, ghosts, chance: Chance(seed), turn: 0 }
    }

    fn evict(&mut self) {
        let now = self.turn / PER_SECOND;
        let place = u128::from(self.chance.next()) << 64;
        let after = self.entries.range(place..);
        let (hashes, sample): (Vec<u128>, Vec<Use>) = after.chain(self.entries.range(..place)).take(SAMPLE).unzip();
        self.pace.observe(&sample, now);
        let Some(at) = order_to_go(&sample, now, &self.pace).first().copied() else { return };
        let entries = self.entries.len() as u64;
        self.ghosts.remember(hashes[at], sample[at], now, &self.pace, entries);
        self.entries.remove(&hashes[at]);
        self.bytes -= sample[at].size;
    }
}

impl Policy for Ours {
    fn ask(&mut self, request: Request) -> bool {
        self.turn += 1;
        let now = self.turn / PER_SECOND;
        let half = mix(request.object);
        let hash = u128::from(half) << 64 | u128::from(mix(half));
        if let Some(used) = self.entries.get_mut(&hash) {
            *used = used.again(1, now, &self.pace);
            return true;
        }
        if request.bytes > self.capacity {
            return false;
        }
        let uses = (1 + self.ghosts.uses(hash)) * ONE_USE;
        while self.bytes + request.bytes > self.capacity {
            self.evict();
        }
        self.entries.insert(hash, Use { last_use: now, uses, size: request.bytes, id: self.turn });
        self.bytes += request.bytes;
        false
    }
}
