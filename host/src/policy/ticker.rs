//! The thread that moves the engine's epoch on while policies run: each millisecond while something runs that is to be timed by
//! that, seldom while there are direct calls alone, and not at all while nothing runs. A call takes a microsecond, and hardly any
//! still runs when it is looked at; one that does is watched from then on. A thread that wakes each millisecond takes a core from
//! a worker that often: at full load that was 2 % of the CPU, and more of what the worker had in its caches. A proxy that nobody
//! asks anything should not wake its machine at all.

use std::sync::atomic::{AtomicU8, Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::Duration;

use prometheus_client::metrics::counter::Atomic as _;
use wasmtime::Engine;

use super::error::PolicyError;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::striped::Striped;

/// Length of an epoch while something is timed: time limits are whole milliseconds.
const TICK: Duration = Duration::from_millis(1);

/// Its length while there are direct calls alone. One that runs away is found by then, and has its time limit from there on.
pub(crate) const LOOK: Duration = Duration::from_millis(5);

/// How long ticks follow one another behind the last thing that was timed: the next is not far.
const OFTEN: Duration = Duration::from_millis(3);

/// It rests when nothing ran and nothing began for so long. A direct call is over by then: its wall limit is ten times a time
/// limit of 20 ms.
const CALM: Duration = Duration::from_secs(1);

/// The longest rest.
const LONGEST_REST: Duration = Duration::from_secs(1);

/// How often the epoch moves on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Pace {
    Often,
    Seldom,
    Rest,
}

/// The way to the thread.
#[derive(Clone, Debug)]
pub(crate) struct Ticker(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    metrics: Arc<Metrics>,
    begun: Striped,
    ended: Striped,
    pace: AtomicU8,
    thread: OnceLock<Thread>,
}

/// Something runs that is to be timed by the millisecond.
pub(crate) struct Running<'a>(&'a Shared);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.ended.inc();
    }
}

/// A direct call that still ran when it was looked at.
#[derive(Debug)]
pub(crate) struct Watched(Ticker);

impl Drop for Watched {
    fn drop(&mut self) {
        self.0.0.ended.inc();
    }
}

/// Between the counting of a call and the look at the thread's pace: one of the two sees the other. On x86 counting, an atomic
/// addition, keeps that order by itself.
fn in_order() {
    if cfg!(not(any(target_arch = "x86_64", target_arch = "x86"))) {
        fence(Ordering::SeqCst);
    }
}

/// What there is.
struct Seen {
    /// Something that is timed runs.
    timed: bool,
    /// Something has begun since the last look.
    begun: bool,
}

impl Ticker {
    /// Starts the thread, which ends with the engine.
    pub(crate) fn start(engine: &Engine, metrics: Arc<Metrics>) -> Result<Self, PolicyError> {
        let engine = engine.weak();
        let (begun, ended) = (Striped::default(), Striped::default());
        let pace = AtomicU8::new(Pace::Often as u8);
        let shared = Arc::new(Shared { metrics, begun, ended, pace, thread: OnceLock::new() });
        let spawned = thread::Builder::new().name("policy-epoch".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || {
                let mut rhythm = Rhythm::default();
                while let Some(engine) = engine.upgrade() {
                    engine.increment_epoch();
                    // The engine is not kept alive from here.
                    drop(engine);
                    rhythm.wait(&shared);
                }
            }
        });
        let spawned = spawned.map_err(|error| PolicyError(format!("the epoch thread can't be started: {error}")))?;
        let _ = shared.thread.set(spawned.thread().clone());
        Ok(Self(shared))
    }

    /// Has the epoch move on by the millisecond until what is returned is dropped.
    pub(crate) fn run(&self) -> Running<'_> {
        self.0.begun.inc();
        in_order();
        if self.0.pace.load(Ordering::SeqCst) != Pace::Often as u8 {
            self.0.hurry();
        }
        Running(&self.0)
    }

    /// The same for a direct call that was looked at while it ran.
    pub(crate) fn watch(&self) -> Watched {
        std::mem::forget(self.run());
        Watched(self.clone())
    }

    /// Has the epoch move on for a direct call, which was counted in the metrics and is short.
    pub(crate) fn wake(&self) {
        in_order();
        if self.0.pace.load(Ordering::SeqCst) == Pace::Rest as u8 {
            self.0.hurry();
        }
    }

    #[cfg(test)]
    fn has(&self, pace: Pace) -> bool {
        self.0.pace.load(Ordering::SeqCst) == pace as u8
    }
}

/// What the thread knows of the time behind it.
#[derive(Default)]
struct Rhythm {
    /// All that had begun at the last look.
    seen: u64,
    /// How long nothing was timed, and how long nothing ran at all.
    untimed: Duration,
    calm: Duration,
}

impl Rhythm {
    /// Waits for the next tick.
    fn wait(&mut self, shared: &Shared) {
        let now = shared.look(&mut self.seen);
        if now.timed {
            self.untimed = Duration::ZERO;
        }
        if now.timed || now.begun {
            self.calm = Duration::ZERO;
        }
        let (pace, length) = match (self.untimed < OFTEN, self.calm < CALM) {
            (true, _) => (Pace::Often, TICK),
            (false, true) => (Pace::Seldom, LOOK),
            (false, false) => (Pace::Rest, LONGEST_REST),
        };
        if pace == Pace::Often {
            thread::sleep(TICK);
        } else {
            shared.pace.store(pace as u8, Ordering::SeqCst);
            // Who begins from here on sees the pace and wakes it, or is seen here.
            fence(Ordering::SeqCst);
            let now = shared.look(&mut self.seen);
            let parks = !(now.timed || pace == Pace::Rest && now.begun);
            if parks {
                thread::park_timeout(length);
            }
            let woken = shared.pace.swap(Pace::Often as u8, Ordering::SeqCst) == Pace::Often as u8;
            if now.timed || woken {
                self.untimed = Duration::ZERO;
            }
            if now.timed || now.begun || woken {
                self.calm = Duration::ZERO;
            }
            if woken || !parks {
                // What has begun may not have its deadline yet: that much time has not passed.
                return;
            }
        }
        self.untimed = self.untimed.saturating_add(length);
        self.calm = self.calm.saturating_add(length);
    }
}

impl Shared {
    /// Wakes the thread, if nobody else has.
    fn hurry(&self) {
        if self.pace.swap(Pace::Often as u8, Ordering::SeqCst) != Pace::Often as u8
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }

    fn look(&self, seen: &mut u64) -> Seen {
        // What has ended first: a call between the two looks then counts as running.
        let ended = self.ended.get();
        let begun = self.begun.get();
        let all = begun + self.metrics.policy_calls.get();
        let before = std::mem::replace(seen, all);
        Seen { timed: begun != ended, begun: all != before }
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

    fn started() -> (Engine, Ticker, Arc<Metrics>) {
        let (engine, metrics) = (Engine::default(), Metrics::new().0);
        let ticker = Ticker::start(&engine, Arc::clone(&metrics)).unwrap();
        (engine, ticker, metrics)
    }

    #[test]
    fn it_rests_when_nothing_runs_and_wakes_when_something_does() {
        let (_engine, ticker, metrics) = started();
        wait_for("it rests", || ticker.has(Pace::Rest));
        let running = ticker.run();
        // It does not rest as long as that runs: beyond the calm that it would wait for otherwise.
        let begun = Instant::now();
        while begun.elapsed() < CALM * 2 {
            assert!(ticker.has(Pace::Often));
            thread::sleep(TICK);
        }
        drop(running);
        wait_for("it rests again", || ticker.has(Pace::Rest));
        metrics.policy_calls.inc();
        ticker.wake();
        assert!(!ticker.has(Pace::Rest));
        wait_for("it rests after a direct call", || ticker.has(Pace::Rest));
    }

    #[test]
    fn direct_calls_alone_are_looked_at_seldom_and_one_that_lasts_often() {
        let (_engine, ticker, metrics) = started();
        let call = || {
            metrics.policy_calls.inc();
            ticker.wake();
        };
        wait_for("it looks seldom", || {
            call();
            ticker.has(Pace::Seldom)
        });
        let begun = Instant::now();
        while begun.elapsed() < CALM * 2 {
            call();
            assert!(!ticker.has(Pace::Rest));
            thread::sleep(TICK);
        }
        wait_for("it still does", || ticker.has(Pace::Seldom));
        let watched = ticker.watch();
        let begun = Instant::now();
        while begun.elapsed() < OFTEN * 20 {
            assert!(ticker.has(Pace::Often));
            thread::sleep(TICK);
        }
        drop(watched);
        wait_for("it looks seldom again", || {
            call();
            ticker.has(Pace::Seldom)
        });
    }
}
