//! One certificate with its chain and key, ready to be shown, and what is known of it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls::{SignatureScheme, server::ClientHello};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::error::CertificateError;
use crate::clock::Timestamp;
use crate::semantics::authority::Hostname;

/// A certificate that can be shown to clients.
#[derive(Debug)]
pub struct Certificate {
    /// Chain, key and stapled OCSP answer, as rustls takes them.
    pub key: Arc<CertifiedKey>,
    /// The DNS names and addresses that it is for, in lower case; `*.` in front for wildcards (RFC 6125 section 6.4.3).
    pub names: Vec<Box<str>>,
    /// When it ends.
    pub not_after: Timestamp,
    /// Until when the stapled answer is good.
    staple_until: Option<Timestamp>,
}

/// An OCSP answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Staple {
    /// In DER form.
    pub answer: Vec<u8>,
    /// Until when it is good.
    pub until: Option<Timestamp>,
}

impl Certificate {
    /// Of PEM texts: the chain, leaf first, and the key, which may stand in the same text.
    pub fn from_pem(chain: &[u8], key: &[u8], provider: &CryptoProvider) -> Result<Self, CertificateError> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(|error| CertificateError::Unreadable(error.to_string()))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| CertificateError::Key(error.to_string()))?;
        Self::new(chain, key, provider)
    }

    /// Of a chain, leaf first, and its key.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        provider: &CryptoProvider,
    ) -> Result<Self, CertificateError> {
        let leaf = chain.first().ok_or(CertificateError::Missing)?;
        let (names, not_after) = read_leaf(leaf)?;
        let key =
            provider.key_provider.load_private_key(key).map_err(|error| CertificateError::Key(error.to_string()))?;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
            Err(_) => return Err(CertificateError::Mismatch),
        }
        Ok(Self::issued(Arc::new(certified), names, not_after))
    }

    /// Of what was checked already.
    pub(super) fn issued(key: Arc<CertifiedKey>, names: Vec<Box<str>>, not_after: Timestamp) -> Self {
        Self { key, names, not_after, staple_until: None }
    }

    /// Shows an OCSP answer with it.
    pub(super) fn staple(&mut self, staple: Staple) {
        let mut key = CertifiedKey::clone(&self.key);
        key.ocsp = Some(staple.answer);
        (self.key, self.staple_until) = (Arc::new(key), staple.until);
    }

    /// The OCSP answer that is shown with it.
    pub(super) fn stapled(&self) -> Option<Staple> {
        Some(Staple { answer: self.key.ocsp.clone()?, until: self.staple_until })
    }

    /// Whether the OCSP answer that is shown with it is no longer good.
    pub(super) fn is_staple_over(&self, now: Timestamp) -> bool {
        self.staple_until.is_some_and(|until| until <= now)
    }

    /// Whether the client can verify a signature of its key.
    pub fn suits(&self, schemes: &[SignatureScheme]) -> bool {
        self.key.key.choose_scheme(schemes).is_some()
    }

    /// Time that is left of its life.
    pub fn left(&self, now: Timestamp) -> Duration {
        self.not_after.since(now)
    }
}

/// Of several certificates for one name: the first that the client can verify and that is still good, else the first that it
/// can verify, else the first.
pub fn choose(of: &[Arc<Certificate>], hello: &ClientHello<'_>, now: Timestamp) -> Option<Arc<CertifiedKey>> {
    let suiting = || of.iter().filter(|certificate| certificate.suits(hello.signature_schemes()));
    let best = suiting().find(|certificate| certificate.not_after > now).or_else(|| suiting().next());
    best.or_else(|| of.first()).map(|certificate| Arc::clone(&certificate.key))
}

fn read_leaf(leaf: &CertificateDer<'_>) -> Result<(Vec<Box<str>>, Timestamp), CertificateError> {
    let (_, parsed) =
        X509Certificate::from_der(leaf).map_err(|error| CertificateError::Unreadable(error.to_string()))?;
    let mut names: Vec<Box<str>> = Vec::new();
    if let Ok(Some(alternative)) = parsed.subject_alternative_name() {
        for name in &alternative.value.general_names {
            match name {
                GeneralName::DNSName(name) => names.extend(canonical(name)),
                GeneralName::IPAddress(bytes) => names.extend(address(bytes)),
                _ => {}
            }
        }
    }
    let seconds = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
    Ok((names, Timestamp::from_millis(seconds.saturating_mul(1000))))
}

fn canonical(name: &str) -> Option<Box<str>> {
    let (star, rest) = match name.strip_prefix("*.") {
        Some(rest) => ("*.", rest),
        None => ("", name),
    };
    let host = Hostname::parse(rest).ok()?;
    Some(format!("{star}{host}").into())
}

fn address(bytes: &[u8]) -> Option<Box<str>> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(std::net::Ipv4Addr::from(four).to_string().into());
    }
    let six = <[u8; 16]>::try_from(bytes).ok()?;
    Some(format!("[{}]", std::net::Ipv6Addr::from(six)).into())
}

/// A file's bytes, the file named in the error.
pub(super) fn read(file: &Path) -> Result<Vec<u8>, CertificateError> {
    std::fs::read(file).map_err(|error| CertificateError::File { file: file.to_owned(), reason: error.to_string() })
}
