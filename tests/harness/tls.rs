//! TLS as a client: whom to trust, which name to send, and what to show of oneself.

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::certs::Certificate;

/// How a connection is secured.
#[derive(Clone, Debug)]
pub struct Secure {
    config: Arc<ClientConfig>,
    name: String,
}

impl Secure {
    /// Trusts the authority of a certificate, and asks for a name.
    pub fn trusting(certificate: &Certificate, name: &str) -> Self {
        Self::build(certificate.authority(), name, None, rustls::ALL_VERSIONS)
    }

    /// Trusts an authority in DER form.
    pub fn trusting_authority(authority: CertificateDer<'static>, name: &str) -> Self {
        Self::build(authority, name, None, rustls::ALL_VERSIONS)
    }

    /// The same, and shows a certificate of one's own.
    pub fn showing(certificate: &Certificate, name: &str, own: &Certificate) -> Self {
        Self::build(certificate.authority(), name, Some(own), rustls::ALL_VERSIONS)
    }

    /// Speaks TLS 1.2 only.
    pub fn old(certificate: &Certificate, name: &str) -> Self {
        Self::build(certificate.authority(), name, None, &[&rustls::version::TLS12])
    }

    fn build(
        authority: CertificateDer<'static>,
        name: &str,
        own: Option<&Certificate>,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(authority).expect("the authority is a certificate");
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .expect("the provider knows TLS 1.2 and 1.3")
            .with_root_certificates(roots);
        let config = match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(own.key().to_vec()));
                builder.with_client_auth_cert(own.chain().to_vec(), key).expect("key and certificate belong together")
            }
        };
        Self { config: Arc::new(config), name: name.to_owned() }
    }

    /// Sends no name, as for an address.
    #[must_use]
    pub fn without_name(mut self) -> Self {
        Arc::make_mut(&mut self.config).enable_sni = false;
        self
    }

    /// Carries the handshake through.
    pub async fn connect(&self, stream: TcpStream, protocols: &[&[u8]]) -> anyhow::Result<TlsStream<TcpStream>> {
        let mut config = Arc::clone(&self.config);
        Arc::make_mut(&mut config).alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let name = ServerName::try_from(self.name.clone())?;
        Ok(TlsConnector::from(config).connect(name, stream).await?)
    }
}
