//! Certificates of the running program: static ones read again when they change, automatic ones ordered and renewed.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use rustls::sign::CertifiedKey;
use serde_json::{Value, json};
use tokio_util::task::AbortOnDropHandle;

use crate::clock::{Clock, Timestamp};
use crate::config::{self, Resolved};
use crate::telemetry::metrics::{Metrics, NameLabels};
use crate::tls::Tls;
use crate::tls::acme::{Acme, Challenges, Events, Settings, Waits};
use crate::tls::store::FolderStore;

/// How often the files of certificates are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// TLS as hosts.json has it, and what is wrong with its certificates.
pub(super) fn secure(resolved: &Resolved) -> Result<(Arc<Tls>, Vec<String>), String> {
    let tls = Tls::new(Arc::new(Challenges::default())).map_err(|error| error.to_string())?;
    tls.configure(&resolved.tls()).map_err(|error| error.to_string())?;
    let problems = tls.problems().into_iter().map(|problem| format!("tls.certificates: {problem}")).collect();
    Ok((Arc::new(tls), problems))
}

/// What keeps certificates in service. Ends when dropped.
pub(super) struct Certificates {
    shared: Arc<Shared>,
    _looking: AbortOnDropHandle<()>,
}

struct Shared {
    tls: Arc<Tls>,
    metrics: Arc<Metrics>,
    clock: Clock,
    acme: Mutex<Option<Running>>,
    /// What the metrics say: names, and when their certificates end.
    told: Mutex<Vec<(String, Timestamp)>>,
    /// Another program orders what there is to order.
    resting: AtomicBool,
}

/// Automatic certificates in service.
#[derive(Clone)]
struct Running {
    settings: config::Acme,
    /// What stood in `acme.ca`.
    ca: Option<Vec<u8>>,
    acme: Arc<Acme>,
}

impl Certificates {
    /// Starts to look after `tls`. Automatic certificates wait for `order`.
    pub fn start(tls: Arc<Tls>, metrics: Arc<Metrics>, clock: Clock) -> Self {
        let shared = Arc::new(Shared {
            tls,
            metrics,
            clock,
            acme: Mutex::new(None),
            told: Mutex::default(),
            resting: AtomicBool::new(false),
        });
        let looking = AbortOnDropHandle::new(tokio::spawn(look_after(Arc::clone(&shared))));
        Self { shared, _looking: looking }
    }

    /// Opens the store of automatic certificates and sees to it that the ACME server can be trusted. Orders nothing.
    pub async fn prepare(&self, acme: Option<&config::Acme>) -> Result<Prepared, String> {
        let Some(acme) = acme.cloned() else { return Ok(Prepared(None)) };
        let ca = match &acme.ca {
            // What is wrong with it is told below.
            Some(file) => tokio::fs::read(file).await.ok(),
            None => None,
        };
        if let Some(running) = &*self.shared.acme.lock()
            && (&running.settings, &running.ca) == (&acme, &ca)
        {
            return Ok(Prepared(Some(running.clone())));
        }
        let settings = Settings {
            contact: acme.contact.clone(),
            directory: acme.directory.clone(),
            ca: acme.ca.clone(),
            clock: self.shared.clock.clone(),
            waits: Waits::default(),
        };
        let folder: PathBuf = acme.store.clone();
        let store = tokio::task::spawn_blocking(move || FolderStore::open(&folder)).await;
        let store = store.map_err(|error| error.to_string())?;
        let store = store.map_err(|error| format!("acme.store: {}: {error}", acme.store.display()))?;
        let events = Arc::new(Told { tls: Arc::clone(&self.shared.tls), metrics: Arc::clone(&self.shared.metrics) });
        let started = Acme::start(settings, Arc::new(store), self.shared.tls.challenges(), events)
            .map_err(|error| format!("acme: {error}"))?;
        Ok(Prepared(Some(Running { settings: acme, ca, acme: started })))
    }

    /// Orders certificates for the names that are to have automatic ones by now, and shows what the store holds of them.
    pub async fn order(&self, prepared: Prepared) {
        *self.shared.acme.lock() = prepared.0;
        self.set_names().await;
    }

    /// Orders and renews nothing for a while, or does it again. What is in service stays.
    pub async fn rest(&self, resting: bool) {
        self.shared.resting.store(resting, Ordering::Relaxed);
        self.set_names().await;
    }

    async fn set_names(&self) {
        let shared = Arc::clone(&self.shared);
        // The store is on the disk.
        if let Err(error) = tokio::task::spawn_blocking(move || shared.set_names()).await {
            tracing::error!(%error, "automatic certificates were not looked at");
        }
    }

    /// What is known of automatic certificates, for the admin listener.
    pub fn status(&self) -> Value {
        let acme = self.shared.acme.lock().as_ref().map(|running| Arc::clone(&running.acme));
        let seconds = |time: Option<SystemTime>| time.map(|time| Timestamp::from_system(time).as_millis() / 1000);
        let names = acme.map(|acme| acme.status()).unwrap_or_default().into_iter().map(|name| {
            json!({
                "name": name.name,
                "state": name.state.as_str(),
                "not_after": seconds(name.not_after),
                "next_attempt": seconds(name.next_attempt),
                "last_error": name.last_error,
            })
        });
        json!({ "automatic": names.collect::<Vec<Value>>(), "problems": self.shared.tls.problems() })
    }
}

/// Automatic certificates that can be put in service.
pub(super) struct Prepared(Option<Running>);

impl Shared {
    fn set_names(&self) {
        let acme = self.acme.lock().as_ref().map(|running| Arc::clone(&running.acme));
        let names = if acme.is_some() { self.tls.automatic_names() } else { BTreeSet::new() };
        self.tls.retain_issued(&names);
        if let Some(acme) = acme {
            let resting = self.resting.load(Ordering::Relaxed);
            acme.set_names(if resting { BTreeSet::new() } else { names });
        }
    }

    /// Reads what has changed, and tells when certificates end.
    fn look(&self) {
        let (changes, problems) = self.tls.refresh();
        if !changes.is_empty() || !problems.is_empty() {
            // A static certificate that came takes its names from the automatic ones; one that went gives them back.
            self.set_names();
        }
        for line in changes {
            tracing::info!("{line}");
        }
        for line in problems {
            self.metrics.certificate_failures.inc();
            tracing::warn!("{line}");
        }
        let expiries = self.tls.expiries();
        let mut told = self.told.lock();
        if *told == expiries {
            return;
        }
        self.metrics.certificate_seconds.clear();
        for (name, end) in &expiries {
            let seconds = i64::try_from(end.as_millis() / 1000).unwrap_or(i64::MAX);
            self.metrics.certificate_seconds.get_or_create(&NameLabels { name: name.clone() }).set(seconds);
        }
        *told = expiries;
    }
}

async fn look_after(shared: Arc<Shared>) {
    loop {
        let looking = Arc::clone(&shared);
        if let Err(error) = tokio::task::spawn_blocking(move || looking.look()).await {
            tracing::error!(%error, "certificates were not looked at");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Takes what the manager of automatic certificates has to tell.
struct Told {
    tls: Arc<Tls>,
    metrics: Arc<Metrics>,
}

impl Events for Told {
    fn issued(&self, name: &str, certificate: Arc<CertifiedKey>, not_after: SystemTime) {
        tracing::info!(
            name,
            not_after = Timestamp::from_system(not_after).as_millis() / 1000,
            "certificate is in service"
        );
        self.tls.issued(name, certificate, Timestamp::from_system(not_after));
    }

    fn failed(&self, name: &str, reason: &str) {
        self.metrics.certificate_failures.inc();
        tracing::warn!(name, reason, "no certificate yet, it is tried again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_ca_of_a_private_acme_server_is_read_again_when_its_file_has_changed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        let renew = || {
            let mut params = rcgen::CertificateParams::new(vec!["ca.test".to_owned()]).unwrap();
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            let made = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
            std::fs::write(&file, made.pem()).unwrap();
        };
        renew();
        let settings = config::Acme {
            contact: Vec::new(),
            directory: "https://127.0.0.1:1/directory".to_owned(),
            ca: Some(file.clone()),
            store: folder.path().join("acme"),
        };
        let tls = Arc::new(Tls::new(Arc::new(Challenges::default())).unwrap());
        let certificates = Certificates::start(tls, Metrics::new().0, Clock::System);
        let prepare = async || Ok::<_, String>(certificates.prepare(Some(&settings)).await?.0.unwrap());
        let first = prepare().await.unwrap();
        certificates.order(Prepared(Some(first.clone()))).await;
        assert!(Arc::ptr_eq(&prepare().await.unwrap().acme, &first.acme), "nothing has changed");
        renew();
        assert!(!Arc::ptr_eq(&prepare().await.unwrap().acme, &first.acme));
        std::fs::write(&file, "no certificate").unwrap();
        assert!(prepare().await.is_err_and(|reason| reason.contains("ca.pem")));
    }
}
