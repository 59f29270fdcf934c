//! What can be wrong with certificates and keys.

use std::path::PathBuf;

/// Why a certificate cannot be shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// A file can't be read.
    #[error("{}: {reason}", file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// In words.
        reason: String,
    },
    /// The text holds none.
    #[error("no certificate in PEM form (-----BEGIN CERTIFICATE-----)")]
    Missing,
    /// It is no certificate, or a damaged one.
    #[error("the certificate is not readable: {0}")]
    Unreadable(String),
    /// There is no key in PEM form, or none of a kind that is known.
    #[error("the private key is not readable: {0}")]
    Key(String),
    /// The key belongs to another certificate.
    #[error("the private key does not belong to the certificate")]
    Mismatch,
    /// The certificates of a CA are of no use.
    #[error("the CA is of no use: {0}")]
    Authority(String),
}
