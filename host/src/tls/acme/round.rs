//! A round for one name: an order with one challenge and, when the CA did not find the answer, at once an order with the
//! other. A failed challenge makes its order invalid (RFC 8555 section 7.1.6), so each needs an order of its own.

use std::sync::Arc;

use super::Shared;
use super::agenda::{Held, Outcome};
use super::attempts::Attempt;
use super::challenges::next;
use super::failure::Failure;
use super::order::{Progress, Wish};
use super::renewal_info::identifier;
use super::schedule::Term;
use crate::clock::Timestamp;
use crate::tls::store::Stored;

/// A round's end, with the certificate when there is one.
pub(super) struct Ended {
    pub(super) outcome: Outcome,
    pub(super) stored: Option<Arc<Stored>>,
}

impl Ended {
    fn without(outcome: Outcome) -> Self {
        Self { outcome, stored: None }
    }
}

impl Shared {
    /// Orders a certificate for a name.
    pub(super) async fn round(&self, name: &str) -> Ended {
        let wanted = || self.agenda.lock().wants(name);
        let works = self.agenda.lock().ledger.works(name);
        let (mut tried, mut reasons) = (Vec::new(), Vec::new());
        let mut registered_again = false;
        loop {
            if !wanted() {
                return Ended::without(Outcome::Failed(Failure::Removed));
            }
            let attempt = match self.begin(name).await {
                Ok(Some(attempt)) => attempt,
                Ok(None) if reasons.is_empty() => return Ended::without(Outcome::Spent),
                Ok(None) => break,
                Err(failure) => return Ended::without(Outcome::Failed(failure)),
            };
            let mut progress = Progress::default();
            let wish = Wish { name, tried: &tried, works, wanted: &wanted };
            let result = self.orders.place(&wish, &mut progress).await;
            self.settle(name, &attempt, &progress).await;
            match result {
                Ok(stored) => {
                    let held = held(&stored);
                    return Ended { outcome: Outcome::Issued(held), stored: Some(Arc::new(stored)) };
                }
                Err(Failure::Validation(reason)) => {
                    tracing::info!(name, reason, "a challenge has failed");
                    reasons.push(reason);
                    tried.extend(progress.taken);
                    if next(&progress.offered, &tried, works).is_none() {
                        break;
                    }
                }
                Err(Failure::AccountUnknown) if !registered_again => {
                    registered_again = true;
                    self.orders.ca.forget_session().await;
                }
                Err(failure) => {
                    if matches!(failure, Failure::Server(_)) {
                        self.orders.ca.forget_session().await;
                    }
                    return Ended::without(Outcome::Failed(failure));
                }
            }
        }
        Ended::without(Outcome::Failed(Failure::Validation(reasons.join("; "))))
    }

    /// Writes an attempt down before its order is placed; `None` when the CA's limits allow none.
    async fn begin(&self, name: &str) -> Result<Option<Attempt>, Failure> {
        let begun = self.agenda.lock().ledger.begin(name, self.now());
        let Some(attempt) = begun else { return Ok(None) };
        match self.keep_attempts().await {
            Ok(()) => Ok(Some(attempt)),
            Err(error) => {
                self.agenda.lock().ledger.forgive(name, &attempt);
                Err(Failure::Internal(format!("no order is placed that cannot be written down: {error}")))
            }
        }
    }

    /// Strikes an attempt out that the CA has not counted, or lets it count.
    async fn settle(&self, name: &str, attempt: &Attempt, progress: &Progress) {
        {
            let mut agenda = self.agenda.lock();
            if progress.told && !progress.validated {
                agenda.ledger.failed(name, attempt, self.now());
            } else {
                agenda.ledger.forgive(name, attempt);
            }
            if let Some(kind) = progress.taken.filter(|_| progress.validated) {
                agenda.ledger.worked(name, kind);
            }
        }
        self.keep_attempts_or_tell().await;
    }
}

/// What decides over a certificate's renewal.
pub(super) fn held(stored: &Stored) -> Held {
    let term = Term {
        not_before: stored.not_before(),
        not_after: stored.not_after(),
        window: None,
        not_again_before: Timestamp::default(),
        dice: fastrand::f64(),
    };
    Held { term, identifier: identifier(stored) }
}
