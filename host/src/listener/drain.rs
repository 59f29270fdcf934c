//! How a listener ends: first every connection finishes what it has in hand, then what is left is cut off.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use tokio::sync::Notify;

/// How far the end has come. Only ever advances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Phase {
    /// Connections come and go.
    Serving = 0,
    /// No new ones; requests in flight finish.
    Draining = 1,
    /// Everything is cut off.
    Closed = 2,
}

/// The phase, and a bell that rings when it advances. Connections read the phase at every poll, so it is one atomic that
/// all share and nobody writes; the bell's lock is touched once per connection and phase.
#[derive(Debug, Default)]
pub(super) struct Drain {
    phase: AtomicU8,
    /// Clients of HTTP/1.1 that have nothing under way may still ask once.
    patient: AtomicBool,
    advanced: Notify,
}

impl Drain {
    /// The phase now.
    pub(super) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Serving,
            1 => Phase::Draining,
            _ => Phase::Closed,
        }
    }

    /// Who has nothing under way may still ask once.
    pub(super) fn be_patient(&self) {
        self.patient.store(true, Ordering::Release);
    }

    /// Whether who has nothing under way may still ask once.
    pub(super) fn is_patient(&self) -> bool {
        self.patient.load(Ordering::Acquire)
    }

    /// Goes on to a phase; going back is ignored.
    pub(super) fn advance(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::AcqRel);
        self.advanced.notify_waiters();
    }

    /// Waits until who has not asked for anything yet is not waited for any more.
    pub(super) async fn gives_up_waiting(&self) {
        self.reached(Phase::Draining).await;
        if self.is_patient() {
            self.reached(Phase::Closed).await;
        }
    }

    /// Waits until the phase is reached or passed.
    pub(super) async fn reached(&self, phase: Phase) {
        loop {
            let advanced = self.advanced.notified();
            tokio::pin!(advanced);
            // Registered before the phase is read, so that no advance falls in between.
            advanced.as_mut().enable();
            if self.phase() >= phase {
                return;
            }
            advanced.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn waiting_ends_when_the_phase_is_reached_or_passed() {
        let drain = Arc::new(Drain::default());
        let waiting = tokio::spawn({
            let drain = drain.clone();
            async move {
                drain.reached(Phase::Draining).await;
                drain.reached(Phase::Closed).await;
            }
        });
        tokio::task::yield_now().await;
        assert_eq!(drain.phase(), Phase::Serving);
        drain.advance(Phase::Closed);
        waiting.await.expect("the waiting task does not panic");
        drain.advance(Phase::Draining);
        assert_eq!(drain.phase(), Phase::Closed);
    }
}
