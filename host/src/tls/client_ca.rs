//! A CA that clients have to be certified by.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest;
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};

use super::certificate;
use super::error::CertificateError;

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
        let text = certificate::read(file)?;
        let wrong = |reason: String| CertificateError::ClientCa(format!("{}: {reason}", file.display()));
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&text) {
            let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
            if !signs_others(&certificate) {
                return Err(wrong("the certificate is of no CA: it may sign no others".to_owned()));
            }
            roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(wrong("no certificate in PEM form".to_owned()));
        }
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
            .map_err(|error| CertificateError::ClientCa(error.to_string()))
    }
}

/// Whether a certificate is one of a CA (RFC 5280 section 4.2.1.9). Those of the first version do not say; what cannot be read is for
/// rustls to refuse.
fn signs_others(certificate: &CertificateDer<'_>) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return true };
    match certificate.basic_constraints() {
        Ok(Some(constraints)) => constraints.value.ca,
        Ok(None) => certificate.version() != X509Version::V3,
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_may_sign_no_others_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (is_ca, taken) in [
            (rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained), true),
            (rcgen::IsCa::NoCa, false),
            (rcgen::IsCa::ExplicitNoCa, false),
        ] {
            let mut params = rcgen::CertificateParams::new(vec!["client.test".to_owned()]).unwrap();
            params.is_ca = is_ca;
            let key = rcgen::KeyPair::generate().unwrap();
            std::fs::write(file.path(), params.self_signed(&key).unwrap().pem()).unwrap();
            let read = ClientCa::read(file.path());
            assert_eq!(read.is_ok(), taken);
            if let Err(error) = read {
                assert!(error.to_string().contains("of no CA"), "{error}");
            }
        }
    }
}
