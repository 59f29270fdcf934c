//! A policy that keeps failing expensively is left out for a while: otherwise each bad request can hold a worker for its whole
//! budget. By cost and not by count, so that a few requests that trap a policy do not close its host to everyone: when failing
//! calls have cost more than a fifth of a core over ten seconds, the phase fails by its rule without running for a second,
//! doubling to thirty while it goes on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

const WINDOW_SECONDS: u64 = 10;
/// A fifth of a core over the window.
const COST_MAX: Duration = Duration::from_secs(WINDOW_SECONDS / 5);
const FIRST_MS: u64 = 1000;
const LONGEST_MS: u64 = 30_000;
/// After this long without another quarantine the first one is short again.
const FORGET_MS: u64 = 60_000;

/// What failing calls of one policy have cost.
#[derive(Debug, Default)]
pub(crate) struct Quarantine {
    /// Moment (milliseconds) until which no call runs; zero when there is none. Read on every call, so not behind the lock.
    until: AtomicU64,
    ledger: Mutex<Ledger>,
}

#[derive(Debug, Default)]
struct Ledger {
    /// Cost in each of the last seconds, with the second it is of.
    costs: [(u64, Duration); WINDOW_SECONDS as usize],
    last_length: u64,
    last_end: u64,
}

impl Quarantine {
    /// Milliseconds that the quarantine still lasts, if there is one.
    #[inline]
    pub(crate) fn remaining(&self, now_ms: u64) -> Option<u64> {
        match self.until.load(Ordering::Relaxed) {
            0 => None,
            until => until.checked_sub(now_ms).filter(|left| *left > 0),
        }
    }

    /// Whether there is or was a quarantine: only then need the caller know what time it is.
    #[inline]
    pub(crate) fn ever(&self) -> bool {
        self.until.load(Ordering::Relaxed) != 0
    }

    /// Books a failing call. Gives the length of the quarantine that begins by it.
    pub(crate) fn charge(&self, cost: Duration, now_ms: u64) -> Option<u64> {
        let mut ledger = self.ledger.lock();
        let second = now_ms / 1000;
        let slot = usize::try_from(second % WINDOW_SECONDS).unwrap_or(0);
        if ledger.costs[slot].0 != second {
            ledger.costs[slot] = (second, Duration::ZERO);
        }
        ledger.costs[slot].1 += cost;
        let total: Duration =
            ledger.costs.iter().filter(|(at, _)| at + WINDOW_SECONDS > second).map(|(_, cost)| *cost).sum();
        if total <= COST_MAX || self.remaining(now_ms).is_some() {
            return None;
        }
        let again = ledger.last_length > 0 && now_ms < ledger.last_end + FORGET_MS;
        let length = if again { (ledger.last_length * 2).min(LONGEST_MS) } else { FIRST_MS };
        ledger.last_length = length;
        ledger.last_end = now_ms + length;
        self.until.store(now_ms + length, Ordering::Relaxed);
        Some(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cheap_failures_never_close_a_host() {
        let quarantine = Quarantine::default();
        // A thousand traps a second of 20 µs each are a fiftieth of a core.
        for call in 0..60_000u64 {
            assert_eq!(quarantine.charge(Duration::from_micros(20), call), None);
        }
        assert!(!quarantine.ever());
    }

    #[test]
    fn expensive_failures_are_left_out_for_longer_and_longer() {
        let quarantine = Quarantine::default();
        let mut now = 1_000_000;
        let mut lengths = Vec::new();
        while lengths.len() < 8 {
            match quarantine.charge(Duration::from_millis(500), now) {
                Some(length) => {
                    assert_eq!(quarantine.remaining(now), Some(length));
                    assert_eq!(quarantine.remaining(now + length), None);
                    lengths.push(length);
                    now += length;
                }
                None => now += 500,
            }
        }
        assert_eq!(lengths, [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
        now += FORGET_MS;
        let again = (0..10).find_map(|call| quarantine.charge(Duration::from_millis(500), now + call));
        assert_eq!(again, Some(FIRST_MS));
    }

    #[test]
    fn what_is_older_than_the_window_is_forgotten() {
        let quarantine = Quarantine::default();
        for second in 0..100 {
            assert_eq!(quarantine.charge(Duration::from_millis(190), second * 1000), None);
        }
    }
}
