//! The threads that connections live on: each has a runtime of its own, and a connection stays where it was put.
//!
//! A runtime that all threads share moves tasks to whoever is idle, which takes a wake-up of a sleeping thread each time, and
//! takes what a connection works with from one core's cache to another's. Requests for what is kept are shorter than that is
//! worth: measured with small hits on two cores, every fourteenth request had its own switch of threads. Here a thread has its
//! own queue, its own epoll and its own timers, as nginx's workers do. What is expected to take long (disk, large policies,
//! folders) was never done on these threads anyway; what a request sets in motion for others (a fill) goes on where it began.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use super::sending;

/// Threads for blocking work of each worker: what a disk can use. Each has a heap of its own, of a megabyte and more.
const BLOCKING_THREADS: usize = 16;

/// How long blocking work under way is waited for at the end.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often a worker gives memory back.
const TIDY_EVERY: Duration = Duration::from_secs(10);

thread_local! {
    /// Connections of this thread have let go of memory since it was last given back.
    static RESTS: Cell<bool> = const { Cell::new(false) };
}

/// Takes note that a connection of this thread has let go of memory for a while. The allocator keeps what is freed for the next
/// who wants it, and nobody may come: so the worker gives it back to the system now and then.
pub(super) fn something_rests() {
    RESTS.set(true);
}

/// Gives memory back as long as the worker lives.
async fn tidy() {
    let mut moments = tokio::time::interval(TIDY_EVERY);
    loop {
        moments.tick().await;
        if RESTS.take() {
            #[expect(unsafe_code, reason = "the allocator is C")]
            // SAFETY: it touches what nobody uses, of this thread's heap and of the process. Where another allocator is in use
            // (in tests), there is nothing for it to do.
            unsafe {
                libmimalloc_sys::mi_collect(true);
            }
        }
    }
}

/// Threads for connections. They end when this is dropped.
pub struct Workers {
    workers: Vec<Worker>,
}

struct Worker {
    handle: Handle,
    connections: Arc<AtomicUsize>,
    /// The thread ends when this is dropped.
    _running: oneshot::Sender<()>,
}

/// A connection's place at a worker.
pub(super) struct Place {
    handle: Handle,
    connections: Arc<AtomicUsize>,
}

impl Workers {
    /// Starts one for each core that we may use.
    pub fn start() -> io::Result<Self> {
        let count = thread::available_parallelism().map_or(1, usize::from);
        let workers = (0..count).map(Worker::start).collect::<io::Result<_>>()?;
        Ok(Self { workers })
    }

    /// A place at the one with the fewest connections.
    pub(super) fn place(&self) -> Option<Place> {
        let worker = self.workers.iter().min_by_key(|worker| worker.connections.load(Ordering::Relaxed))?;
        worker.connections.fetch_add(1, Ordering::Relaxed);
        Some(Place { handle: worker.handle.clone(), connections: Arc::clone(&worker.connections) })
    }
}

impl std::fmt::Debug for Workers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Workers({})", self.workers.len())
    }
}

impl Worker {
    fn start(number: usize) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(BLOCKING_THREADS).build()?;
        let handle = runtime.handle().clone();
        let (running, stopped) = oneshot::channel::<()>();
        thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
            runtime.block_on(async {
                tokio::spawn(sending::run());
                tokio::select! {
                    // An error says that the other side was dropped: that is the sign.
                    _ = stopped => {}
                    () = tidy() => {}
                }
            });
            runtime.shutdown_timeout(PATIENCE);
        })?;
        Ok(Self { handle, connections: Arc::default(), _running: running })
    }
}

impl Place {
    /// The worker's runtime.
    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_go_to_whom_has_fewest() {
        let workers = Workers { workers: (0..3).map(|number| Worker::start(number).unwrap()).collect() };
        let counts = || -> Vec<usize> {
            workers.workers.iter().map(|worker| worker.connections.load(Ordering::Relaxed)).collect()
        };
        let mut places: Vec<Place> = (0..6).map(|_| workers.place().unwrap()).collect();
        assert_eq!(counts(), [2, 2, 2]);
        places.truncate(1);
        assert_eq!(counts().iter().sum::<usize>(), 1);
        places.extend((0..2).map(|_| workers.place().unwrap()));
        assert_eq!(counts(), [1, 1, 1]);
    }

    #[test]
    fn each_has_a_thread_of_its_own() {
        let workers = Workers { workers: (0..2).map(|number| Worker::start(number).unwrap()).collect() };
        let names: Vec<_> = (0..2)
            .map(|_| workers.place().unwrap())
            .collect::<Vec<_>>()
            .iter()
            .map(|place| {
                let (sender, receiver) = std::sync::mpsc::channel();
                place.handle().spawn(async move { sender.send(thread::current().name().map(str::to_owned)) });
                receiver.recv().unwrap().unwrap()
            })
            .collect();
        assert_eq!(names, ["worker-0", "worker-1"]);
    }
}
