//! What every play has: a pebble, a responder, a store, a clock and ears for the events.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use proxyhost::clock::{Clock, ManualClock};
use proxyhost::tls::acme::{Acme, Events, NameState, NameStatus, Settings, Waits};
use proxyhost::tls::store::{CertificateStore, FolderStore, Stored};
use rustls::sign::CertifiedKey;
use tempfile::TempDir;

use crate::responder::Responder;
use harness::pebble::{Pebble, Ways};

/// The longest that anything may take in real time.
const PATIENCE: Duration = Duration::from_secs(40);

/// How long to look whether something does not happen.
pub const QUIET: Duration = Duration::from_millis(700);

/// What was heard.
#[derive(Default)]
pub struct Ears {
    issued: Mutex<Vec<(String, Arc<CertifiedKey>)>>,
    failed: Mutex<Vec<(String, String)>>,
}

impl Events for Ears {
    fn issued(&self, name: &str, certificate: Arc<CertifiedKey>, _: SystemTime) {
        self.issued.lock().push((name.to_owned(), certificate));
    }

    fn failed(&self, name: &str, reason: &str) {
        self.failed.lock().push((name.to_owned(), reason.to_owned()));
    }
}

/// A play's stage.
pub struct Stage {
    pub pebble: Pebble,
    pub responder: Arc<Responder>,
    pub store: TempDir,
    pub clock: ManualClock,
    pub ears: Arc<Ears>,
    /// Another directory than pebble's.
    pub directory: Option<String>,
    /// What the store fails to keep.
    pub broken: Broken,
    pub acme: Option<Arc<Acme>>,
}

/// What a store fails to keep.
#[derive(Clone, Copy, Default)]
pub struct Broken {
    pub attempts: bool,
    pub certificates: bool,
    pub account: bool,
}

/// A folder on a disk with faults.
struct Faulty(FolderStore, Broken);

fn unless(broken: bool) -> io::Result<()> {
    if broken { Err(io::Error::other("the disk is broken")) } else { Ok(()) }
}

impl CertificateStore for Faulty {
    fn certificate(&self, name: &str) -> io::Result<Option<Stored>> {
        self.0.certificate(name)
    }

    fn keep_certificate(&self, name: &str, stored: &Stored) -> io::Result<()> {
        unless(self.1.certificates).and_then(|()| self.0.keep_certificate(name, stored))
    }

    fn account_key(&self, directory: &str) -> io::Result<Option<Vec<u8>>> {
        self.0.account_key(directory)
    }

    fn keep_account_key(&self, directory: &str, pkcs8: &[u8]) -> io::Result<()> {
        unless(self.1.account).and_then(|()| self.0.keep_account_key(directory, pkcs8))
    }

    fn attempts(&self) -> io::Result<Option<Vec<u8>>> {
        self.0.attempts()
    }

    fn keep_attempts(&self, document: &[u8]) -> io::Result<()> {
        unless(self.1.attempts).and_then(|()| self.0.keep_attempts(document))
    }
}

impl Stage {
    /// A stage whose server does not run yet.
    pub async fn dark(ways: Ways) -> Self {
        let (responder, http, tls) = Responder::start().await;
        Self {
            pebble: Pebble::place(ways, http, tls),
            responder,
            store: tempfile::tempdir().expect("a folder"),
            clock: ManualClock::at(Clock::System.now()),
            ears: Arc::default(),
            directory: None,
            broken: Broken::default(),
            acme: None,
        }
    }

    /// A stage with a running server.
    pub async fn lit(ways: Ways) -> Self {
        let mut stage = Self::dark(ways).await;
        stage.pebble.start();
        stage
    }

    /// Starts the program's part anew, as after a restart, and sets the names.
    pub fn open(&mut self, names: &[&str]) {
        self.acme = None;
        self.ears = Arc::default();
        let settings = Settings {
            contact: vec!["mailto:ops@example.com".to_owned()],
            directory: self.directory.clone().unwrap_or_else(|| self.pebble.directory()),
            ca: Some(self.pebble.ca()),
            clock: Clock::Manual(self.clock.clone()),
            waits: Waits { first_look: Duration::from_millis(20), longest_sleep: Duration::from_millis(20) },
        };
        let (challenges, events) = (Arc::clone(&self.responder.challenges), Arc::clone(&self.ears));
        let acme =
            Acme::start(settings, Arc::new(Faulty(self.folder(), self.broken)), challenges, events).expect("started");
        self.acme = Some(acme);
        self.name(names);
    }

    /// Ends the program's part.
    pub fn close(&mut self) {
        self.acme = None;
    }

    pub fn name(&self, names: &[&str]) {
        let names: BTreeSet<String> = names.iter().map(|&name| name.to_owned()).collect();
        self.acme.as_ref().expect("open").set_names(names);
    }

    pub fn folder(&self) -> FolderStore {
        FolderStore::open(self.store.path()).expect("a store")
    }

    pub fn path(&self, inside: &str) -> PathBuf {
        self.store.path().join(inside)
    }

    /// What the store has of a name.
    pub fn stored(&self, name: &str) -> Option<Stored> {
        self.folder().certificate(name).expect("readable")
    }

    pub fn advance(&self, by_s: u64) {
        self.clock.advance(Duration::from_secs(by_s));
    }

    pub fn status(&self, name: &str) -> NameStatus {
        let status = self.acme.as_ref().expect("open").status();
        status.into_iter().find(|status| status.name == name).expect("a configured name")
    }

    /// How many certificates were issued for the name since the last `open`.
    pub fn issued(&self, name: &str) -> usize {
        self.ears.issued.lock().iter().filter(|(of, _)| of == name).count()
    }

    /// The certificate that was issued last.
    pub fn latest(&self, name: &str) -> Vec<u8> {
        let issued = self.ears.issued.lock();
        let (_, certificate) = issued.iter().rfind(|(of, _)| of == name).expect("issued");
        certificate.cert[0].to_vec()
    }

    pub fn failed(&self, name: &str) -> Vec<String> {
        self.ears.failed.lock().iter().filter(|(of, _)| of == name).map(|(_, reason)| reason.clone()).collect()
    }

    /// Waits until something is so.
    pub async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !is_so(self) {
            let known = || self.acme.as_ref().map(|acme| acme.status());
            assert!(Instant::now() < until, "not within {PATIENCE:?}: {what}\n{:#?}\n{}", known(), self.pebble.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn until_issued(&self, name: &str, count: usize) {
        self.until(&format!("{name} issued {count} times"), |stage| stage.issued(name) >= count).await;
    }

    pub async fn until_failed(&self, name: &str, count: usize) {
        self.until(&format!("{name} failed {count} times"), |stage| stage.failed(name).len() >= count).await;
    }

    /// Until no order is under way or due.
    pub async fn until_idle(&self) {
        tokio::time::sleep(Duration::from_millis(60)).await;
        self.until("idle", |stage| {
            let status = stage.acme.as_ref().expect("open").status();
            let now = Clock::Manual(stage.clock.clone()).now().to_system();
            status
                .iter()
                .all(|name| name.state != NameState::Ordering && name.next_attempt.is_none_or(|next| next > now))
        })
        .await;
    }
}
