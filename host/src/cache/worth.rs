//! What an entry is worth keeping: pure decisions, without the disk that keeps what they are made from.
//!
//! An entry's uses fade by half in some multiple of the time that entries of this cache lie idle (LRFU: Lee and others 1999, with
//! a half-life that follows the cache); of a few taken at random the one goes that has least left, as in Redis. What
//! was evicted is remembered for a while by a hash (as in TinyLFU and S3-FIFO), so that what is asked for again and again comes
//! back with what it had, and what is asked for once goes first.
//!
//! `cargo xtask bench eviction` compiles this very file and holds it against other policies: it uses nothing but `std`.

use std::sync::atomic::{AtomicU64, Ordering};

/// Entries that are compared.
pub const SAMPLE: usize = 32;
/// One use, as `Use::uses` counts.
pub const ONE_USE: u32 = 16;
/// More uses than that say nothing more: what was famous must be able to go.
const MOST_USES: u32 = 16 * ONE_USE;
/// The half-life of a use, in mean idle times.
const HALF_LIFE: f64 = 4.0;
/// The mean idle time follows samples by this part.
const FOLLOWED: f64 = 1.0 / 64.0;
/// A mebibyte more makes an entry worth so much less, of halves: large ones make room for many, but cost much to fetch again.
const SIZE_WEIGHT: f64 = 0.05;

/// What is known of the use of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// Seconds, since 1970 for example.
    pub last_use: u64,
    /// Uses as of then, in sixteenths: earlier ones have faded.
    pub uses: u32,
    /// Bytes.
    pub size: u64,
    /// Rises with each new entry.
    pub id: u64,
}

impl Use {
    /// After `times` more uses.
    #[must_use]
    pub fn again(self, times: u32, now: u64, pace: &Pace) -> Self {
        let left = f64::from(self.uses) * (-self.faded(now, pace)).exp2();
        let uses = (left.round() as u32).saturating_add(times.saturating_mul(ONE_USE)).min(MOST_USES);
        Self { last_use: now.max(self.last_use), uses, ..self }
    }

    /// How many times its uses have halved.
    fn faded(self, now: u64, pace: &Pace) -> f64 {
        pace.half_life().map_or(0.0, |half_life| idle(self, now) / half_life)
    }

    /// Less for what should stay; as a logarithm, so that nothing is ever lost in zero.
    fn dispensability(self, now: u64, pace: &Pace) -> f64 {
        let mebibytes = self.size as f64 / f64::from(1 << 20);
        let weight = 1.0 + SIZE_WEIGHT * (1.0 + mebibytes).log2();
        self.faded(now, pace) + weight.log2() - (f64::from(self.uses.max(1)) / f64::from(ONE_USE)).log2()
    }
}

/// Seconds without use. A clock that was set back gives none.
fn idle(of: Use, now: u64) -> f64 {
    now.saturating_sub(of.last_use) as f64 + 1.0
}

/// How long entries lie idle in this cache, in the mean: what a use is worth depends on it. It is learned from samples, the first
/// of which is believed at once, so nothing need be written down.
#[derive(Debug, Default)]
pub struct Pace {
    /// Seconds, as the bits of an `f64`; 0: not known.
    idle: AtomicU64,
}

impl Pace {
    fn half_life(&self) -> Option<f64> {
        let idle = self.idle_seconds();
        (idle > 0.0).then_some(idle * HALF_LIFE)
    }

    /// The mean idle time in seconds; 0: not known.
    pub fn idle_seconds(&self) -> f64 {
        f64::from_bits(self.idle.load(Ordering::Relaxed))
    }

    /// The pace of such a mean idle time.
    pub fn of_idle_seconds(seconds: f64) -> Self {
        Self { idle: AtomicU64::new(seconds.to_bits()) }
    }

    /// Learns from a sample.
    pub fn observe(&self, sample: &[Use], now: u64) {
        if sample.is_empty() {
            return;
        }
        let mean = sample.iter().map(|each| idle(*each, now)).sum::<f64>() / sample.len() as f64;
        let before = self.idle_seconds();
        let after = if before > 0.0 { before + (mean - before) * FOLLOWED } else { mean };
        // Two who do this at once lose one of two samples.
        self.idle.store(after.to_bits(), Ordering::Relaxed);
    }
}

/// The places of a sample in the order in which they should go; of those worth the same the oldest first.
pub fn order_to_go(sample: &[Use], now: u64, pace: &Pace) -> Vec<usize> {
    let mut order: Vec<(f64, u64, usize)> =
        sample.iter().enumerate().map(|(at, each)| (each.dispensability(now, pace), each.id, at)).collect();
    order.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    order.into_iter().map(|(.., at)| at).collect()
}

/// What evicted entries had, by a hash, for as long as about as many others are evicted as there are: a count-min sketch of counters
/// of four bits that halve with time. Its memory never grows; what it mixes up is a hint too good.
#[derive(Debug)]
pub struct Ghosts {
    /// Two counters a byte.
    counters: Vec<u8>,
    remembered: usize,
}

impl Ghosts {
    /// Counters of a cache: 4 MiB, which the system gives as they are touched.
    pub const COUNTERS: usize = 1 << 23;
    /// Counters halve at the earliest after so many entries were remembered, so that halving costs next to nothing ...
    const LEAST_REMEMBERED: usize = 4096;
    /// ... and at the latest when one for so many counters was, so that few are mixed up.
    const COUNTERS_EACH: usize = 16;
    const MOST: u8 = 15;

    /// With that many counters, a power of two.
    pub fn new(counters: usize) -> Self {
        Self { counters: vec![0; counters.next_power_of_two() / 2], remembered: 0 }
    }

    /// The four counters of a hash: by two halves of it (Kirsch and Mitzenmacher 2006).
    fn places(&self, hash: u128) -> [usize; 4] {
        let (start, step) = (hash as u64, (hash >> 64) as u64 | 1);
        let mask = self.counters.len() * 2 - 1;
        std::array::from_fn(|at| start.wrapping_add(step.wrapping_mul(at as u64)) as usize & mask)
    }

    fn counter(&self, place: usize) -> u8 {
        self.counters[place / 2] >> (place % 2 * 4) & Self::MOST
    }

    /// Whole uses that an entry had when it was evicted, at most fifteen; 0 if it is not remembered.
    pub fn uses(&self, hash: u128) -> u32 {
        self.places(hash).into_iter().map(|place| self.counter(place)).min().map_or(0, u32::from)
    }

    /// Remembers an entry that is evicted, of so many entries that there are.
    pub fn remember(&mut self, hash: u128, evicted: Use, now: u64, pace: &Pace, entries: u64) {
        let left = evicted.again(0, now, pace).uses.div_ceil(ONE_USE);
        let uses = u8::try_from(left).unwrap_or(Self::MOST).clamp(1, Self::MOST);
        for place in self.places(hash) {
            if self.counter(place) < uses {
                let (byte, shift) = (&mut self.counters[place / 2], place % 2 * 4);
                *byte = *byte & !(Self::MOST << shift) | uses << shift;
            }
        }
        self.remembered += 1;
        let most = (self.counters.len() * 2 / Self::COUNTERS_EACH).max(Self::LEAST_REMEMBERED);
        let span = usize::try_from(entries).unwrap_or(usize::MAX).clamp(Self::LEAST_REMEMBERED, most);
        if self.remembered >= span {
            self.remembered = 0;
            // Both counters of a byte; the bit that would fall into the neighbour is dropped.
            self.counters.iter_mut().for_each(|pair| *pair = *pair >> 1 & 0x77);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(last_use: u64, uses: u32, size: u64) -> Use {
        Use { last_use, uses: uses * ONE_USE, size, id: 1 }
    }

    #[test]
    fn idle_rarely_used_and_large_entries_go_first() {
        let (now, pace) = (1_000_000, Pace::of_idle_seconds(1000.0));
        let first = |a, b| order_to_go(&[a, b], now, &pace)[0] == 0;
        assert!(first(used(now - 1000, 1, 0), used(now - 10, 1, 0)));
        assert!(first(used(now - 1000, 1, 0), used(now - 1000, 9, 0)));
        assert!(first(used(now - 1000, 1, 1 << 30), used(now - 1000, 1, 1 << 10)));
        assert!(first(used(now - 10, 1, 0), used(now - 1000, 4, 0)), "new is not better than often used");
        assert!(first(used(0, 64, 0), used(now - 10, 1, 0)), "old fame fades");
    }

    #[test]
    fn of_the_same_worth_the_oldest_goes_first_whatever_the_clock_does() {
        let entry = |id| Use { id, ..used(1000, 1, 0) };
        for (now, pace) in [(1000, 0.0), (1, 3.0), (u64::MAX, 3.0), (1000, f64::MAX)]
            .map(|(now, idle)| (now, Pace::of_idle_seconds(idle)))
        {
            assert_eq!(order_to_go(&[entry(3), entry(1), entry(2)], now, &pace), [1, 2, 0]);
        }
    }

    #[test]
    fn uses_fade_by_the_pace_of_the_cache_and_are_bounded() {
        let once = used(0, 1, 0);
        assert_eq!(once.again(2, 1 << 40, &Pace::default()).uses, 3 * ONE_USE, "nothing was evicted: nothing fades");
        assert_eq!(once.again(1, 399, &Pace::of_idle_seconds(100.0)).uses, ONE_USE / 2 + ONE_USE);
        assert_eq!(once.again(u32::MAX, 399, &Pace::of_idle_seconds(100.0)).uses, MOST_USES);
        assert_eq!(used(10, 1, 0).again(1, 5, &Pace::default()).last_use, 10, "a clock that was set back");
    }

    #[test]
    fn the_pace_is_believed_at_once_and_followed_slowly() {
        let pace = Pace::default();
        pace.observe(&[], 5);
        assert_eq!(pace.half_life(), None);
        pace.observe(&[used(0, 1, 0), used(50, 1, 0)], 99);
        assert_eq!(pace.half_life(), Some(75.0 * HALF_LIFE));
        pace.observe(&[used(0, 1, 0)], 138);
        assert_eq!(pace.half_life(), Some(76.0 * HALF_LIFE));
    }

    #[test]
    fn ghosts_are_known_again_and_forgotten() {
        let hash = |number: u64| u128::from(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)) << 64 | u128::from(number) << 7;
        let mut ghosts = Ghosts::new(1 << 16);
        let pace = Pace::of_idle_seconds(100.0);
        ghosts.remember(hash(1), used(0, 1, 0), 0, &pace, 10);
        ghosts.remember(hash(2), used(0, 64, 0), 0, &pace, 10);
        assert_eq!((ghosts.uses(hash(1)), ghosts.uses(hash(2)), ghosts.uses(hash(3))), (1, 15, 0));
        let bytes = ghosts.counters.len();
        for number in 10..10 + 4 * Ghosts::LEAST_REMEMBERED as u64 {
            ghosts.remember(hash(number), used(0, 1, 0), 0, &pace, 10);
        }
        assert_eq!((ghosts.uses(hash(1)), ghosts.uses(hash(2))), (0, 0));
        assert_eq!(ghosts.counters.len(), bytes);
        let mixed_up = (1 << 32..(1 << 32) + 1000).filter(|number| ghosts.uses(hash(*number)) > 0).count();
        assert!(mixed_up < 100, "{mixed_up} of 1000 that were never there");
    }
}
