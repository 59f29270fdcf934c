//! Virtual hosts: which site a request is for, and everything that site is made of.

pub mod table;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use ipnet::IpNet;

use crate::origin::Origin;
use crate::policy::{Chain, ChainSettings};
use crate::semantics::authority::HostPattern;

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
    /// Life of what the origin says nothing about.
    pub ttl: Option<Duration>,
    /// Its policies.
    pub chain: ChainSettings,
    /// How clients may purge.
    pub purge: Option<PurgeMethod>,
    /// The longest request body, in bytes.
    pub max_body_bytes: u64,
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
