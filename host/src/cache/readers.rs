//! Threads that read the index where memory does not have what is asked for.
//!
//! A read takes some ten microseconds and is over, so a few threads have enough to do: they stay warm, where a pool that is made for
//! waiting would spread the same work over dozens, each with a heap of its own and everything cold.

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

/// The threads; they end with this.
#[derive(Debug)]
pub struct Readers(Option<Runtime>);

impl Readers {
    /// None is started before there is something to read.
    pub fn new() -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let runtime = Builder::new_current_thread()
            .thread_name("index")
            .thread_keep_alive(STAYS)
            .max_blocking_threads((cores * A_CORE).clamp(LEAST, MOST))
            .build();
        Self(runtime.inspect_err(|error| tracing::warn!(%error, "the index is read by the threads of all others")).ok())
    }

    /// Where blocking work is spawned.
    pub fn handle(&self) -> Handle {
        self.0.as_ref().map_or_else(Handle::current, |runtime| runtime.handle().clone())
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        // It may be dropped where waiting is not allowed; nothing it reads is waited for any more.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
