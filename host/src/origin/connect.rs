//! Connecting: names, TCP and TLS, and which of them failed.

use std::error::Error;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::TryFutureExt;
use futures_util::future::BoxFuture;
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::{GaiAddrs, GaiResolver, Name};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tower_service::Service;

use super::OriginError;
use super::error::ConnectFailure;

/// Which versions of HTTP are offered over TLS. Cleartext is HTTP/1.1 either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Versions {
    /// HTTP/1.1.
    One,
    /// HTTP/2 if the server likes it, else HTTP/1.1.
    OneAndTwo,
}

/// Makes connections.
pub(super) type Connector = HttpsConnector<HttpConnector<Resolver>>;

/// A connector for http and https.
pub(super) fn connector(tls: ClientConfig, versions: Versions) -> Connector {
    let mut tcp = HttpConnector::new_with_resolver(Resolver(GaiResolver::new()));
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(Duration::from_secs(60)));
    let builder = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
    match versions {
        Versions::One => builder.enable_http1().wrap_connector(tcp),
        Versions::OneAndTwo => builder.enable_all_versions().wrap_connector(tcp),
    }
}

/// The system's resolver, whose errors can be told from those of sockets.
#[derive(Clone)]
pub(super) struct Resolver(GaiResolver);

/// A name was not resolved.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(super) struct Unresolved(io::Error);

impl Service<Name> for Resolver {
    type Response = GaiAddrs;
    type Error = Unresolved;
    type Future = BoxFuture<'static, Result<GaiAddrs, Unresolved>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Unresolved>> {
        self.0.poll_ready(cx).map_err(Unresolved)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        Box::pin(self.0.call(name).map_err(Unresolved))
    }
}

/// What of connecting failed.
pub(super) fn failure(error: &(dyn Error + 'static)) -> ConnectFailure {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<Unresolved>() {
            return ConnectFailure::Name;
        }
        if let Some(failure) = error.downcast_ref::<rustls::Error>().map(tls_failure) {
            return failure;
        }
        if let Some(error) = error.downcast_ref::<io::Error>() {
            match error.kind() {
                io::ErrorKind::ConnectionRefused => return ConnectFailure::Refused,
                io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
                    return ConnectFailure::Unroutable;
                }
                io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe => return ConnectFailure::Terminated,
                _ => {}
            }
            // What stands inside an I/O error is not its source.
            next = error.get_ref().map(|inner| inner as &(dyn Error + 'static)).or_else(|| error.source());
        } else {
            next = error.source();
        }
    }
    ConnectFailure::Other
}

fn tls_failure(error: &rustls::Error) -> ConnectFailure {
    match error {
        rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => ConnectFailure::Certificate,
        rustls::Error::AlertReceived(_) => ConnectFailure::Alert,
        _ => ConnectFailure::Tls,
    }
}

/// TLS as a client: against the system's roots, or those in a file.
pub(super) fn tls_config(origin: &str, ca: Option<&Path>) -> Result<ClientConfig, OriginError> {
    let configuration = |reason: String| OriginError::Configuration { origin: origin.to_owned(), reason };
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| configuration(format!("TLS: {e}")))?;
    let builder = match ca {
        None => builder.with_native_roots().map_err(|e| configuration(format!("the system's CA certificates: {e}")))?,
        Some(path) => {
            let unreadable = |e: &dyn std::fmt::Display| configuration(format!("CA file {}: {e}", path.display()));
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_file_iter(path).map_err(|e| unreadable(&e))? {
                roots.add(certificate.map_err(|e| unreadable(&e))?).map_err(|e| unreadable(&e))?;
            }
            if roots.is_empty() {
                return Err(unreadable(&"no certificate in it"));
            }
            builder.with_root_certificates(roots)
        }
    };
    Ok(builder.with_no_client_auth())
}

/// TLS that trusts nobody, for origins that are asked in clear text.
pub(super) fn no_tls(origin: &str) -> Result<ClientConfig, OriginError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| OriginError::Configuration { origin: origin.to_owned(), reason: format!("TLS: {e}") })?;
    Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_reason_is_found() {
        let certificate = rustls::Error::InvalidCertificate(rustls::CertificateError::Expired);
        let certificate = io::Error::new(io::ErrorKind::InvalidData, certificate);
        assert_eq!(failure(&io::Error::other(certificate)), ConnectFailure::Certificate);
        let alert = rustls::Error::AlertReceived(rustls::AlertDescription::HandshakeFailure);
        assert_eq!(failure(&io::Error::other(alert)), ConnectFailure::Alert);
        assert_eq!(failure(&io::Error::other(rustls::Error::DecryptError)), ConnectFailure::Tls);
        assert_eq!(failure(&Unresolved(io::ErrorKind::ConnectionRefused.into())), ConnectFailure::Name);
        assert_eq!(failure(&io::Error::from(io::ErrorKind::ConnectionRefused)), ConnectFailure::Refused);
        assert_eq!(failure(&io::Error::other("what")), ConnectFailure::Other);
    }
}
