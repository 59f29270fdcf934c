//! What is remembered of orders that did not end well, so that a CA's limits hold across restarts too.
//!
//! Let's Encrypt allows five failed validations an hour for an account and name, and counts them when they happen. So an
//! attempt is written down *before* its order is placed, as if it had failed, and struck out when it turns out not to have:
//! a process that dies in between has counted too many, never too few. An attempt that did fail counts from the moment the
//! outcome was known, which is never before the CA counted it.
//!
//! `attempts.json`, by directory URL; moments are milliseconds since 1970:
//!
//! ```text
//! {"version": 1, "directories": {"https://…": {
//!   "rests_until": 0,                       no new orders before (rateLimited for the account)
//!   "names": {"a.test": {
//!     "failed": [1700000000000],            attempts that failed or whose outcome is unknown
//!     "rests_until": 0,                     no order for this name before (rateLimited)
//!     "works": "http-01"}}}}}               the challenge that succeeded last
//! ```
//!
//! A document that cannot be read counts as empty, with a line in the log.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::challenges::Kind;
use crate::clock::Timestamp;

/// Failed validations that a CA allows within an hour (Let's Encrypt: per account and name).
pub(super) const MAX_FAILED: usize = 5;

/// How long an attempt counts: the hour, and a while more for one whose outcome nobody learnt, since the process died. The CA
/// may have counted it minutes after it was written down.
pub(super) const COUNTED: Duration = Duration::from_secs(65 * 60);

/// The rest after `rateLimited`. The CA says how long in Retry-After, which the protocol crate drops.
pub(super) const REST: Duration = Duration::from_secs(60 * 60);

/// Format of the document.
const VERSION: u32 = 1;

/// All that is remembered, by directory URL.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Book {
    version: u32,
    directories: BTreeMap<String, Ledger>,
}

/// What is remembered of the orders at one CA.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Ledger {
    rests_until: u64,
    names: BTreeMap<String, Attempts>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Attempts {
    failed: Vec<u64>,
    rests_until: u64,
    works: Option<Kind>,
}

/// An attempt that is written down as failed until it is known better. Losing it is safe: it goes on counting.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Attempt(u64);

impl Book {
    /// Reads the document.
    pub(super) fn parse(document: &[u8]) -> Result<Self, String> {
        let book: Self = serde_json::from_slice(document).map_err(|error| error.to_string())?;
        if book.version == VERSION { Ok(book) } else { Err(format!("unknown version {}", book.version)) }
    }

    /// With nothing in it.
    pub(super) fn empty() -> Self {
        Self { version: VERSION, directories: BTreeMap::new() }
    }

    /// Takes out the ledger of a directory.
    pub(super) fn take(&mut self, directory: &str) -> Ledger {
        self.directories.remove(directory).unwrap_or_default()
    }

    /// The document with a directory's ledger in its place.
    pub(super) fn with(&self, directory: &str, ledger: &Ledger) -> Vec<u8> {
        let mut directories: BTreeMap<&str, &Ledger> = self.directories.iter().map(|(d, l)| (d.as_str(), l)).collect();
        directories.insert(directory, ledger);
        // Maps with text keys and numbers: there is nothing in it that JSON could refuse.
        serde_json::to_vec(&serde_json::json!({ "version": VERSION, "directories": directories })).unwrap_or_default()
    }
}

impl Ledger {
    /// Since when an order for the name may be placed: not later than `now` means at once.
    pub(super) fn free_at(&self, name: &str, now: Timestamp) -> Timestamp {
        let account = self.account_free_at(now);
        let Some(attempts) = self.names.get(name) else { return account };
        let rest = bounded(attempts.rests_until, REST, now);
        let mut counted: Vec<_> =
            attempts.failed.iter().map(|at| bounded(*at, Duration::ZERO, now).plus(COUNTED)).collect();
        counted.sort_unstable();
        // The one that has to fall out of the hour before there is room for another.
        let room = counted.len().checked_sub(MAX_FAILED).and_then(|index| counted.get(index).copied());
        account.max(rest).max(room.unwrap_or_default())
    }

    /// Since when orders may be placed at all.
    pub(super) fn account_free_at(&self, now: Timestamp) -> Timestamp {
        bounded(self.rests_until, REST, now)
    }

    /// Writes an attempt down, if one is allowed. It counts as failed from now on.
    pub(super) fn begin(&mut self, name: &str, now: Timestamp) -> Option<Attempt> {
        self.tidy(now);
        if self.free_at(name, now) > now {
            return None;
        }
        self.names.entry(name.to_owned()).or_default().failed.push(now.as_millis());
        Some(Attempt(now.as_millis()))
    }

    /// Strikes an attempt out: the CA has not counted a failed validation.
    pub(super) fn forgive(&mut self, name: &str, attempt: &Attempt) {
        if let Some(attempts) = self.names.get_mut(name)
            && let Some(index) = attempts.failed.iter().position(|at| *at == attempt.0)
        {
            attempts.failed.remove(index);
        }
    }

    /// An attempt has failed, or may have: it counts from now.
    pub(super) fn failed(&mut self, name: &str, attempt: &Attempt, now: Timestamp) {
        self.forgive(name, attempt);
        self.names.entry(name.to_owned()).or_default().failed.push(now.as_millis());
    }

    /// The CA wants no orders for this name for a while.
    pub(super) fn rest(&mut self, name: &str, now: Timestamp) {
        self.names.entry(name.to_owned()).or_default().rests_until = now.plus(REST).as_millis();
    }

    /// The CA wants no orders from this account for a while.
    pub(super) fn rest_all(&mut self, now: Timestamp) {
        self.rests_until = now.plus(REST).as_millis();
    }

    /// The challenge that succeeded last for the name.
    pub(super) fn works(&self, name: &str) -> Option<Kind> {
        self.names.get(name).and_then(|attempts| attempts.works)
    }

    /// A challenge has succeeded.
    pub(super) fn worked(&mut self, name: &str, kind: Kind) {
        self.names.entry(name.to_owned()).or_default().works = Some(kind);
    }

    /// Forgets what counts no more, and what lies further ahead than it can: the clock was wrong then.
    pub(super) fn tidy(&mut self, now: Timestamp) {
        self.rests_until = bounded(self.rests_until, REST, now).as_millis();
        for attempts in self.names.values_mut() {
            attempts.rests_until = bounded(attempts.rests_until, REST, now).as_millis();
            for at in &mut attempts.failed {
                *at = (*at).min(now.as_millis());
            }
            attempts.failed.retain(|at| Timestamp::from_millis(*at).plus(COUNTED) > now);
        }
        self.names.retain(|_, attempts| {
            attempts.works.is_some() || !attempts.failed.is_empty() || attempts.rests_until > now.as_millis()
        });
    }
}

/// A remembered moment, at most so far ahead.
fn bounded(millis: u64, ahead: Duration, now: Timestamp) -> Timestamp {
    Timestamp::from_millis(millis).min(now.plus(ahead))
}
