//! Virtual hosts: which site a request is for, and everything that site is made of.

pub mod table;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method};
use ipnet::IpNet;

use crate::origin::Origin;
use crate::policy::{Chain, ChainSettings};
use crate::semantics::authority::{HostPattern, Hostname};
use crate::tls::{ClientCa, Source};

pub use table::Table;

/// One host of hosts.json, valid.
#[derive(Clone, Debug)]
pub struct Settings {
    /// As written in hosts.json.
    pub name: String,
    /// Parsed.
    pub pattern: HostPattern,
    /// Name of its origin; it exists.
    pub origin: String,
    /// Joined in front of each path by one slash; empty for none.
    pub prefix: String,
    /// What clients may do.
    pub methods: Methods,
    /// Life of what the origin says nothing about; none: a guess by its Last-Modified.
    pub ttl: Option<Duration>,
    /// What a client's Cache-Control can do.
    pub client_cache_control: ClientCacheControl,
    /// Its policies.
    pub chain: ChainSettings,
    /// How clients may purge.
    pub purge: Option<PurgeMethod>,
    /// The longest request body, in bytes.
    pub max_body_bytes: u64,
    /// HTTPS.
    pub https: Https,
}

/// What a host says of HTTPS.
#[derive(Clone, Debug)]
pub struct Https {
    /// Where its certificate comes from.
    pub source: Source,
    /// Clients have to be certified by it.
    pub client_ca: Option<Arc<ClientCa>>,
    /// Requests over http are sent to https, once there is a certificate.
    pub redirect: bool,
    /// The value of Strict-Transport-Security (RFC 6797 section 6.1).
    pub hsts: Option<HeaderValue>,
    /// The name that requests to any other name of this host are redirected to.
    pub canonical: Option<Hostname>,
}

/// What clients may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Methods {
    /// GET, HEAD, OPTIONS.
    #[default]
    Read,
    /// Every method goes to an http origin.
    All,
}

/// What becomes of the wishes that a client has for a cache (RFC 9111 sections 5.2.1 and 5.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCacheControl {
    /// Only `no-store` and `only-if-cached` count: strangers must not run up what the origin costs.
    #[default]
    Ignore,
    /// All count, and go on to an http origin.
    Honor,
}

/// How clients may purge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PurgeMethod {
    /// PURGE or DELETE.
    pub method: Method,
    /// Who.
    pub allow: PurgeAllow,
}

/// Who may purge with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PurgeAllow {
    /// Clients from these addresses.
    Addresses(Vec<IpNet>),
    /// Whom the host's policy lets through, never by way of `on_failure` "open".
    Policy,
}

/// A site in service.
pub struct VirtualHost {
    /// As configured.
    pub settings: Settings,
    /// Where its bytes come from.
    pub origin: Arc<dyn Origin>,
    /// Its policies.
    pub chain: Arc<Chain>,
}

/// The origins of hosts.json by name, for `use-origin`.
pub type Origins = HashMap<String, Arc<dyn Origin>>;
