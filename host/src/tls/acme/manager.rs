//! The manager's task: starts what is due, takes in outcomes, and sleeps until there is more to do.
//!
//! Orders and questions run beside it, a bounded number at a time; when the task ends, so do they.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use tokio::task::{Id, JoinError, JoinSet};

use super::Shared;
use super::agenda::Outcome;
use super::attempts::Book;
use super::client::Renewal;
use super::failure::Failure;
use super::round::Ended;
use crate::tls::store::{CertificateStore, Stored};

/// What ran beside the manager.
enum Done {
    /// A round of orders.
    Round(Ended),
    /// A question for renewal information.
    Question(Result<Renewal, Failure>),
}

/// Which name it ran for, and the certificate's identifier if it was a question.
type Errand = (String, Option<String>);

/// What is remembered of failed attempts. Nonsense counts as nothing; a store that cannot be asked is an error.
pub(super) fn read_book(store: &dyn CertificateStore) -> io::Result<Book> {
    let Some(document) = store.attempts()? else { return Ok(Book::empty()) };
    Ok(Book::parse(&document).unwrap_or_else(|error| {
        tracing::warn!(error, "the failed attempts in the certificate store are unreadable, counted anew");
        Book::empty()
    }))
}

/// Runs until it is dropped.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut tasks: JoinSet<Done> = JoinSet::new();
    let mut errands: HashMap<Id, Errand> = HashMap::new();
    loop {
        let now = shared.now();
        // Each lock ends with its line: `while let` would hold it through the body.
        loop {
            let next = shared.agenda.lock().next_order(now);
            let Some(name) = next else { break };
            let (beside, of) = (Arc::clone(&shared), name.clone());
            let task = tasks.spawn(async move { Done::Round(beside.round(&of).await) });
            errands.insert(task.id(), (name, None));
        }
        loop {
            let next = shared.agenda.lock().next_question(now);
            let Some((name, identifier)) = next else { break };
            let (beside, of) = (Arc::clone(&shared), identifier.clone());
            let task = tasks.spawn(async move { Done::Question(beside.orders.ca.renewal(&of).await) });
            errands.insert(task.id(), (name, Some(identifier)));
        }
        let moment = shared.agenda.lock().next_moment(now);
        let sleep = moment.map_or(shared.longest_sleep, |moment| moment.since(now).min(shared.longest_sleep));
        tokio::select! {
            () = shared.changed.notified() => {}
            Some(done) = tasks.join_next_with_id() => {
                let id = match &done {
                    Ok((id, _)) => *id,
                    Err(error) => error.id(),
                };
                if let Some(errand) = errands.remove(&id) {
                    shared.take_in(errand, done.map(|(_, done)| done)).await;
                }
            }
            () = tokio::time::sleep(sleep) => {}
        }
    }
}

impl Shared {
    /// Takes in what an errand brought.
    async fn take_in(&self, (name, identifier): Errand, done: Result<Done, JoinError>) {
        let (now, dice) = (self.now(), fastrand::f64());
        // A panic, in the protocol crate at worst, is that name's bad luck alone.
        let broken = |error: JoinError| Failure::Internal(format!("the order broke off: {error}"));
        match (done, identifier) {
            (Ok(Done::Round(ended)), _) => self.round_ended(&name, ended).await,
            (Ok(Done::Question(answer)), Some(identifier)) => self.answered(&name, &identifier, &answer),
            (Err(error), Some(identifier)) => self.answered(&name, &identifier, &Err(broken(error))),
            (Err(error), None) => {
                tracing::error!(name, %error, "an order broke off");
                self.agenda.lock().ended(&name, &Outcome::Failed(broken(error)), now, dice);
            }
            (Ok(Done::Question(_)), None) => {}
        }
    }

    async fn round_ended(&self, name: &str, ended: Ended) {
        let Ended { outcome, stored } = ended;
        if let Some(stored) = &stored {
            self.keep_certificate(name, stored).await;
        }
        let (wanted, next) = {
            let mut agenda = self.agenda.lock();
            let now = self.now();
            agenda.ended(name, &outcome, now, fastrand::f64());
            let next = agenda.states(now).find(|state| state.0 == name).and_then(|(_, _, _, next, _)| next);
            (agenda.wants(name), next.map(|next| next.since(now).as_secs()))
        };
        match (&outcome, stored) {
            (Outcome::Issued(held), Some(stored)) if wanted => {
                tracing::info!(name, renewal_in_s = next, "a certificate was issued");
                // It was checked before it came here.
                if let Ok(certificate) = stored.certified_for(name, &self.orders.provider) {
                    self.events.issued(name, certificate, held.term.not_after.to_system());
                }
            }
            (Outcome::Issued(_), _) => {
                tracing::info!(name, "a certificate was issued for a name that is gone; it is kept")
            }
            (Outcome::Failed(Failure::Removed), _) => tracing::debug!(name, "the name was removed during its order"),
            (Outcome::Failed(failure), _) => {
                if matches!(failure, Failure::RateLimited(_)) {
                    self.keep_attempts_or_tell().await;
                }
                let reason = failure.reason();
                tracing::warn!(name, reason, again_in_s = next, "no certificate");
                if wanted {
                    self.events.failed(name, &reason);
                }
            }
            (Outcome::Spent, _) => {
                tracing::info!(name, again_in_s = next, "the CA's limit for failed validations leaves no attempt now");
            }
        }
    }

    /// Keeps a new certificate. When that fails it is served all the same; after a restart a new one is ordered.
    async fn keep_certificate(&self, name: &str, stored: &Arc<Stored>) {
        let (store, stored, of) = (Arc::clone(&self.orders.store), Arc::clone(stored), name.to_owned());
        let kept = tokio::task::spawn_blocking(move || store.keep_certificate(&of, &stored));
        if let Err(error) = kept.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
            tracing::error!(name, %error, "a new certificate cannot be kept; it is lost at the next restart");
        }
    }

    fn answered(&self, name: &str, identifier: &str, answer: &Result<Renewal, Failure>) {
        let changed = self.agenda.lock().answered(name, identifier, answer, self.now(), fastrand::f64());
        if let Some(window) = changed {
            let (start, end) = (window.start.as_secs(), window.end.as_secs());
            tracing::info!(name, start, end, "the CA suggests when to renew (seconds since 1970)");
        }
        if let Err(failure) = answer {
            tracing::info!(name, reason = failure.reason(), "no renewal information");
        }
    }

    /// Writes the attempts down.
    ///
    /// # Errors
    /// They are not kept.
    pub(super) async fn keep_attempts(&self) -> io::Result<()> {
        let _turn = self.writing.lock().await;
        let document = self.book.with(&self.directory, &self.agenda.lock().ledger);
        let store = Arc::clone(&self.orders.store);
        tokio::task::spawn_blocking(move || store.keep_attempts(&document))
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error)))
    }

    /// Writes the attempts down; a failure is told and changes nothing now.
    pub(super) async fn keep_attempts_or_tell(&self) {
        if let Err(error) = self.keep_attempts().await {
            tracing::error!(%error, "failed attempts cannot be kept");
        }
    }
}
