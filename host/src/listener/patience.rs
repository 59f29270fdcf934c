//! How long one stream of HTTP/2 may keep its answer waiting.
//!
//! A client says by its windows how much of each answer it takes. One that takes nothing holds what the answer is made of (a
//! turn at the origin, mostly) for as long as it likes, and other streams of the connection may go on all the while. So each
//! stream has a time of its own; whoever lets it pass loses the stream, and no other. But h2 lets nobody take back what it was
//! given whole: who does not take the last piece of an answer loses the connection.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use tokio::task::AbortHandle;

/// No moment.
const NEVER: u64 = u64::MAX;

/// The streams of one connection whose answers are not complete.
#[derive(Debug, Default)]
pub(super) struct Streams(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    all: Vec<Weak<Patience>>,
    /// The one that was begun last, until its task is known.
    fresh: Weak<Patience>,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Looked {
    /// How many were ended.
    pub(super) ended: usize,
    /// The time of one is over that nobody can end alone any more.
    pub(super) stuck: bool,
    /// The others' next moment, if there is one.
    pub(super) next: Option<u64>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Patience {
    /// Until when the client has to take something, by the connection's clock.
    until_ms: AtomicU64,
    task: OnceLock<AbortHandle>,
}

impl Streams {
    /// A stream whose answer waits for us.
    pub(super) fn begin(&self) -> Arc<Patience> {
        let patience = Arc::new(Patience { until_ms: AtomicU64::new(NEVER), task: OnceLock::new() });
        let mut known = self.0.lock();
        if known.all.len() == known.all.capacity() {
            known.all.retain(|stream| stream.strong_count() > 0);
        }
        known.all.push(Arc::downgrade(&patience));
        known.fresh = Arc::downgrade(&patience);
        patience
    }

    /// The task that the stream which was begun last lives in.
    pub(super) fn lives_in(&self, task: AbortHandle) {
        if let Some(fresh) = std::mem::take(&mut self.0.lock().fresh).upgrade() {
            let _ = fresh.task.set(task);
        }
    }

    /// Ends those whose time is over.
    pub(super) fn look(&self, now_ms: u64) -> Looked {
        let mut known = self.0.lock();
        let (mut ended, mut stuck, mut next) = (0, false, None);
        known.all.retain(|stream| {
            let Some(stream) = stream.upgrade() else { return false };
            let until = stream.until_ms.load(Ordering::Relaxed);
            if until > now_ms {
                next = Some(next.map_or(until, |next: u64| next.min(until))).filter(|next| *next != NEVER);
                return true;
            }
            match stream.task.get().filter(|task| !task.is_finished()) {
                Some(task) => {
                    task.abort();
                    ended += 1;
                }
                None => stuck = true,
            }
            false
        });
        Looked { ended, stuck, next }
    }
}

impl Patience {
    /// The client has until then.
    pub(super) fn until(&self, moment_ms: u64) {
        self.until_ms.store(moment_ms, Ordering::Relaxed);
    }

    /// It is our turn.
    pub(super) fn is_ours(&self) {
        self.until_ms.store(NEVER, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn whoever_lets_its_time_pass_is_ended_and_no_other() {
        let streams = Streams::default();
        let mut tasks = Vec::new();
        let patiences: Vec<_> = [Some(10), Some(30), None]
            .into_iter()
            .map(|until| {
                let patience = streams.begin();
                if let Some(until) = until {
                    patience.until(until);
                }
                let task = tokio::spawn(tokio::time::sleep(Duration::from_secs(60)));
                streams.lives_in(task.abort_handle());
                tasks.push(task);
                patience
            })
            .collect();
        let looked = |ended, next| Looked { ended, stuck: false, next };
        assert_eq!(streams.look(9), looked(0, Some(10)));
        assert_eq!(streams.look(10), looked(1, Some(30)));
        assert!(tasks.remove(0).await.unwrap_err().is_cancelled());
        patiences[1].is_ours();
        assert_eq!(streams.look(1_000), looked(0, None));
        drop(patiences);
        assert_eq!(streams.look(1_000), looked(0, None));
        assert!(streams.0.lock().all.is_empty() && tasks.iter().all(|task| !task.is_finished()));
    }

    #[tokio::test]
    async fn what_has_no_task_any_more_is_stuck() {
        let streams = Streams::default();
        let at_once = streams.begin();
        at_once.until(10);
        assert_eq!(streams.look(10), Looked { ended: 0, stuck: true, next: None });
        let later = streams.begin();
        let task = tokio::spawn(async {});
        streams.lives_in(task.abort_handle());
        task.await.unwrap();
        later.until(20);
        assert_eq!(streams.look(19), Looked { ended: 0, stuck: false, next: Some(20) });
        assert_eq!(streams.look(20), Looked { ended: 0, stuck: true, next: None });
    }
}
