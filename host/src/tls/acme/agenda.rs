//! Which name is due, and what follows from an outcome: the state of all names, without I/O.
//!
//! A name is due when it has no certificate or its certificate is to be renewed, when no pause of its own, of the server or
//! of the CA's limits holds it back, and when no order for it is under way. Of those that are due, names that are new and
//! without a certificate come first, then whoever waits longest: many names that fail again and again do not keep others
//! from their renewal.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::NameState;
use super::attempts::Ledger;
use super::client::Renewal;
use super::failure::{Failure, concerns_name};
use super::schedule::{NAME_FAILED, NO_INFORMATION, SERVER_DOWN, Term, Window};
use crate::clock::Timestamp;

/// Orders under way at the same time. A CA takes seconds for one; more at once would only bring its limits nearer.
pub(super) const MAX_ORDERS: usize = 4;

/// Questions for renewal information under way at the same time.
pub(super) const MAX_QUESTIONS: usize = 2;

/// A certificate that was renewed because of the CA's window is not renewed for such a reason again this soon. A CA whose
/// windows are all past would have a new one made at every turn.
const NOT_AGAIN: Duration = Duration::from_secs(24 * 3600);

/// When a CA without renewal information is asked whether it has it now.
const STILL_NOT_OFFERED: Duration = Duration::from_secs(24 * 3600);

/// How much longer than the others a name waits whose order found the server down, so that it is another one's turn.
const BEHIND: Duration = Duration::from_secs(1);

/// A certificate in use.
#[derive(Clone, Debug)]
pub(super) struct Held {
    /// When it is renewed.
    pub(super) term: Term,
    /// Its identifier for renewal information.
    pub(super) identifier: Option<String>,
}

/// How a round of orders for a name ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// There is a new certificate.
    Issued(Held),
    /// There is none.
    Failed(Failure),
    /// No attempt is allowed now.
    Spent,
}

/// The state of a name.
#[derive(Debug, Default)]
pub(super) struct Entry {
    held: Option<Held>,
    failures: u32,
    paused_until: Timestamp,
    error: Option<String>,
    ask_at: Timestamp,
    unanswered: u32,
    /// No certificate can be ordered for this name at all.
    impossible: bool,
}

/// The state of all names.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    entries: BTreeMap<String, Entry>,
    /// Also names that were removed since.
    ordering: BTreeSet<String>,
    asking: BTreeSet<String>,
    /// What counts against the CA's limits.
    pub(super) ledger: Ledger,
    server_failures: u32,
    server_until: Timestamp,
}

impl Entry {
    /// A name with the certificate the store has, if it has one.
    pub(super) fn new(held: Option<Held>) -> Self {
        Self { held, ..Self::default() }
    }

    /// A name that no certificate can be ordered for.
    pub(super) fn impossible(reason: String) -> Self {
        Self { impossible: true, error: Some(reason), ..Self::default() }
    }
}

impl Agenda {
    /// With what counts against the CA's limits.
    pub(super) fn new(ledger: Ledger) -> Self {
        Self { ledger, ..Self::default() }
    }

    /// Drops all names but these; returns those that are new.
    pub(super) fn keep_only(&mut self, names: &BTreeSet<String>) -> Vec<String> {
        self.entries.retain(|name, _| names.contains(name));
        names.iter().filter(|name| !self.entries.contains_key(*name)).cloned().collect()
    }

    /// Takes a name in.
    pub(super) fn insert(&mut self, name: String, entry: Entry) {
        self.entries.insert(name, entry);
    }

    /// Whether the name is configured.
    pub(super) fn wants(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// The next name to place an order for, which is under way from now on.
    pub(super) fn next_order(&mut self, now: Timestamp) -> Option<String> {
        if self.ordering.len() >= self.slots() {
            return None;
        }
        let due = self.waiting(now).filter(|(due, _, _)| *due <= now);
        let (_, _, name) = due.min_by_key(|(due, entry, _)| (entry.held.is_some() || entry.failures > 0, *due))?;
        let name = name.to_owned();
        self.ordering.insert(name.clone());
        Some(name)
    }

    /// The next name to ask renewal information for, with the certificate's identifier; under way from now on.
    pub(super) fn next_question(&mut self, now: Timestamp) -> Option<(String, String)> {
        if self.asking.len() >= MAX_QUESTIONS || self.server_until > now {
            return None;
        }
        let (name, identifier) = self
            .entries
            .iter()
            .filter(|(name, entry)| entry.ask_at <= now && !self.asking.contains(*name))
            .find_map(|(name, entry)| Some((name.clone(), entry.held.as_ref()?.identifier.clone()?)))?;
        self.asking.insert(name.clone());
        Some((name, identifier))
    }

    /// When there is something to do that is not under way. Not asked while all places are taken: an outcome comes first.
    pub(super) fn next_moment(&self, now: Timestamp) -> Option<Timestamp> {
        let order = self.waiting(now).map(|(due, _, _)| due).filter(|_| self.ordering.len() < self.slots());
        let question = self
            .entries
            .iter()
            .filter(|(name, entry)| {
                !self.asking.contains(*name) && entry.held.as_ref().is_some_and(|held| held.identifier.is_some())
            })
            .map(|(_, entry)| entry.ask_at.max(self.server_until))
            .filter(|_| self.asking.len() < MAX_QUESTIONS);
        order.chain(question).min()
    }

    /// A round of orders has ended.
    pub(super) fn ended(&mut self, name: &str, outcome: &Outcome, now: Timestamp, dice: f64) {
        self.ordering.remove(name);
        let server_is_well = match outcome {
            Outcome::Issued(_) => true,
            Outcome::Failed(failure) => matches!(failure, Failure::Validation(_) | Failure::Refused(_)),
            Outcome::Spent => false,
        };
        if server_is_well {
            (self.server_failures, self.server_until) = (0, Timestamp::default());
        }
        match outcome {
            Outcome::Failed(Failure::Server(_)) => self.server_failed(now, dice),
            Outcome::Failed(Failure::RateLimited(detail)) if concerns_name(detail, name) => self.ledger.rest(name, now),
            Outcome::Failed(Failure::RateLimited(_)) => self.ledger.rest_all(now),
            _ => {}
        }
        let behind = self.server_until.plus(BEHIND);
        let Some(entry) = self.entries.get_mut(name) else { return };
        match outcome {
            Outcome::Issued(held) => {
                let again = entry.held.as_ref().is_some_and(|before| before.term.due_by_window(now));
                *entry = Entry::new(Some(held.clone()));
                if again && let Some(held) = &mut entry.held {
                    held.term.not_again_before = now.plus(NOT_AGAIN);
                }
            }
            // Removed, and configured again before its order noticed.
            Outcome::Failed(Failure::Removed) | Outcome::Spent => {}
            Outcome::Failed(failure) => {
                entry.error = Some(failure.reason());
                match failure {
                    Failure::Server(_) => entry.paused_until = behind,
                    Failure::RateLimited(_) | Failure::Removed => {}
                    Failure::Validation(_) | Failure::Refused(_) | Failure::Internal(_) | Failure::AccountUnknown => {
                        entry.failures = entry.failures.saturating_add(1);
                        entry.paused_until = now.plus(NAME_FAILED.after(entry.failures, dice));
                    }
                }
            }
        }
    }

    /// A question for renewal information has ended. Returns the window when it is a new one.
    pub(super) fn answered(
        &mut self,
        name: &str,
        identifier: &str,
        answer: &Result<Renewal, Failure>,
        now: Timestamp,
        dice: f64,
    ) -> Option<Window> {
        self.asking.remove(name);
        let entry = self.entries.get_mut(name)?;
        // The certificate may have been renewed meanwhile: the answer is for another one.
        let held = entry.held.as_mut().filter(|held| held.identifier.as_deref() == Some(identifier))?;
        match answer {
            Ok(Renewal::Suggested(window, ask_again)) => {
                entry.unanswered = 0;
                entry.ask_at = now.plus(*ask_again);
                (held.term.window.replace(*window) != Some(*window)).then_some(*window)
            }
            Ok(Renewal::NotOffered) => {
                entry.ask_at = now.plus(STILL_NOT_OFFERED);
                None
            }
            Err(_) => {
                entry.unanswered = entry.unanswered.saturating_add(1);
                entry.ask_at = now.plus(NO_INFORMATION.after(entry.unanswered, dice));
                None
            }
        }
    }

    /// The state of every name: name, state, not after, next attempt (none while one is under way), last error.
    pub(super) fn states(
        &self,
        now: Timestamp,
    ) -> impl Iterator<Item = (&str, NameState, Option<Timestamp>, Option<Timestamp>, Option<&str>)> {
        self.entries.iter().map(move |(name, entry)| {
            let due = self.due(name, entry, now);
            let not_after = entry.held.as_ref().map(|held| held.term.not_after);
            let state = match (self.ordering.contains(name), &entry.held) {
                _ if entry.impossible => NameState::Impossible,
                (true, _) => NameState::Ordering,
                (false, Some(held)) if held.term.not_after <= now => NameState::Expired,
                (false, Some(_)) => NameState::Valid,
                (false, None) if due <= now => NameState::Queued,
                (false, None) => NameState::Waiting,
            };
            let next = !matches!(state, NameState::Impossible | NameState::Ordering);
            (name.as_str(), state, not_after, next.then_some(due.max(now)), entry.error.as_deref())
        })
    }

    /// While the server is down one order at a time finds out whether it is back.
    fn slots(&self) -> usize {
        if self.server_failures == 0 { MAX_ORDERS } else { 1 }
    }

    /// The names that no order is under way for, and when they are due.
    fn waiting(&self, now: Timestamp) -> impl Iterator<Item = (Timestamp, &Entry, &str)> {
        self.entries
            .iter()
            .filter(|(name, entry)| !entry.impossible && !self.ordering.contains(*name))
            .map(move |(name, entry)| (self.due(name, entry, now), entry, name.as_str()))
    }

    fn due(&self, name: &str, entry: &Entry, now: Timestamp) -> Timestamp {
        let renew = entry.held.as_ref().map_or(Timestamp::default(), |held| held.term.renew_at());
        renew.max(entry.paused_until).max(self.server_until).max(self.ledger.free_at(name, now))
    }

    /// Several orders that find the server down at once are one failure.
    fn server_failed(&mut self, now: Timestamp, dice: f64) {
        if now < self.server_until {
            return;
        }
        self.server_failures = self.server_failures.saturating_add(1);
        self.server_until = now.plus(SERVER_DOWN.after(self.server_failures, dice));
    }
}
