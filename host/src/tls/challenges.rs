//! What an ACME server is shown while it asks whether a name is ours (RFC 8555 section 8.3, RFC 8737).

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;
use rustls::sign::CertifiedKey;

/// The answers to challenges under way. Empty most of the time.
#[derive(Debug, Default)]
pub struct Challenges {
    http: RwLock<HashMap<String, String>>,
    alpn: RwLock<HashMap<String, Arc<CertifiedKey>>>,
}

impl Challenges {
    /// The key authorization for a token of HTTP-01.
    pub fn http_01(&self, token: &str) -> Option<String> {
        self.http.read().get(token).cloned()
    }

    /// The certificate to show for a name to a client that asks with ALPN `acme-tls/1`.
    pub fn tls_alpn_01(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        self.alpn.read().get(name).cloned()
    }
}
