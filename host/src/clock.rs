//! What time it is. Only this file asks the operating system, so that every decision about time is a function of values
//! and a test can turn the clock by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment, in milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// From milliseconds since 1970.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Whole seconds since 1970.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// The time from `earlier` to `self`; zero when `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// This moment plus a duration, at most the largest moment there is.
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }

    /// As the standard library's type. Moments it cannot hold become 1970.
    pub fn to_system(self) -> SystemTime {
        UNIX_EPOCH.checked_add(Duration::from_millis(self.0)).unwrap_or(UNIX_EPOCH)
    }

    /// From the standard library's type. Moments before 1970 become 1970.
    pub fn from_system(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// Where the time comes from. Cheap to clone; clones of a manual clock turn together.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The operating system's clock.
    #[default]
    System,
    /// Turned by hand, for tests.
    Manual(ManualClock),
}

impl Clock {
    /// The present moment.
    pub fn now(&self) -> Timestamp {
        match self {
            Self::System => Timestamp(coarse(libc::CLOCK_REALTIME_COARSE)),
            Self::Manual(manual) => Timestamp(manual.0.load(Ordering::Acquire)),
        }
    }
}

/// Milliseconds since some moment in the past, for spans of time; never goes back.
pub fn monotonic_ms() -> u64 {
    coarse(libc::CLOCK_MONOTONIC_COARSE)
}

/// Milliseconds of one of the kernel's coarse clocks. They follow the exact ones by the length of a timer tick, at most 10 ms,
/// and are read from memory: asking the processor for the exact time, several times a request, shows in the profile.
fn coarse(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    #[expect(unsafe_code, reason = "the standard library has no coarse clocks")]
    // SAFETY: `time` is a valid timespec that lives through the call, and the call writes nothing else. Linux has both clocks.
    unsafe {
        libc::clock_gettime(clock, &raw mut time);
    }
    let (seconds, nanos) = (u64::try_from(time.tv_sec).unwrap_or(0), u64::try_from(time.tv_nsec).unwrap_or(0));
    seconds * 1000 + nanos / 1_000_000
}

/// A clock that stands still until it is told to go on.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// A clock that shows the given moment.
    pub fn at(moment: Timestamp) -> Self {
        Self(Arc::new(AtomicU64::new(moment.0)))
    }

    /// Turns the clock to another moment, later or earlier.
    pub fn set(&self, millis: u64) {
        self.0.store(millis, Ordering::Release);
    }

    /// Turns the clock on.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), Ordering::AcqRel);
    }
}
