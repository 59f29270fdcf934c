//! The thread that moves the engine's epoch on every millisecond while policies run, and rests while none does: a proxy that
//! nobody asks anything should not wake its machine a thousand times a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use prometheus_client::metrics::counter::Atomic as _;
use wasmtime::Engine;

use super::error::PolicyError;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::striped::Striped;

/// Length of an epoch: time limits are whole milliseconds.
const TICK: Duration = Duration::from_millis(1);

/// It rests after so many ticks in which nothing ran and nothing began. A direct call is over by then: its wall limit is ten
/// times a time limit of 20 ms.
const CALM: u32 = 1000;

/// The longest rest. A call that begins in the moment in which the thread goes to rest is seen by one of the two on machines
/// that keep the order of stores and loads around an atomic addition, as all common ones do; elsewhere it would be timed from
/// the end of the rest on.
const LONGEST_REST: Duration = Duration::from_secs(1);

/// The way to the thread.
#[derive(Debug)]
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Thread,
}

#[derive(Debug)]
struct Shared {
    metrics: Arc<Metrics>,
    begun: Striped,
    ended: Striped,
    resting: AtomicBool,
}

/// Something runs that is to be timed.
pub(crate) struct Running<'a>(&'a Shared);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.ended.inc();
    }
}

impl Ticker {
    /// Starts the thread, which ends with the engine.
    pub(crate) fn start(engine: &Engine, metrics: Arc<Metrics>) -> Result<Self, PolicyError> {
        let engine = engine.weak();
        let (begun, ended) = (Striped::default(), Striped::default());
        let shared = Arc::new(Shared { metrics, begun, ended, resting: AtomicBool::new(false) });
        let spawned = thread::Builder::new().name("policy-epoch".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || {
                let (mut seen, mut calm) = (0, 0);
                while let Some(engine) = engine.upgrade() {
                    engine.increment_epoch();
                    // The engine is not kept alive from here.
                    drop(engine);
                    calm = if shared.rests_since(&mut seen) { calm + 1 } else { 0 };
                    if calm < CALM {
                        thread::sleep(TICK);
                        continue;
                    }
                    shared.resting.store(true, Ordering::SeqCst);
                    if shared.rests_since(&mut seen) {
                        thread::park_timeout(LONGEST_REST);
                    }
                    if !shared.resting.swap(false, Ordering::SeqCst) {
                        calm = 0;
                    }
                }
            }
        });
        let thread = spawned
            .map_err(|error| PolicyError(format!("the epoch thread can't be started: {error}")))?
            .thread()
            .clone();
        Ok(Self { shared, thread })
    }

    /// Has the epoch move on until what is returned is dropped.
    pub(crate) fn run(&self) -> Running<'_> {
        self.shared.begun.inc();
        self.wake();
        Running(&self.shared)
    }

    /// Has the epoch move on for a direct call, which was counted in the metrics and is short.
    pub(crate) fn wake(&self) {
        if self.shared.resting.load(Ordering::SeqCst) && self.shared.resting.swap(false, Ordering::SeqCst) {
            self.thread.unpark();
        }
    }

    #[cfg(test)]
    fn rests(&self) -> bool {
        self.shared.resting.load(Ordering::SeqCst)
    }
}

impl Shared {
    /// Whether nothing runs, and nothing has begun since the last look.
    fn rests_since(&self, seen: &mut u64) -> bool {
        // What has ended first: a call between the two looks then counts as running.
        let ended = self.ended.get();
        let begun = self.begun.get();
        let all = begun + self.metrics.policy_calls.get();
        let rests = begun == ended && all == *seen;
        *seen = all;
        rests
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn wait_for(what: &str, condition: impl Fn() -> bool) {
        let begun = Instant::now();
        while !condition() {
            assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
            thread::sleep(TICK);
        }
    }

    #[test]
    fn it_rests_when_nothing_runs_and_wakes_when_something_does() {
        let engine = Engine::default();
        let metrics = Metrics::new().0;
        let ticker = Ticker::start(&engine, Arc::clone(&metrics)).unwrap();
        wait_for("it rests", || ticker.rests());
        let running = ticker.run();
        assert!(!ticker.rests());
        // It does not rest as long as that runs: beyond the calm that it would wait for otherwise.
        let begun = Instant::now();
        while begun.elapsed() < TICK * CALM * 2 {
            assert!(!ticker.rests());
            thread::sleep(TICK);
        }
        drop(running);
        wait_for("it rests again", || ticker.rests());
        metrics.policy_calls.inc();
        ticker.wake();
        assert!(!ticker.rests());
        wait_for("it rests after a direct call", || ticker.rests());
    }
}
