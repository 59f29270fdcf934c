//! Certificates for origins that speak TLS, made anew for each test.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::TempDir;

/// A certificate, its key, and the authority that signed it, which nobody but the test trusts.
#[derive(Debug)]
pub struct Certificate {
    directory: TempDir,
    authority: CertificateDer<'static>,
    chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
}

impl Certificate {
    /// A certificate for these DNS names and addresses.
    pub fn for_names(names: &[&str]) -> Self {
        Self::living(names, None)
    }

    /// One that ends after so long, counted in whole seconds from now.
    pub fn ending_in(names: &[&str], after: Duration) -> Self {
        Self::living(names, Some(after))
    }

    fn living(names: &[&str], after: Option<Duration>) -> Self {
        let directory = crate::temp_dir("certs");
        let mut params = CertificateParams::new(Vec::new()).expect("no names is a valid list of names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("the system gives random numbers");
        let authority = CertifiedIssuer::self_signed(params, key).expect("the parameters are complete");
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("the names are valid");
        if let Some(after) = after {
            params.not_after = (std::time::SystemTime::now() + after).into();
        }
        let key = KeyPair::generate().expect("the system gives random numbers");
        let leaf = params.signed_by(&key, &authority).expect("the parameters are complete");
        std::fs::write(directory.path().join("ca.pem"), authority.pem()).expect("a new folder is writable");
        std::fs::write(directory.path().join("cert.pem"), leaf.pem()).expect("a new folder is writable");
        std::fs::write(directory.path().join("key.pem"), key.serialize_pem()).expect("a new folder is writable");
        let authority = authority.der().clone();
        Self { authority, chain: vec![leaf.der().clone()], key: key.serialize_der(), directory }
    }

    /// The authority's certificate as a PEM file.
    pub fn authority_file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// The authority's certificate.
    pub fn authority(&self) -> CertificateDer<'static> {
        self.authority.clone()
    }

    /// The certificate, as it is shown.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// Its key in PKCS #8 form.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// What stands in `tls.certificates` for it.
    pub fn files(&self) -> serde_json::Value {
        let file = |name: &str| self.directory.path().join(name);
        serde_json::json!({ "cert": file("cert.pem"), "key": file("key.pem") })
    }

    /// The folder, for what a test wants to lay beside it.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// What accepts connections with this certificate.
    pub fn acceptor(&self, protocols: &[&[u8]]) -> tokio_rustls::TlsAcceptor {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.clone()));
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider knows TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), key)
            .expect("key and certificate were made for each other");
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        tokio_rustls::TlsAcceptor::from(Arc::new(config))
    }
}
