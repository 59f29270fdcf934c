//! Threads that read the index where memory does not have what is asked for.
//!
//! A read takes some ten microseconds and is over, so a few threads have enough to do: they stay warm, where a pool that is made for
//! waiting would spread the same work over dozens, each with a heap of its own and everything cold.
//!
//! What the block cache has needs none of them. It is asked first as long as it mostly knows: where it does not, as with millions of
//! entries asked for at random, asking in vain adds a quarter to each read.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};

/// For each core, while one of two waits for the disk.
const A_CORE: usize = 2;
/// No fewer: a disk answers several at once sooner than one after the other.
const LEAST: usize = 4;
/// No more: what disks gain by.
const MOST: usize = 32;
/// How long a thread without work stays.
const STAYS: Duration = Duration::from_secs(60);

/// Of 1024 that were asked for, so many that the block cache has to know for it to be asked first: what it saves is worth about
/// twice what asking costs.
const WORTHWHILE: u32 = 340;
/// Below that, one of so many asks all the same, to see whether it has become better.
const TRIED: u32 = 16;

/// The threads; they end with this.
#[derive(Debug)]
pub struct Readers {
    runtime: Option<Runtime>,
    /// What the block cache knew lately, of 1024. Two who note this at once lose one of two notes.
    known: AtomicU32,
    passed: AtomicU32,
}

impl Readers {
    /// None is started before there is something to read.
    pub fn new() -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let runtime = Builder::new_current_thread()
            .thread_name("index")
            .thread_keep_alive(STAYS)
            .max_blocking_threads((cores * A_CORE).clamp(LEAST, MOST))
            .build();
        let runtime =
            runtime.inspect_err(|error| tracing::warn!(%error, "the index is read by the threads of all others")).ok();
        Self { runtime, known: AtomicU32::new(1024), passed: AtomicU32::new(0) }
    }

    /// Whether the block cache is asked first.
    pub fn asks_cache(&self) -> bool {
        self.known.load(Ordering::Relaxed) >= WORTHWHILE
            || self.passed.fetch_add(1, Ordering::Relaxed).is_multiple_of(TRIED)
    }

    /// Takes note of whether it knew.
    pub fn note(&self, known: bool) {
        let before = self.known.load(Ordering::Relaxed);
        let after = if known { before + (1024 - before) / 32 } else { before - before.div_ceil(32) };
        self.known.store(after, Ordering::Relaxed);
    }

    /// Where blocking work is spawned.
    pub fn handle(&self) -> Handle {
        self.runtime.as_ref().map_or_else(Handle::current, |runtime| runtime.handle().clone())
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        // It may be dropped where waiting is not allowed; nothing it reads is waited for any more.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of so many reads, how many ask a block cache that knows each of them or none.
    fn asked(readers: &Readers, reads: u32, known: bool) -> u32 {
        let ask = |_| {
            let asks = readers.asks_cache();
            if asks {
                readers.note(known);
            }
            u32::from(asks)
        };
        (0..reads).map(ask).sum()
    }

    #[test]
    fn the_block_cache_is_asked_first_as_long_as_it_knows() {
        let readers = Readers::new();
        assert_eq!(asked(&readers, 1000, true), 1000);
        assert!(asked(&readers, 200, false) < 100, "it is asked in vain");
        assert_eq!(asked(&readers, 1600, false), 100, "now and then");
        assert!(asked(&readers, 1600, true) > 1200, "it knows again");
        assert_eq!(asked(&readers, 1000, true), 1000);
    }

    #[test]
    fn what_is_known_stays_a_part_of_1024() {
        let readers = Readers::new();
        (0..1000).for_each(|_| readers.note(true));
        assert!(readers.known.load(Ordering::Relaxed) <= 1024);
        (0..1000).for_each(|_| readers.note(false));
        assert_eq!(readers.known.load(Ordering::Relaxed), 0);
    }
}
