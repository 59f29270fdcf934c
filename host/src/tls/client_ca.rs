//! A CA that clients have to be certified by.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest;
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use super::error::CertificateError;
use super::roots;

/// The certificates of a CA for clients.
#[derive(Debug)]
pub struct ClientCa {
    file: PathBuf,
    roots: Arc<RootCertStore>,
    id: [u8; 32],
}

impl ClientCa {
    /// Reads a PEM file with one or more certificates.
    pub fn read(file: &Path) -> Result<Self, CertificateError> {
        let (roots, text) = roots::read(file)?;
        let mut id = [0; 32];
        id.copy_from_slice(digest::digest(&digest::SHA256, &text).as_ref());
        Ok(Self { file: file.to_owned(), roots: Arc::new(roots), id })
    }

    /// Where it was read.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Tells it from any other: a connection that was accepted by one is good for no host that asks for another.
    pub fn id(&self) -> [u8; 32] {
        self.id
    }

    pub(super) fn verifier(
        &self,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ClientCertVerifier>, CertificateError> {
        WebPkiClientVerifier::builder_with_provider(Arc::clone(&self.roots), Arc::clone(provider))
            .build()
            .map_err(|error| CertificateError::Authority(error.to_string()))
    }
}
