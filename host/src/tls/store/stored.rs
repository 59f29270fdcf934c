//! A certificate chain with its key, as it is kept, and what is read from its first certificate (RFC 5280).

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

use crate::clock::Timestamp;

/// Characters of a line of PEM (RFC 7468 section 2).
const PEM_LINE: usize = 64;

/// A chain, leaf first, and the key of the leaf. What the leaf says of itself was read when this was made.
pub struct Stored {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    leaf: Leaf,
    found: Option<PathBuf>,
}

/// What is needed of a leaf.
struct Leaf {
    names: Vec<String>,
    not_before: Timestamp,
    not_after: Timestamp,
    authority_key_id: Option<Vec<u8>>,
    serial: Vec<u8>,
}

/// Why a chain and a key are no certificate to serve with.
#[derive(Debug, thiserror::Error)]
pub enum BadCertificate {
    /// The text holds no private key.
    #[error("no private key in it: {0}")]
    NoKey(rustls_pki_types::pem::Error),
    /// A certificate in the text cannot be read.
    #[error("unreadable PEM: {0}")]
    Pem(rustls_pki_types::pem::Error),
    /// The text holds no certificate.
    #[error("no certificate in it")]
    NoCertificate,
    /// The first certificate is not X.509 as we know it.
    #[error("the first certificate cannot be parsed: {0}")]
    Unreadable(String),
    /// The key is of no known kind, or does not belong to the first certificate.
    #[error("{0}")]
    Key(#[from] rustls::Error),
    /// The certificate is for other names.
    #[error("it is for {}, not for {name}", .names.join(", "))]
    OtherName {
        /// The name it was wanted for.
        name: String,
        /// The names in it.
        names: Vec<String>,
    },
}

impl Stored {
    /// A chain, leaf first, with the key of the leaf.
    ///
    /// # Errors
    /// The leaf cannot be read. Whether the key fits is seen by [`Self::certified_key`].
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, BadCertificate> {
        let leaf = Leaf::read(chain.first().ok_or(BadCertificate::NoCertificate)?)?;
        Ok(Self { chain, key, leaf, found: None })
    }

    /// A chain as PEM, leaf first, with the key of the leaf.
    ///
    /// # Errors
    /// The chain cannot be read.
    pub fn from_chain(chain: &[u8], key: PrivateKeyDer<'static>) -> Result<Self, BadCertificate> {
        let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>().map_err(BadCertificate::Pem)?;
        Self::new(chain, key)
    }

    /// Reads PEM: one private key (PKCS#8, SEC1 or PKCS#1) and the chain, leaf first.
    ///
    /// # Errors
    /// A part is missing or cannot be read.
    pub fn from_pem(text: &[u8]) -> Result<Self, BadCertificate> {
        let key = PrivateKeyDer::from_pem_slice(text).map_err(BadCertificate::NoKey)?;
        Self::from_chain(text, key)
    }

    /// The same, remembered as found in a file, for messages.
    pub(super) fn found_in(mut self, file: &Path) -> Self {
        self.found = Some(file.to_owned());
        self
    }

    /// The file it was read from, if it was.
    pub fn found(&self) -> Option<&Path> {
        self.found.as_deref()
    }

    /// As PEM: the key (as PKCS#8 when it is) and then the chain.
    pub fn to_pem(&self) -> String {
        let mut text = String::new();
        let (label, key) = match &self.key {
            PrivateKeyDer::Pkcs1(key) => ("RSA PRIVATE KEY", key.secret_pkcs1_der()),
            PrivateKeyDer::Sec1(key) => ("EC PRIVATE KEY", key.secret_sec1_der()),
            _ => ("PRIVATE KEY", self.key.secret_der()),
        };
        write_pem(&mut text, label, key);
        for certificate in &self.chain {
            write_pem(&mut text, "CERTIFICATE", certificate);
        }
        text
    }

    /// The chain, leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The DNS names the leaf is for (subjectAltName), lower case.
    pub fn names(&self) -> &[String] {
        &self.leaf.names
    }

    /// Since when the leaf is valid.
    pub fn not_before(&self) -> Timestamp {
        self.leaf.not_before
    }

    /// Until when the leaf is valid.
    pub fn not_after(&self) -> Timestamp {
        self.leaf.not_after
    }

    /// The `keyIdentifier` of the leaf's authority key identifier.
    pub fn authority_key_id(&self) -> Option<&[u8]> {
        self.leaf.authority_key_id.as_deref()
    }

    /// The content bytes of the leaf's serial number, with the leading zero it has in DER.
    pub fn serial(&self) -> &[u8] {
        &self.leaf.serial
    }

    /// Whether the leaf is for this name, exactly or by a wildcard for its first label (RFC 6125 section 6.4.3).
    pub fn is_for(&self, name: &str) -> bool {
        self.leaf.names.iter().any(|of| {
            of == name
                || of
                    .strip_prefix("*.")
                    .is_some_and(|parent| name.split_once('.').is_some_and(|(_, own)| own == parent))
        })
    }

    /// As rustls serves it.
    ///
    /// # Errors
    /// The key is of no kind that the provider knows, or it does not belong to the leaf.
    pub fn certified_key(&self, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, BadCertificate> {
        Ok(Arc::new(CertifiedKey::from_der(self.chain.clone(), self.key.clone_key(), provider)?))
    }

    /// As rustls serves it, for a name.
    ///
    /// # Errors
    /// As [`Self::certified_key`], and when the leaf is for other names.
    pub fn certified_for(&self, name: &str, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, BadCertificate> {
        if self.is_for(name) {
            return self.certified_key(provider);
        }
        Err(BadCertificate::OtherName { name: name.to_owned(), names: self.leaf.names.clone() })
    }
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stored").field("names", &self.leaf.names).field("found", &self.found).finish_non_exhaustive()
    }
}

impl Leaf {
    fn read(certificate: &CertificateDer<'_>) -> Result<Self, BadCertificate> {
        let unreadable = |error: &dyn fmt::Display| BadCertificate::Unreadable(error.to_string());
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| unreadable(&error))?;
        let mut names = Vec::new();
        if let Some(alternative) = parsed.subject_alternative_name().map_err(|error| unreadable(&error))? {
            names.extend(alternative.value.general_names.iter().filter_map(|name| match name {
                GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
                _ => None,
            }));
        }
        let authority_key_id = parsed.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0.to_vec()),
            _ => None,
        });
        let moment = |seconds: i64| Timestamp::from_millis(u64::try_from(seconds).unwrap_or(0).saturating_mul(1000));
        Ok(Self {
            names,
            not_before: moment(parsed.validity().not_before.timestamp()),
            not_after: moment(parsed.validity().not_after.timestamp()),
            authority_key_id,
            serial: parsed.raw_serial().to_vec(),
        })
    }
}

/// Appends one PEM block (RFC 7468).
pub(super) fn write_pem(text: &mut String, label: &str, der: &[u8]) {
    let body = STANDARD.encode(der);
    text.push_str(&format!("-----BEGIN {label}-----\n"));
    let mut rest = body.as_str();
    while let Some((line, after)) = rest.split_at_checked(PEM_LINE) {
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    if !rest.is_empty() {
        text.push_str(rest);
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
}
