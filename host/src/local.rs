//! A thread's own handle on something that all threads share.
//!
//! Cloning an `Arc` writes to its counter, and a counter that all cores write to moves from cache to cache with each request:
//! with two workers at full load that cost a third of what the program does for a hit. A `Local` is an `Arc` around the `Arc`,
//! made once for each thread; requests clone the outer one, whose counter only their own thread touches. A request that is
//! moved to another thread takes its handle along and works there just as well.

use std::any::Any;
use std::cell::RefCell;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Handles that a thread keeps; two things that share a place displace each other.
const PLACES: usize = 128;

/// A handle on a shared value that is cheap to clone on the thread that made it.
#[derive(Debug)]
#[expect(clippy::redundant_allocation, reason = "the outer counter is what this is for")]
pub struct Local<T>(Arc<Arc<T>>);

impl<T> Clone for Local<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Deref for Local<T> {
    type Target = Arc<T>;

    fn deref(&self) -> &Arc<T> {
        &self.0
    }
}

struct Place {
    address: usize,
    handle: Arc<dyn Any + Send + Sync>,
}

struct Places {
    turn: u64,
    places: Vec<Option<Place>>,
}

thread_local! {
    static OWN: RefCell<Places> = const { RefCell::new(Places { turn: 0, places: Vec::new() }) };
}

/// Counts what has been replaced.
static TURN: AtomicU64 = AtomicU64::new(0);

/// Lets threads drop the handles they keep: something that they may have handles on was replaced. A thread does so when it is
/// next asked for a handle.
pub fn forget() {
    TURN.fetch_add(1, Ordering::Relaxed);
}

impl<T: Send + Sync + 'static> Local<T> {
    /// This thread's handle.
    pub fn of(shared: &Arc<T>) -> Self {
        // At the end of a thread its table is gone.
        OWN.try_with(|own| own.borrow_mut().handle(shared)).unwrap_or_else(|_| Self(Arc::new(Arc::clone(shared))))
    }
}

impl Places {
    fn handle<T: Send + Sync + 'static>(&mut self, shared: &Arc<T>) -> Local<T> {
        let turn = TURN.load(Ordering::Relaxed);
        if self.turn != turn {
            self.turn = turn;
            self.places.clear();
        }
        if self.places.is_empty() {
            self.places.resize_with(PLACES, || None);
        }
        let address = Arc::as_ptr(shared).addr();
        // Allocations are aligned: the low bits say nothing.
        let number = (address >> 4).wrapping_mul(0x9E37_79B9_7F4A_7C15_u64 as usize) >> (usize::BITS - PLACES.ilog2());
        let place = &mut self.places[number];
        if let Some(known) = place
            && known.address == address
            && let Ok(handle) = Arc::clone(&known.handle).downcast::<Arc<T>>()
        {
            return Local(handle);
        }
        let handle = Arc::new(Arc::clone(shared));
        *place = Some(Place { address, handle: Arc::clone(&handle) as Arc<dyn Any + Send + Sync> });
        Local(handle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_has_one_handle_on_a_thing() {
        let shared = Arc::new(7);
        let first = Local::of(&shared);
        let second = Local::of(&shared);
        assert!(Arc::ptr_eq(&first.0, &second.0));
        assert_eq!(**first, 7);
        let there = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || Local::of(&shared)
        });
        let there = there.join().unwrap();
        assert!(!Arc::ptr_eq(&first.0, &there.0));
        assert!(Arc::ptr_eq(&first, &there));
    }

    #[test]
    fn what_was_replaced_is_dropped_at_the_next_turn() {
        let (one, other) = (Arc::new(1), Arc::new(2));
        drop(Local::of(&one));
        assert!(Arc::strong_count(&one) > 1);
        forget();
        assert_eq!(**Local::of(&other), 2);
        assert_eq!(Arc::strong_count(&one), 1);
    }

    #[test]
    fn many_things_have_their_own_handles() {
        let things: Vec<_> = (0..1000).map(Arc::new).collect();
        for _ in 0..2 {
            for thing in &things {
                assert!(Arc::ptr_eq(&Local::of(thing), thing));
            }
        }
    }
}
