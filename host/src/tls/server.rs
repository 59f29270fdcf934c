//! The handshake's choice: for each client's hello, the settings and the certificate that it is answered with, or an alert.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};
use rustc_hash::FxHashMap;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use smallvec::{SmallVec, smallvec};

use super::acme::{ACME_TLS_ALPN, Challenges};
use super::certificate::{Certificate, choose};
use super::client_ca::ClientCa;
use super::error::CertificateError;
use super::files::{Refreshed, StaticCertificates};
use super::names::{ByName, Hosts, Several, is_automatic};
use super::{Settings, Source};
use crate::clock::{Clock, Timestamp};
use crate::semantics::authority::{HostPattern, Hostname};

/// What a client's hello is answered with.
pub enum Choice {
    /// A handshake under these settings; with the CA that the client is verified by.
    Serve(Arc<ServerConfig>, Option<[u8; 32]>),
    /// A handshake that only shows the certificate of a challenge.
    Challenge(Arc<ServerConfig>),
    /// The alert `unrecognized_name` (RFC 6066 section 3): no host of that name is served here over HTTPS.
    Refuse,
}

/// TLS for all hosts. What it goes by is swapped as a whole.
pub struct Tls {
    provider: Arc<CryptoProvider>,
    current: ArcSwap<Current>,
    statics: Mutex<StaticCertificates>,
    shared: Arc<Shared>,
    challenge: Arc<ServerConfig>,
    challenges: Arc<Challenges>,
}

/// What the settings of connections look certificates up in.
struct Shared {
    tables: ArcSwap<Tables>,
    issued: RwLock<FxHashMap<Box<str>, Arc<Certificate>>>,
}

/// Certificates that may be shown: one for each kind of key.
type Found = SmallVec<[Arc<Certificate>; 2]>;

#[derive(Default)]
struct Tables {
    hosts: Hosts,
    statics: ByName,
}

/// Settings of connections, by the CA that clients have to be certified by.
struct Current {
    plain: Arc<ServerConfig>,
    verified: FxHashMap<[u8; 32], Arc<ServerConfig>>,
}

impl Tls {
    /// With nothing to show yet: `configure` says what.
    pub fn new(challenges: Arc<Challenges>) -> Result<Self, CertificateError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let shared = Arc::new(Shared { tables: ArcSwap::from_pointee(Tables::default()), issued: RwLock::default() });
        let plain = Arc::new(config(&provider, &shared, None)?);
        let mut challenge = builder(&provider)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(ForChallenges(Arc::clone(&challenges))));
        challenge.alpn_protocols = vec![ACME_TLS_ALPN.to_vec()];
        Ok(Self {
            provider,
            current: ArcSwap::from_pointee(Current { plain, verified: FxHashMap::default() }),
            statics: Mutex::default(),
            shared,
            challenge: Arc::new(challenge),
            challenges,
        })
    }

    /// Answers to challenges.
    pub fn challenges(&self) -> Arc<Challenges> {
        Arc::clone(&self.challenges)
    }

    /// What speaks against settings: static certificates that are new in them and can't be shown.
    pub fn refusals(&self, settings: &Settings) -> Vec<String> {
        self.statics.lock().refusals(&settings.certificates, &self.provider, Clock::System.now())
    }

    /// Puts other settings in force, for connections that are accepted from now on. Returns a line for each certificate that
    /// changed or can't be used; those keep what was there before.
    pub fn configure(&self, settings: &Settings) -> Result<Vec<String>, CertificateError> {
        let old = self.current.load();
        let mut verified = FxHashMap::default();
        for ca in settings.hosts.iter().filter_map(|host| host.client_ca.as_ref()) {
            if verified.contains_key(&ca.id()) {
                continue;
            }
            // One that stays keeps its tickets.
            let config = match old.verified.get(&ca.id()) {
                Some(config) => Arc::clone(config),
                None => Arc::new(config(&self.provider, &self.shared, Some(ca))?),
            };
            verified.insert(ca.id(), config);
        }
        let mut statics = self.statics.lock();
        statics.configure(&settings.certificates);
        let Refreshed { changes, problems, .. } = statics.refresh(&self.provider, Clock::System.now());
        let tables = Tables { hosts: Hosts::new(settings.hosts.clone()), statics: ByName::new(statics.certificates()) };
        self.shared.tables.store(Arc::new(tables));
        self.current.store(Arc::new(Current { plain: Arc::clone(&old.plain), verified }));
        Ok(changes.into_iter().chain(problems).collect())
    }

    /// Reads static certificates whose files have changed. Returns a line for each change, and one for each new problem.
    pub fn refresh(&self) -> (Vec<String>, Vec<String>) {
        let mut statics = self.statics.lock();
        let Refreshed { changes, problems, changed } = statics.refresh(&self.provider, Clock::System.now());
        if changed {
            let hosts = Hosts::new(self.shared.tables.load().hosts.all().to_vec());
            self.shared.tables.store(Arc::new(Tables { hosts, statics: ByName::new(statics.certificates()) }));
        }
        (changes, problems)
    }

    /// What is wrong with static certificates at the moment.
    pub fn problems(&self) -> Vec<String> {
        self.statics.lock().problems()
    }

    /// Names that an ACME server is to issue certificates for.
    pub fn automatic_names(&self) -> BTreeSet<String> {
        let tables = self.shared.tables.load();
        let exact = tables.hosts.all().iter().filter_map(|host| match &host.pattern {
            HostPattern::Exact(name) if !name.is_address() => Some((name.as_str(), host.source)),
            _ => None,
        });
        exact
            .filter(|(name, source)| is_automatic(*source, name, &tables.statics))
            .map(|(name, _)| name.to_owned())
            .collect()
    }

    /// Shows a certificate that was issued for a name.
    pub fn issued(&self, name: &str, key: Arc<CertifiedKey>, not_after: Timestamp) {
        let certificate = Arc::new(Certificate::issued(key, vec![name.into()], not_after));
        self.shared.issued.write().insert(name.into(), certificate);
    }

    /// Takes away what was issued for names that are not wanted any more.
    pub fn retain_issued(&self, names: &BTreeSet<String>) {
        self.shared.issued.write().retain(|name, _| names.contains(&**name));
    }

    /// Whether there is a certificate to show for a name.
    pub fn has_certificate(&self, name: &Hostname) -> bool {
        !self.shared.find(Some(name.as_str())).is_empty()
    }

    /// Each name that a certificate in service is for, with the end of its life.
    pub fn expiries(&self) -> Vec<(String, Timestamp)> {
        let statics = self.statics.lock();
        let of = |certificate: &Arc<Certificate>| {
            let certificate = Arc::clone(certificate);
            (0..certificate.names.len()).map(move |at| (certificate.names[at].to_string(), certificate.not_after))
        };
        let mut all: Vec<(String, Timestamp)> = statics.certificates().flat_map(of).collect();
        let issued = self.shared.issued.read();
        all.extend(issued.iter().map(|(name, certificate)| (name.to_string(), certificate.not_after)));
        all
    }

    /// Settings of QUIC connections (RFC 9001). quinn takes them before it has read a hello, so that they are the same for all
    /// hosts: hosts that ask for a client's certificate show none of theirs, and clients stay with TCP.
    ///
    /// One cipher suite, which every QUIC client has (RFC 9001 section 5.2 needs it for the first packets): quinn does not tell
    /// which one was agreed on. No tickets, for the same reason. No early data: a request in it could be played again.
    pub fn quic(&self) -> Result<ServerConfig, CertificateError> {
        let mut provider = (*self.provider).clone();
        provider.cipher_suites = vec![rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256];
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| CertificateError::Key(format!("TLS for QUIC: {error}")))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(ForQuic(Arc::clone(&self.shared))));
        config.alpn_protocols = vec![b"h3".to_vec()];
        config.max_early_data_size = 0;
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(config)
    }

    /// What a client's hello is answered with.
    pub fn choose(&self, hello: &ClientHello<'_>) -> Choice {
        if hello.alpn().is_some_and(|mut names| names.any(|name| name == ACME_TLS_ALPN)) {
            return Choice::Challenge(Arc::clone(&self.challenge));
        }
        let name = hello.server_name().and_then(|name| Hostname::parse(name).ok());
        if hello.server_name().is_some() && name.is_none() {
            return Choice::Refuse;
        }
        let current = self.current.load();
        let name = name.as_ref().map(Hostname::as_str);
        let tables = self.shared.tables.load();
        let ca = name.and_then(|name| tables.hosts.find(name)?.client_ca.as_ref()).map(|ca| ca.id());
        let config = match ca {
            None => Some(&current.plain),
            Some(id) => current.verified.get(&id),
        };
        match config {
            Some(config) if !self.shared.find(name).is_empty() => Choice::Serve(Arc::clone(config), ca),
            _ => Choice::Refuse,
        }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Shared {
    /// The certificates that may be shown for a name; for none, those for clients that name no host.
    fn find(&self, name: Option<&str>) -> Found {
        let tables = self.tables.load();
        let found =
            |several: Option<&Several>| several.map(|several| several.iter().cloned().collect()).unwrap_or_default();
        let Some(name) = name else { return found(tables.statics.first()) };
        let Some(host) = tables.hosts.find(name) else { return Found::new() };
        let fitting = tables.statics.fitting(name);
        match host.source {
            Source::Off => Found::new(),
            Source::Static => found(fitting.or_else(|| tables.statics.first())),
            Source::Unsaid { auto } if fitting.is_some() || !auto => found(fitting),
            // Until one is issued, a static one that is for the name does.
            Source::Auto | Source::Unsaid { .. } => match self.issued.read().get(name) {
                Some(issued) => smallvec![Arc::clone(issued)],
                None => found(fitting),
            },
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shared")
    }
}

impl ResolvesServerCert for Shared {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().and_then(|name| Hostname::parse(name).ok());
        let now = Clock::System.now();
        choose(&self.find(name.as_ref().map(Hostname::as_str)), &hello, now)
    }
}

/// Shows the certificates of hosts that ask for none of the client.
#[derive(Debug)]
struct ForQuic(Arc<Shared>);

impl ResolvesServerCert for ForQuic {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().and_then(|name| Hostname::parse(name).ok())?;
        let tables = self.0.tables.load();
        let asks = tables.hosts.find(name.as_str()).is_some_and(|host| host.client_ca.is_some());
        if asks { None } else { self.0.resolve(hello) }
    }
}

/// Shows the certificates of challenges, and no other.
#[derive(Debug)]
struct ForChallenges(Arc<Challenges>);

impl ResolvesServerCert for ForChallenges {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.tls_alpn_01(&hello.server_name()?.to_ascii_lowercase())
    }
}

type Builder = rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier>;

fn builder(provider: &Arc<CryptoProvider>) -> Result<Builder, CertificateError> {
    ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| CertificateError::Key(format!("TLS: {error}")))
}

fn config(
    provider: &Arc<CryptoProvider>,
    shared: &Arc<Shared>,
    ca: Option<&Arc<ClientCa>>,
) -> Result<ServerConfig, CertificateError> {
    let builder = builder(provider)?;
    let builder = match ca {
        None => builder.with_no_client_auth(),
        Some(ca) => builder.with_client_cert_verifier(ca.verifier(provider)?),
    };
    let mut config = builder.with_cert_resolver(Arc::clone(shared) as Arc<dyn ResolvesServerCert>);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Tickets carry the state of a session, sealed with keys that are replaced every six hours: nothing is kept here. Each
    // configuration has keys of its own, so that a ticket of one that asks for no certificate opens no other.
    config.ticketer = ticketer()?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

fn ticketer() -> Result<Arc<dyn ProducesTickets>, CertificateError> {
    rustls::crypto::aws_lc_rs::Ticketer::new()
        .map_err(|error| CertificateError::Key(format!("keys for tickets: {error}")))
}
