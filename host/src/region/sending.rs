//! Who sends from the file just now, and what each chunk's addresses show.
//!
//! A chunk of the file that was moved away is used for something else only when everybody who sends from it is done. A lock that
//! all who send take would be a counter that all cores write to with each answer. Here a thread says in a place of its own which
//! chunk it sends from, and whoever exchanges chunks, which is seldom, looks at the places of all.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

/// What addresses show: this chunk of the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backing {
    pub(super) slot: usize,
    pub(super) huge: bool,
}

/// The same, for all threads.
#[derive(Debug)]
pub(super) struct SharedBacking(AtomicUsize);

impl Backing {
    fn packed(self) -> usize {
        self.slot << 1 | usize::from(self.huge)
    }
}

impl SharedBacking {
    pub(super) fn new(backing: Backing) -> Self {
        Self(AtomicUsize::new(backing.packed()))
    }

    pub(super) fn get(&self) -> Backing {
        let packed = self.0.load(Ordering::SeqCst);
        Backing { slot: packed >> 1, huge: packed & 1 == 1 }
    }

    pub(super) fn set(&self, backing: Backing) {
        self.0.store(backing.packed(), Ordering::SeqCst);
    }
}

/// The chunk that a thread sends from and one more, 0: none. In a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Place(AtomicUsize);

thread_local! {
    static OWN: Arc<Place> = {
        let own = Arc::default();
        let mut all = ALL.lock();
        all.retain(|other| other.strong_count() > 0);
        all.push(Arc::downgrade(&own));
        own
    };
}

static ALL: Mutex<Vec<Weak<Place>>> = Mutex::new(Vec::new());

/// This thread sends from a chunk. It goes to no other thread.
#[derive(Debug)]
pub(super) struct Sending(PhantomData<*const ()>);

impl Sending {
    /// Says so. What the chunk's addresses show is to be looked at after this. None where the thread sends already, or ends.
    pub(super) fn begin(chunk: usize) -> Option<Self> {
        let begun = OWN.try_with(|own| {
            let is_free = own.0.load(Ordering::Relaxed) == 0;
            if is_free {
                // Either who exchanges chunks sees this, or what is looked at next is what he put there.
                own.0.store(chunk + 1, Ordering::SeqCst);
            }
            is_free
        });
        // Only who has begun may have one: its end says that the thread sends no more.
        if begun.is_ok_and(|begun| begun) { Some(Self(PhantomData)) } else { None }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        let _ = OWN.try_with(|own| own.0.store(0, Ordering::Release));
    }
}

/// Waits until everybody is done who sends from what a chunk's addresses showed before this: for a call of sendfile that does not
/// wait.
pub(super) fn wait_for_senders(chunk: usize) {
    let places: Vec<_> = ALL.lock().iter().filter_map(Weak::upgrade).collect();
    for place in places {
        while place.0.load(Ordering::SeqCst) == chunk + 1 {
            thread::sleep(Duration::from_micros(50));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn who_exchanges_a_chunk_waits_for_those_who_send_from_it_and_no_others() {
        let (begun, has_begun) = mpsc::channel();
        let (end, ends) = mpsc::channel::<()>();
        let sender = thread::spawn(move || {
            let sending = Sending::begin(9_000_001).unwrap();
            assert!(Sending::begin(9_000_002).is_none(), "one at a time");
            begun.send(()).unwrap();
            ends.recv().unwrap();
            drop(sending);
            assert!(Sending::begin(9_000_002).is_some());
        });
        has_begun.recv().unwrap();
        wait_for_senders(9_000_002);
        let (done, is_done) = mpsc::channel();
        let waiting = thread::spawn(move || {
            wait_for_senders(9_000_001);
            done.send(()).unwrap();
        });
        assert!(is_done.recv_timeout(Duration::from_millis(100)).is_err());
        end.send(()).unwrap();
        is_done.recv_timeout(Duration::from_secs(60)).unwrap();
        waiting.join().unwrap();
        sender.join().unwrap();
    }
}
