//! What one call of a policy may use: CPU time, memory, host calls, and how much it may add to the exchange.
//!
//! The time budget is CPU time: on a busy machine a worker that was preempted must not cost an innocent policy its instance.
//! Reading the thread's CPU clock is a system call, so on the direct lane it is read only when the epoch deadline passes: the
//! first time the clock is noted and the deadline moved on, the next time the policy is stopped if it has really used its
//! budget since. On a fiber, which may move between threads, each poll is measured (`Meter`). A wall limit of ten budgets
//! stands behind both.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use wasmtime::{ResourceLimiter, UpdateDeadline};

use super::error::Fence;
use super::ticker::{LOOK, Ticker, Watched};

/// Largest file that is taken for a policy: WASM.md, loading; a Python component has 18 MiB.
pub(crate) const FILE_BYTES_MAX: u64 = 32 << 20;
/// What one host call may make us allocate for strings and lists that come from the guest.
pub(crate) const HOSTCALL_BYTES_MAX: usize = 1 << 20;
/// Table elements of all tables of one instance; the largest guest measured has fewer than 20,000.
const TABLE_ELEMENTS_MAX: usize = 20_000;
/// Core instances, memories and tables in one component: a composed one has several.
const PARTS_MAX: usize = 64;
/// Wall time in budgets.
const WALL_FACTOR: u32 = 10;
/// Starting an instance and configuring it may take this many budgets, since it happens once in many calls.
const START_FACTOR: u32 = 20;
/// ... but is never given less than this.
const START_MIN: Duration = Duration::from_millis(100);

/// Key parts, `set-key` and `key-query-only` together must leave room for host and path in a key of 8 KiB.
pub(crate) const KEY_PARTS_MAX: usize = 32;
/// Bytes of all key parts, or of a replaced key.
pub(crate) const KEY_BYTES_MAX: usize = 4096;
/// Names in `key-query-only`.
pub(crate) const QUERY_NAMES_MAX: usize = 128;
/// Header edits for the origin, and header lines of a response or reply: as many as common servers take.
pub(crate) const HEADERS_MAX: usize = 128;
/// Bytes of all header edits, or of all fields of a response or reply.
pub(crate) const HEADER_BYTES_MAX: usize = 64 << 10;
/// Variables of one request; they may go to the access log.
pub(crate) const VARS_MAX: usize = 64;
/// Bytes of all variables.
pub(crate) const VAR_BYTES_MAX: usize = 32 << 10;
/// Tags of one response; each is a record in the index.
pub(crate) const TAGS_MAX: usize = 64;
/// Bytes of one tag.
pub(crate) const TAG_BYTES_MAX: usize = 256;
/// Paths in `try-paths`: each may cost a request to the origin.
pub(crate) const TRY_PATHS_MAX: usize = 16;
/// Bytes of a path or query.
pub(crate) const PATH_BYTES_MAX: usize = 8192;
/// Bytes of one log line; the rest is cut off.
pub(crate) const LOG_LINE_BYTES_MAX: usize = 4096;
/// Log lines of one policy in a second; more are dropped and counted.
pub(crate) const LOG_LINES_PER_SECOND: u32 = 100;

/// CPU time that this thread has used.
pub(crate) fn thread_cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    #[expect(unsafe_code, reason = "the standard library has no clock for a thread's CPU time")]
    // SAFETY: `time` is a valid timespec that lives through the call, and the call writes nothing else.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    if result != 0 {
        return Duration::ZERO;
    }
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// CPU time of a call on a fiber, summed over polls on whichever threads.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    /// Nanoseconds of finished polls.
    used: AtomicU64,
    /// The thread's clock when this poll began; zero between polls.
    poll_began: AtomicU64,
}

impl Meter {
    fn begin(&self) {
        self.poll_began.store(nanos(thread_cpu()), Ordering::Relaxed);
    }

    fn so_far(&self) -> Duration {
        let used = self.used.load(Ordering::Relaxed);
        let here = match self.poll_began.load(Ordering::Relaxed) {
            0 => 0,
            began => nanos(thread_cpu()).saturating_sub(began),
        };
        Duration::from_nanos(used.saturating_add(here))
    }

    fn end(&self) {
        let sum = self.so_far();
        self.used.store(nanos(sum), Ordering::Relaxed);
        self.poll_began.store(0, Ordering::Relaxed);
    }

    fn reset(&self) {
        self.used.store(0, Ordering::Relaxed);
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A future whose polls are counted by a `Meter`.
pub(crate) struct Metered<F> {
    meter: Arc<Meter>,
    future: Pin<Box<F>>,
}

impl<F> Metered<F> {
    /// Around a future.
    pub(crate) fn new(meter: Arc<Meter>, future: F) -> Self {
        Self { meter, future: Box::pin(future) }
    }
}

impl<F: Future> Future for Metered<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.meter.begin();
        let polled = self.future.as_mut().poll(context);
        self.meter.end();
        polled
    }
}

/// The clocks when a direct call was first looked at.
#[derive(Debug)]
struct Noted {
    cpu: Duration,
    wall: Instant,
    /// What it had used by then, at most.
    before: Duration,
    _watched: Watched,
}

/// What is left of time and host calls in the call under way.
#[derive(Debug)]
pub(crate) struct Budget {
    time: Duration,
    calls: u32,
    calls_left: u32,
    /// When the deadline first passed, on the direct lane.
    noted: Option<Noted>,
    ticker: Ticker,
    /// On the other lane.
    meter: Option<Arc<Meter>>,
    began: Option<Instant>,
}

impl Budget {
    /// A budget; with a meter for the lane of fibers.
    pub(crate) fn new(meter: Option<Arc<Meter>>, ticker: Ticker) -> Self {
        Self { time: Duration::ZERO, calls: 0, calls_left: 0, noted: None, ticker, meter, began: None }
    }

    /// Begins a call. The store's epoch deadline is one tick from now.
    pub(crate) fn begin(&mut self, time: Duration, calls: u32, began: Instant) {
        self.time = time;
        self.calls = calls;
        self.calls_left = calls;
        self.noted = None;
        self.began = Some(began);
        if let Some(meter) = &self.meter {
            meter.reset();
        }
    }

    /// The call is over.
    pub(crate) fn end(&mut self) {
        self.noted = None;
    }

    /// The time that starting and configuring an instance may take.
    pub(crate) fn start_time(time: Duration) -> Duration {
        (time * START_FACTOR).max(START_MIN)
    }

    /// The wall time behind a time budget.
    pub(crate) fn wall(time: Duration) -> Duration {
        time * WALL_FACTOR
    }

    /// The meter of a fiber.
    pub(crate) fn meter(&self) -> Option<Arc<Meter>> {
        self.meter.clone()
    }

    /// Counts a host call.
    #[inline]
    pub(crate) fn call(&mut self) -> Result<(), Fence> {
        match self.calls_left.checked_sub(1) {
            Some(left) => {
                self.calls_left = left;
                Ok(())
            }
            None => Err(Fence::Calls(format!("it made more than {} host calls", self.calls))),
        }
    }

    /// CPU time that the call is known to have used; `None` when it ended before the first deadline.
    pub(crate) fn cpu_used(&self) -> Option<Duration> {
        match (&self.meter, &self.noted) {
            (Some(meter), _) => Some(meter.so_far()),
            (None, Some(noted)) => Some(thread_cpu().saturating_sub(noted.cpu) + noted.before),
            (None, None) => None,
        }
    }

    /// The epoch deadline has passed: go on, or stop.
    pub(crate) fn deadline_passed(&mut self) -> Result<UpdateDeadline, Fence> {
        let out_of_time = Fence::Time(u64::try_from(self.time.as_millis()).unwrap_or(u64::MAX));
        if let Some(meter) = &self.meter {
            let late = self.began.is_some_and(|began| began.elapsed() >= Self::wall(self.time));
            if late || meter.so_far() >= self.time {
                return Err(out_of_time);
            }
            return Ok(UpdateDeadline::Yield(1));
        }
        match &self.noted {
            None => {
                let (cpu, wall) = (thread_cpu(), Instant::now());
                let before = self.began.map_or(LOOK, |began| wall.saturating_duration_since(began).min(LOOK));
                self.noted = Some(Noted { cpu, wall, before, _watched: self.ticker.watch() });
                Ok(UpdateDeadline::Continue(1))
            }
            Some(Noted { cpu, wall, .. }) => {
                let used = thread_cpu().saturating_sub(*cpu);
                if used >= self.time || wall.elapsed() >= Self::wall(self.time) {
                    return Err(out_of_time);
                }
                // By the clocks and not by counting ticks, which come late where others want the cores.
                Ok(UpdateDeadline::Continue(1))
            }
        }
    }
}

/// Memory of one instance. What is refused is noted, since the guest itself only sees a failed growth and then traps.
#[derive(Debug)]
pub(crate) struct MemoryFence {
    limit: usize,
    used: usize,
    refused: bool,
}

impl MemoryFence {
    /// At most this many bytes in all linear memories of the instance.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, used: 0, refused: false }
    }

    /// Whether growth was refused since `begin`.
    pub(crate) fn refused(&self) -> bool {
        self.refused
    }

    /// Forgets an earlier refusal that the guest lived with.
    pub(crate) fn begin(&mut self) {
        self.refused = false;
    }

    /// Whether so much is used that the instance should make room for a fresh one.
    pub(crate) fn nearly_full(&self) -> bool {
        self.used > self.limit / 4 * 3
    }
}

impl ResourceLimiter for MemoryFence {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.used.saturating_sub(current).saturating_add(desired);
        if total > self.limit {
            self.refused = true;
            return Ok(false);
        }
        self.used = total;
        Ok(true)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS_MAX)
    }

    fn instances(&self) -> usize {
        PARTS_MAX
    }

    fn memories(&self) -> usize {
        PARTS_MAX
    }

    fn tables(&self) -> usize {
        PARTS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget() -> Budget {
        let ticker = Ticker::start(&wasmtime::Engine::default(), crate::telemetry::metrics::Metrics::new().0);
        Budget::new(None, ticker.unwrap())
    }

    #[test]
    fn the_first_deadline_notes_the_clock_and_a_later_one_stops_what_used_its_budget() {
        let mut budget = budget();
        budget.begin(Duration::from_millis(2), 10, Instant::now());
        assert!(matches!(budget.deadline_passed(), Ok(UpdateDeadline::Continue(1))));
        assert!(matches!(budget.deadline_passed(), Ok(UpdateDeadline::Continue(_))), "no time has been used yet");
        let began = thread_cpu();
        let mut spin = 0u64;
        while thread_cpu().saturating_sub(began) < Duration::from_millis(3) {
            spin = std::hint::black_box(spin + 1);
        }
        assert!(matches!(budget.deadline_passed(), Err(Fence::Time(2))));
    }

    #[test]
    fn sleeping_is_not_using_time_until_the_wall_limit() {
        let mut budget = budget();
        budget.begin(Duration::from_millis(3), 10, Instant::now());
        assert!(budget.deadline_passed().is_ok());
        std::thread::sleep(Duration::from_millis(5));
        assert!(budget.deadline_passed().is_ok());
        std::thread::sleep(Duration::from_millis(30));
        assert!(budget.deadline_passed().is_err());
    }

    #[test]
    fn host_calls_are_counted() {
        let mut budget = budget();
        budget.begin(Duration::from_millis(2), 2, Instant::now());
        assert!(budget.call().is_ok() && budget.call().is_ok());
        assert_eq!(budget.call().unwrap_err().kind(), super::super::decision::FailureKind::Calls);
    }

    #[test]
    fn memory_is_summed_over_all_memories_of_an_instance() {
        let mut fence = MemoryFence::new(100);
        assert!(fence.memory_growing(0, 60, None).unwrap());
        assert!(!fence.memory_growing(0, 60, None).unwrap());
        assert!(fence.refused());
        assert!(fence.memory_growing(60, 80, None).unwrap());
        assert!(fence.nearly_full());
    }
}
