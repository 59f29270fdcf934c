//! TLS towards clients: which certificate a name is shown, under which settings, and where certificates come from.
//!
//! ```text
//! server        the handshake's choice: a configuration for each way that clients prove who they are
//!   names       from the name in the hello to certificates: static ones first, then issued ones
//!     files     certificates of hosts.json, read again when they change
//!       ocsp    answers about them that are stapled
//!     certificate, client_ca    one certificate with its key; one CA for clients
//! acme          automatic certificates: orders, challenges, renewal
//!   store       where they and the account are kept
//! session       what is known of a connection that was accepted
//! ```
//!
//! TLS 1.2 and 1.3 with the suites of aws-lc-rs, which are those of Mozilla's intermediate profile: ECDHE with AES-GCM or
//! ChaCha20-Poly1305. No early data: a request in it could be played again (RFC 8446 section 8).

pub mod acme;
mod certificate;
mod client_ca;
mod error;
mod files;
mod names;
mod ocsp;
pub mod roots;
mod server;
mod session;
pub mod store;

pub use certificate::Certificate;
pub use client_ca::ClientCa;
pub use error::CertificateError;
pub use files::CertificateFiles;
pub use server::{Choice, Tls};
pub use session::{Identity, Session};

use std::sync::Arc;

use crate::semantics::authority::HostPattern;

/// What hosts.json says of TLS, valid.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Static certificates; the first of them is for clients that name no host.
    pub certificates: Vec<CertificateFiles>,
    /// What the hosts say, in the order of hosts.json.
    pub hosts: Vec<HostSettings>,
}

/// What a host of hosts.json says of HTTPS.
#[derive(Clone, Debug)]
pub struct HostSettings {
    /// The host.
    pub pattern: HostPattern,
    /// Where its certificate comes from.
    pub source: Source,
    /// Clients have to show a certificate of this CA.
    pub client_ca: Option<Arc<ClientCa>>,
}

/// Where a host's certificate comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// It has none: not served over HTTPS.
    Off,
    /// A static one; where none is for the name, the first one.
    Static,
    /// An ACME server.
    Auto,
    /// hosts.json says nothing: a static one that is for the name, or else, with `auto`, an ACME server.
    Unsaid {
        /// There is an ACME server, and the name is no pattern.
        auto: bool,
    },
}
