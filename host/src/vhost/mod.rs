//! Virtual hosts: which site a request is for, and everything that site is made of.

pub mod caching;
pub mod compress;
pub mod table;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method};
use ipnet::IpNet;

use crate::origin::Origin;
use crate::policy::{Chain, ChainSettings};
use crate::semantics::authority::{HostPattern, Hostname};
use crate::semantics::path_pattern::{Matchable, PathPattern};
use crate::tls::{ClientCa, Source};

pub use caching::{CacheUse, Caching, ClientCacheControl, Rule};
pub use compress::{Compress, TypePattern};
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
    /// What it says of caching.
    pub caching: Caching,
    /// Its budget on disk, in bytes, if it has one of its own.
    pub cache_disk_bytes: Option<u64>,
    /// The same for some paths; the first that fits counts.
    pub rules: Vec<Rule>,
    /// Its policies.
    pub chain: ChainSettings,
    /// How clients may purge.
    pub purge: Option<PurgeMethod>,
    /// The longest request body, in bytes.
    pub max_body_bytes: u64,
    /// HTTPS.
    pub https: Https,
    /// What of it is evicted last, and asked about before it is stale.
    pub pin: Vec<PathPattern>,
    /// All that its origin has is kept.
    pub mirror: Option<Mirror>,
}

/// How a host's bucket or folder is kept whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Between two listings.
    pub interval: Duration,
    /// Objects that are fetched at once.
    pub jobs: usize,
}

impl Settings {
    /// Whether a decoded path is evicted last.
    pub fn is_pinned(&self, path: &str) -> bool {
        if self.mirror.is_some() {
            return true;
        }
        !self.pin.is_empty() && {
            let path = Matchable::of(path);
            self.pin.iter().any(|pattern| pattern.matches(&path))
        }
    }

    /// The rule for a decoded path, by its place in the list.
    pub fn rule_for(&self, path: &str) -> Option<usize> {
        caching::rule_for(&self.rules, path)
    }

    /// What holds by this rule, or without one.
    pub fn caching_by(&self, rule: Option<usize>) -> &Caching {
        rule.and_then(|rule| self.rules.get(rule)).map_or(&self.caching, |rule| &rule.caching)
    }
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
