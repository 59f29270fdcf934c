//! Threads that read the index where memory does not have what is asked for.
//!
//! A read takes some ten microseconds and is over, so a few threads have enough to do: they stay warm, where a pool that is made for
//! waiting would spread the same work over dozens, each with a heap of its own and everything cold.
//!
//! What lies in memory, in RocksDB's block cache or the system's page cache, needs none of them: whoever asks reads it at once, and
//! there is nobody to wake. With four connections that ask for ten million entries at random it is twice as many answers a second.
//! That is tried as long as it mostly comes off; where the disk has to be asked for most, trying in vain adds to each read.

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

/// Of 1024 reads so many have to come off at once for it to be tried: what that saves is worth about twice what trying costs.
const WORTHWHILE: u32 = 340;
/// Below that, one of so many tries all the same, to see whether it has become better.
const TRIED: u32 = 16;

/// The threads; they end with this.
#[derive(Debug)]
pub struct Readers {
    runtime: Option<Runtime>,
    /// How many came off at once lately, of 1024. Two who note this at once lose one of two notes.
    at_once: AtomicU32,
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
        Self { runtime, at_once: AtomicU32::new(1024), passed: AtomicU32::new(0) }
    }

    /// Reads something here and now if that may come off: `read` gives nothing rather than wait.
    pub fn try_at_once<T>(&self, read: impl FnOnce() -> Option<T>) -> Option<T> {
        if !self.is_worthwhile() {
            return None;
        }
        let read = read();
        self.note(read.is_some());
        read
    }

    fn is_worthwhile(&self) -> bool {
        self.at_once.load(Ordering::Relaxed) >= WORTHWHILE
            || self.passed.fetch_add(1, Ordering::Relaxed).is_multiple_of(TRIED)
    }

    /// Takes note of whether it came off.
    fn note(&self, at_once: bool) {
        let before = self.at_once.load(Ordering::Relaxed);
        let after = if at_once { before + (1024 - before) / 32 } else { before - before.div_ceil(32) };
        self.at_once.store(after, Ordering::Relaxed);
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

    /// Of so many reads, how many are tried at once where that comes off or does not.
    fn tried(readers: &Readers, reads: u32, comes_off: bool) -> u32 {
        let mut tried = 0;
        for _ in 0..reads {
            let read = readers.try_at_once(|| {
                tried += 1;
                comes_off.then_some(())
            });
            assert!(comes_off || read.is_none());
        }
        tried
    }

    #[test]
    fn reading_at_once_is_tried_as_long_as_it_comes_off() {
        let readers = Readers::new();
        assert_eq!(tried(&readers, 1000, true), 1000);
        assert!(tried(&readers, 200, false) < 100, "it is tried in vain");
        assert_eq!(tried(&readers, 1600, false), 100, "now and then");
        assert!(tried(&readers, 1600, true) > 1200, "it comes off again");
        assert_eq!(tried(&readers, 1000, true), 1000);
    }

    #[test]
    fn what_came_off_stays_a_part_of_1024() {
        let readers = Readers::new();
        (0..1000).for_each(|_| readers.note(true));
        assert!(readers.at_once.load(Ordering::Relaxed) <= 1024);
        (0..1000).for_each(|_| readers.note(false));
        assert_eq!(readers.at_once.load(Ordering::Relaxed), 0);
    }
}
