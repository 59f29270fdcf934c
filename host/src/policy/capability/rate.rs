//! Token buckets named in hosts.json: `rate` in each `per`, up to `burst` at once, one bucket for each key that policies name.
//!
//! Buckets are bounded and sharded: a flood of new keys must neither fill memory nor put all requests behind one lock. A bucket
//! that is full again is the same as none, so those go first when a shard is full. Time is the arrival of the request
//! (`received-at-ms`), which makes a replay exact.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use parking_lot::Mutex;

use crate::clock::Timestamp;
use crate::policy::settings::Rate;

const SHARDS: usize = 32;
/// In all about 260,000 buckets, or 10 MiB.
const BUCKETS_PER_SHARD: usize = 8192;

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// In units of which a token takes `per` milliseconds, so that `rate` of them come in each millisecond: no fractions.
    level: u64,
    at: Timestamp,
    rate: Rate,
}

impl Bucket {
    fn refilled(self, now: Timestamp) -> u64 {
        let elapsed = u64::try_from(now.since(self.at).as_millis()).unwrap_or(u64::MAX);
        capacity(&self.rate).min(self.level.saturating_add(elapsed.saturating_mul(u64::from(self.rate.rate))))
    }
}

fn per_ms(rate: &Rate) -> u64 {
    u64::try_from(rate.per.as_millis()).unwrap_or(u64::MAX).max(1)
}

fn capacity(rate: &Rate) -> u64 {
    u64::from(rate.burst).saturating_mul(per_ms(rate))
}

/// All buckets of the program; they outlive a reload of hosts.json.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    hasher: RandomState,
    shards: Vec<Mutex<HashMap<u64, Bucket>>>,
}

impl Default for RateLimiter {
    fn default() -> Self {
        Self { hasher: RandomState::new(), shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }
}

impl RateLimiter {
    /// Takes `cost` tokens: how many are left, or in how many milliseconds there will be enough.
    pub(crate) fn take(&self, name: &str, rate: &Rate, key: &str, cost: u32, now: Timestamp) -> Result<u32, u32> {
        if cost > rate.burst || rate.rate == 0 && cost > 0 {
            return Err(u32::MAX);
        }
        let price = u64::from(cost).saturating_mul(per_ms(rate));
        // A 64-bit hash under a random key stands for the name and key: two that meet would share a bucket, which takes
        // billions of live buckets to be likely, and can't be brought about from outside.
        let hash = self.hasher.hash_one((name, key));
        let shard = usize::try_from(hash >> 32).unwrap_or(0) % SHARDS;
        let mut buckets = self.shards[shard].lock();
        if buckets.len() >= BUCKETS_PER_SHARD && !buckets.contains_key(&hash) {
            make_room(&mut buckets, now);
        }
        let bucket = buckets.entry(hash).or_insert(Bucket { level: capacity(rate), at: now, rate: *rate });
        bucket.level = bucket.refilled(now).min(capacity(rate));
        bucket.at = bucket.at.max(now);
        bucket.rate = *rate;
        if let Some(left) = bucket.level.checked_sub(price) {
            bucket.level = left;
            Ok(u32::try_from(left / per_ms(rate)).unwrap_or(u32::MAX))
        } else {
            let missing = price - bucket.level;
            Err(u32::try_from(missing.div_ceil(u64::from(rate.rate.max(1)))).unwrap_or(u32::MAX))
        }
    }
}

/// Drops what is full again, else the fuller half of a sample: those lose least by it.
fn make_room(buckets: &mut HashMap<u64, Bucket>, now: Timestamp) {
    buckets.retain(|_, bucket| bucket.refilled(now) < capacity(&bucket.rate));
    if buckets.len() < BUCKETS_PER_SHARD {
        return;
    }
    const SAMPLE: usize = 16;
    let mut sample: Vec<(u64, u64)> = buckets
        .iter()
        .take(SAMPLE)
        .map(|(hash, bucket)| {
            let fullness = bucket.refilled(now).saturating_mul(1000) / capacity(&bucket.rate).max(1);
            (fullness, *hash)
        })
        .collect();
    sample.sort_unstable_by(|a, b| b.cmp(a));
    for (_, hash) in sample.iter().take(SAMPLE / 2) {
        buckets.remove(hash);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    const TEN_A_SECOND: Rate = Rate { rate: 10, per: Duration::from_secs(1), burst: 3 };

    #[test]
    fn a_burst_passes_then_the_rate_holds() {
        let limiter = RateLimiter::default();
        let take = |ms| limiter.take("api", &TEN_A_SECOND, "k", 1, at(ms));
        assert_eq!(take(0), Ok(2));
        assert_eq!(take(0), Ok(1));
        assert_eq!(take(0), Ok(0));
        assert_eq!(take(0), Err(100));
        assert_eq!(take(60), Err(40));
        assert_eq!(take(100), Ok(0));
        assert_eq!(take(10_000), Ok(2), "never more than the burst");
    }

    #[test]
    fn keys_and_names_have_buckets_of_their_own() {
        let limiter = RateLimiter::default();
        assert_eq!(limiter.take("a", &TEN_A_SECOND, "k", 3, at(0)), Ok(0));
        assert_eq!(limiter.take("a", &TEN_A_SECOND, "l", 3, at(0)), Ok(0));
        assert_eq!(limiter.take("b", &TEN_A_SECOND, "k", 3, at(0)), Ok(0));
        assert!(limiter.take("a", &TEN_A_SECOND, "k", 1, at(0)).is_err());
    }

    #[test]
    fn what_can_never_pass_says_so_and_time_never_goes_back() {
        let limiter = RateLimiter::default();
        assert_eq!(limiter.take("a", &TEN_A_SECOND, "k", 4, at(0)), Err(u32::MAX));
        assert_eq!(limiter.take("a", &TEN_A_SECOND, "k", 3, at(1000)), Ok(0));
        assert_eq!(limiter.take("a", &TEN_A_SECOND, "k", 1, at(0)), Err(100), "an earlier request refills nothing");
        assert_eq!(limiter.take("a", &TEN_A_SECOND, "k", 1, at(1100)), Ok(0));
    }

    #[test]
    fn a_flood_of_keys_is_bounded() {
        let limiter = RateLimiter::default();
        for key in 0..(SHARDS * BUCKETS_PER_SHARD + 50_000) {
            let _ = limiter.take("a", &TEN_A_SECOND, &key.to_string(), 1, at(0));
        }
        assert!(limiter.shards.iter().all(|shard| shard.lock().len() <= BUCKETS_PER_SHARD));
    }
}
