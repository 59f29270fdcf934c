//! Virtual hosts: which site a request is for, and everything that site is made of.

pub mod caching;
pub mod compress;
pub mod table;

use std::collections::HashMap;
use std::sync::Arc;

use http::{HeaderValue, Method};
use ipnet::IpNet;

use crate::origin::Origin;
use crate::policy::{Chain, ChainSettings};
use crate::semantics::authority::{HostPattern, Hostname};
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
    /// The same for some paths; the first that fits counts.
    pub rules: Vec<Rule>,
    /// What is compressed, if anything is.
    pub compress: Option<Compress>,
    /// Its policies.
    pub chain: ChainSettings,
    /// How clients may purge.
    pub purge: Option<PurgeMethod>,
    /// The longest request body, in bytes.
    pub max_body_bytes: u64,
    /// HTTPS.
    pub https: Https,
}

impl Settings {
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
