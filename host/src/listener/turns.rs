//! Handshakes under way: a bounded number, of which the oldest gives way to the newest.
//!
//! A handshake mostly waits for its client, so whoever says nothing must not keep others waiting: a queue would let a few silent
//! clients stop everybody for as long as they have time. Whoever goes on with its handshake is done long before it is the
//! oldest of so many.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Who is under way.
#[derive(Debug)]
pub(super) struct Turns {
    most: usize,
    under_way: Mutex<UnderWay>,
}

#[derive(Debug, Default)]
struct UnderWay {
    next: u64,
    /// In the order in which they began.
    turns: BTreeMap<u64, oneshot::Sender<()>>,
}

/// One that is under way, until this is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    turns: Arc<Turns>,
    number: u64,
    lost: oneshot::Receiver<()>,
}

impl Turns {
    /// At most so many at once, and at least one.
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most: most.max(1), under_way: Mutex::default() })
    }

    /// Begins one. If there are too many now, the oldest has lost its turn.
    pub(super) fn begin(self: &Arc<Self>) -> Turn {
        let (told, lost) = oneshot::channel();
        let mut under_way = self.under_way.lock();
        let number = under_way.next;
        under_way.next += 1;
        under_way.turns.insert(number, told);
        let oldest = if under_way.turns.len() > self.most { under_way.turns.pop_first() } else { None };
        drop(under_way);
        // It learns it by the sender's end.
        drop(oldest);
        Turn { turns: Arc::clone(self), number, lost }
    }
}

impl Turn {
    /// Returns when the turn is lost.
    pub(super) async fn lost(&mut self) {
        let _ = (&mut self.lost).await;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.under_way.lock().turns.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn the_oldest_gives_way_and_no_other() {
        let turns = Turns::new(2);
        let is_lost = |turn: &mut Turn| turn.lost().now_or_never().is_some();
        let mut first = turns.begin();
        let second = turns.begin();
        assert!(!is_lost(&mut first));
        drop(second);
        let mut third = turns.begin();
        assert!(!is_lost(&mut first), "one had ended");
        let mut fourth = turns.begin();
        assert!(is_lost(&mut first) && !is_lost(&mut third) && !is_lost(&mut fourth));
        drop((first, third, fourth));
        assert!(turns.under_way.lock().turns.is_empty());
    }
}
