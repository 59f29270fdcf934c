//! Where certificates, account keys and failed attempts outlive the process.
//!
//! The store is a trait, so that a fleet can share one; [`FolderStore`] is the folder behind it on a single node. A store
//! knows nothing of ACME: it keeps certificates by name, account keys by directory URL and one small document of the
//! scheduler's. Its calls may block; whoever is on an async worker and minds, moves them to the blocking pool.

use std::io;

mod autocert;
mod folder;
mod stored;
#[cfg(test)]
mod tests;

pub use folder::FolderStore;
pub use stored::{BadCertificate, Stored};

/// The longest host name. DNS would allow 253 bytes (RFC 1035 section 2.3.4), a file system `<name>.pem` of 255.
const MAX_NAME_BYTES: usize = 250;

/// The longest label of a host name (RFC 1035 section 2.3.4).
const MAX_LABEL_BYTES: usize = 63;

/// What survives a restart.
///
/// Every `keep_*` is atomic: after a crash the old value is there, or the new one.
pub trait CertificateStore: Send + Sync + 'static {
    /// The certificate of a name, if there is a usable one. What cannot be read, does not fit together or is another name's
    /// is told in the log and counts as absent. An expired one may be returned.
    ///
    /// # Errors
    /// The store cannot be asked.
    fn certificate(&self, name: &str) -> io::Result<Option<Stored>>;

    /// Keeps the certificate of a name in place of the one before.
    ///
    /// # Errors
    /// It is not kept; a name that is none is `InvalidInput`.
    fn keep_certificate(&self, name: &str, stored: &Stored) -> io::Result<()>;

    /// The account key (PKCS#8, DER) for a directory URL. One that is no key is told in the log and counts as absent.
    ///
    /// # Errors
    /// The store cannot be asked. There may be a key: no new one should be made.
    fn account_key(&self, directory: &str) -> io::Result<Option<Vec<u8>>>;

    /// Keeps the account key (PKCS#8, DER) for a directory URL.
    ///
    /// # Errors
    /// It is not kept.
    fn keep_account_key(&self, directory: &str, pkcs8: &[u8]) -> io::Result<()>;

    /// The document that was kept last.
    ///
    /// # Errors
    /// The store cannot be asked.
    fn attempts(&self) -> io::Result<Option<Vec<u8>>>;

    /// Keeps the document that tells of failed attempts.
    ///
    /// # Errors
    /// It is not kept.
    fn keep_attempts(&self, document: &[u8]) -> io::Result<()>;
}

/// Whether this is a host name as certificates have them: lower case, no wildcard, no address, labels of 1 to 63 letters,
/// digits, hyphens and underscores. Such a name is also a harmless file name: no slash, no leading dot, no plus.
pub fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= MAX_LABEL_BYTES
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
    };
    name.len() <= MAX_NAME_BYTES
        && name.split('.').all(label)
        // The last label of an IPv4 address is a number, that of a name never is (RFC 3696 section 2).
        && !name.rsplit('.').next().is_none_or(|last| last.bytes().all(|byte| byte.is_ascii_digit()))
}
