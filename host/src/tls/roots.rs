//! Certificates of CAs, in a PEM file.

use std::path::Path;

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};

use super::certificate;
use super::error::CertificateError;

/// The CAs of a file, and what stands in it.
///
/// # Errors
/// It cannot be read, has no certificate in PEM form, or has one that may sign no others.
pub fn read(file: &Path) -> Result<(RootCertStore, Vec<u8>), CertificateError> {
    let text = certificate::read(file)?;
    let wrong = |reason: String| CertificateError::Authority(format!("{}: {reason}", file.display()));
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
    Ok((roots, text))
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
    fn what_is_no_ca_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        for (is_ca, taken) in [
            (rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained), true),
            (rcgen::IsCa::NoCa, false),
            (rcgen::IsCa::ExplicitNoCa, false),
        ] {
            let mut params = rcgen::CertificateParams::new(vec!["client.test".to_owned()]).unwrap();
            params.is_ca = is_ca;
            std::fs::write(file.path(), params.self_signed(&key).unwrap().pem()).unwrap();
            let read = read(file.path());
            assert_eq!(read.is_ok(), taken);
            if let Err(error) = read {
                assert!(error.to_string().contains("of no CA"), "{error}");
            }
        }
        std::fs::write(file.path(), key.serialize_pem()).unwrap();
        assert!(read(file.path()).unwrap_err().to_string().contains("no certificate in PEM form"));
    }
}
