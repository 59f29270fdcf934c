//! A counter in stripes: threads that count at the same time write to different cache lines, and a reader adds the stripes up.
//! For what every request counts; all else is well served by one atomic.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use prometheus_client::metrics::counter::Atomic;

/// A power of two: more than most machines have workers for one program to fight over a line.
const STRIPES: usize = 8;

/// One cache line, or the two that some processors fetch together.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Stripe(AtomicU64);

/// Stripes of a count.
#[derive(Debug, Default)]
pub struct Striped(Box<[Stripe; STRIPES]>);

thread_local! {
    static OWN: Cell<usize> = const { Cell::new(usize::MAX) };
}

static NEXT: AtomicUsize = AtomicUsize::new(0);

fn own() -> usize {
    OWN.try_with(|own| {
        if own.get() == usize::MAX {
            own.set(NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES);
        }
        own.get()
    })
    .unwrap_or(0)
}

impl Atomic<u64> for Striped {
    fn inc(&self) -> u64 {
        self.inc_by(1)
    }

    /// The stripe's count before, not the sum's: nobody here asks for it.
    fn inc_by(&self, by: u64) -> u64 {
        self.0[own()].0.fetch_add(by, Ordering::Relaxed)
    }

    fn get(&self) -> u64 {
        self.0.iter().map(|stripe| stripe.0.load(Ordering::Relaxed)).sum()
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn all_that_threads_count_is_in_the_sum() {
        let counter = Counter::<u64, Striped>::default();
        std::thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| (0..1000).for_each(|_| _ = counter.inc()));
            }
        });
        counter.inc_by(5);
        assert_eq!(counter.get(), 20_005);
    }
}
