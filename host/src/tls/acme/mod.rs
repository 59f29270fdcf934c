//! Automatic certificates: ACME (RFC 8555) with TLS-ALPN-01 (RFC 8737) and HTTP-01, for every configured name.
//!
//! The protocol and the challenge certificates are rustls-acme's `acme` module. That crate's own state machine has one
//! account and one challenge at a time, repeats a failed order after a few seconds and knows no renewal information, so what
//! stands around the protocol is here:
//!
//! | file | what |
//! |---|---|
//! | `manager.rs` | the one task: starts what is due, takes in outcomes, sleeps |
//! | `agenda.rs` | which name is due, and what follows from an outcome; no I/O |
//! | `schedule.rs` | growing pauses and the moment to renew; functions of values |
//! | `attempts.rs` | what counts against the CA's limits, across restarts |
//! | `round.rs` | a name's round: one challenge, then at once the other |
//! | `order.rs` | one order, from its placing to the certificate |
//! | `client.rs` | the CA: directory, our one account, nonces, time limits, renewal information |
//! | `renewal_info.rs` | RFC 9773 as text |
//! | `failure.rs` | what an error of the server means |
//! | `challenges.rs` | the answers, for the listeners |
//!
//! Deliberately absent: DNS-01 and so wildcards, external account binding, several names in a certificate, revoking, keys
//! other than P-256, and a look at OCSP: a revoked certificate is noticed where the CA has renewal information.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use rustls::sign::CertifiedKey;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::clock::{Clock, Timestamp};
use crate::tls::error::CertificateError;
use crate::tls::store::{CertificateStore, is_host_name};

mod agenda;
mod attempts;
mod challenges;
mod client;
mod failure;
mod manager;
mod order;
mod renewal_info;
mod round;
mod schedule;
#[cfg(test)]
mod tests;

pub use challenges::{Challenges, Kind};

use agenda::{Agenda, Entry};
use attempts::Book;
use order::Orders;

/// The directory of Let's Encrypt.
pub const LETS_ENCRYPT: &str = rustls_acme::acme::LETS_ENCRYPT_PRODUCTION_DIRECTORY;

/// The directory of Let's Encrypt for trying things out: generous limits, certificates that nobody trusts.
pub const LETS_ENCRYPT_STAGING: &str = rustls_acme::acme::LETS_ENCRYPT_STAGING_DIRECTORY;

/// The protocol name of TLS-ALPN-01 (RFC 8737 section 6.2). A handshake that offers it alone gets the challenge's
/// certificate and is closed.
pub const ACME_TLS_ALPN: &[u8] = rustls_acme::acme::ACME_TLS_ALPN_NAME;

/// How certificates are obtained.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whom the CA may write to: `mailto:` URLs. Given when the account is made.
    pub contact: Vec<String>,
    /// The directory URL.
    pub directory: String,
    /// The CA certificates (PEM) that alone are trusted for the directory's HTTPS; without, the system's are.
    pub ca: Option<PathBuf>,
    /// What time it is.
    pub clock: Clock,
    /// How the waiting is done.
    pub waits: Waits,
}

/// The waits that pass in real time, whatever the clock shows. The pauses between orders are by the clock.
#[derive(Clone, Copy, Debug)]
pub struct Waits {
    /// Before the first look whether the CA has validated or issued; doubled up to sixteen times.
    pub first_look: Duration,
    /// The longest sleep before the clock is looked at again: it may have been set, or the machine may have slept.
    pub longest_sleep: Duration,
}

impl Default for Waits {
    fn default() -> Self {
        Self { first_look: Duration::from_millis(500), longest_sleep: Duration::from_secs(60) }
    }
}

/// Who wants to know. Called without locks held, from the manager's task or from [`Acme::set_names`]; must not block. A call
/// may still come for a name that was removed a moment before.
pub trait Events: Send + Sync + 'static {
    /// There is a certificate: from the store, or a new one.
    fn issued(&self, name: &str, certificate: Arc<CertifiedKey>, not_after: SystemTime);
    /// There is no new certificate; it is tried again later. The old one goes on serving.
    fn failed(&self, name: &str, reason: &str);
}

/// Where a name stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameState {
    /// It has a certificate.
    Valid,
    /// Its certificate has expired, there is no new one yet.
    Expired,
    /// An order is under way.
    Ordering,
    /// It has none, its order is placed as soon as there is room.
    Queued,
    /// It has none, its order is placed after a pause.
    Waiting,
    /// No certificate can be ordered for such a name.
    Impossible,
}

impl NameState {
    /// In words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Expired => "expired",
            Self::Ordering => "ordering",
            Self::Queued => "queued",
            Self::Waiting => "waiting",
            Self::Impossible => "impossible",
        }
    }
}

/// What is known of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameStatus {
    /// The name.
    pub name: String,
    /// Where it stands.
    pub state: NameState,
    /// Until when its certificate is valid.
    pub not_after: Option<SystemTime>,
    /// When the next order is placed, if all goes on as it is.
    pub next_attempt: Option<SystemTime>,
    /// Why the last order came to nothing, until one succeeds.
    pub last_error: Option<String>,
}

/// Why there are no automatic certificates at all.
#[derive(Debug, thiserror::Error)]
pub enum AcmeError {
    /// The directory is no URL.
    #[error("the ACME directory is no http or https URL: {0:?}")]
    Directory(String),
    /// The file with CA certificates is of no use.
    #[error(transparent)]
    Ca(CertificateError),
    /// The system's CA certificates are of no use.
    #[error("the system's CA certificates: {0}")]
    Roots(String),
    /// The store cannot be read.
    #[error("the certificate store: {0}")]
    Store(#[from] io::Error),
    /// There is no tokio runtime to work on.
    #[error("automatic certificates need a tokio runtime: {0}")]
    Runtime(#[from] tokio::runtime::TryCurrentError),
}

/// Automatic certificates for a set of names. Everything ends when this is dropped.
#[derive(Debug)]
pub struct Acme {
    shared: Arc<Shared>,
    manager: AbortHandle,
}

/// What the manager's task and the handle share.
struct Shared {
    directory: String,
    /// Of the other directories; ours is in the agenda.
    book: Book,
    agenda: Mutex<Agenda>,
    orders: Orders,
    events: Arc<dyn Events>,
    longest_sleep: Duration,
    changed: Notify,
    /// Held while names change.
    naming: Mutex<()>,
    /// Held while the attempts are written: the last to write has the newest.
    writing: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl Acme {
    /// Starts the manager's task on the current tokio runtime. No server is spoken to before there are names.
    ///
    /// # Errors
    /// The settings are of no use, the store's attempts cannot be read, or there is no runtime.
    pub fn start(
        settings: Settings,
        store: Arc<dyn CertificateStore>,
        challenges: Arc<Challenges>,
        events: Arc<dyn Events>,
    ) -> Result<Arc<Self>, AcmeError> {
        let runtime = tokio::runtime::Handle::try_current()?;
        let Settings { contact, directory, ca, clock, waits } = settings;
        let ca = client::Ca::new(&directory, &contact, ca.as_deref(), clock.clone())?;
        let mut book = manager::read_book(store.as_ref())?;
        let mut ledger = book.take(&directory);
        ledger.tidy(clock.now());
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let shared = Arc::new(Shared {
            directory,
            book,
            agenda: Mutex::new(Agenda::new(ledger)),
            orders: Orders { ca, store, challenges, provider, clock, first_look: waits.first_look },
            events,
            longest_sleep: waits.longest_sleep,
            changed: Notify::new(),
            naming: Mutex::new(()),
            writing: tokio::sync::Mutex::new(()),
        });
        let manager = runtime.spawn(manager::run(Arc::clone(&shared))).abort_handle();
        Ok(Arc::new(Self { shared, manager }))
    }

    /// Sets the names that certificates are wanted for. What the store has of the new ones is issued before this returns; for
    /// the rest, orders are placed. No new order is placed for a name that is not among them; the store keeps what it has.
    ///
    /// Reads the store on the calling thread: a file or three for each new name.
    pub fn set_names(&self, names: BTreeSet<String>) {
        let shared = &self.shared;
        let names = names.into_iter().map(|name| name.to_ascii_lowercase()).collect();
        let _turn = shared.naming.lock();
        let new = shared.agenda.lock().keep_only(&names);
        for name in new {
            let entry = shared.entry(&name);
            shared.agenda.lock().insert(name, entry);
        }
        shared.changed.notify_one();
    }

    /// What is known of every name, in alphabetical order.
    pub fn status(&self) -> Vec<NameStatus> {
        let agenda = self.shared.agenda.lock();
        let system = |moment: Option<Timestamp>| moment.map(Timestamp::to_system);
        agenda
            .states(self.shared.now())
            .map(|(name, state, not_after, next, error)| NameStatus {
                name: name.to_owned(),
                state,
                not_after: system(not_after),
                next_attempt: system(next),
                last_error: error.map(str::to_owned),
            })
            .collect()
    }
}

impl Drop for Acme {
    fn drop(&mut self) {
        self.manager.abort();
    }
}

impl Shared {
    fn now(&self) -> Timestamp {
        self.orders.clock.now()
    }

    /// A new name, with what the store has of it; a usable certificate is issued.
    fn entry(&self, name: &str) -> Entry {
        if !is_host_name(name) {
            let reason = "automatic certificates are for host names, not for wildcards or addresses";
            tracing::warn!(name, reason);
            self.events.failed(name, reason);
            return Entry::impossible(reason.to_owned());
        }
        let stored = match self.orders.store.certificate(name) {
            Ok(Some(stored)) => stored,
            Ok(None) => return Entry::new(None),
            Err(error) => {
                tracing::error!(name, %error, "the certificate store cannot be read");
                return Entry::new(None);
            }
        };
        let file = stored.found().map(|file| file.display().to_string()).unwrap_or_default();
        if stored.not_after() <= self.now() {
            tracing::warn!(name, file, "the certificate in the store has expired, a new one is ordered");
            return Entry::new(None);
        }
        match stored.certified_for(name, &self.orders.provider) {
            Ok(certificate) => {
                self.events.issued(name, certificate, stored.not_after().to_system());
                Entry::new(Some(round::held(&stored)))
            }
            Err(error) => {
                tracing::warn!(name, file, %error, "the certificate in the store is skipped");
                Entry::new(None)
            }
        }
    }
}
