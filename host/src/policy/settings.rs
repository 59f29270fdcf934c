//! What hosts.json says of policies, valid.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

/// What holds for all policies.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Folder that file names are relative to; watched.
    pub folder: PathBuf,
    /// Folder for compiled code (0700) and for the memory of which hosts had a policy; ours alone.
    pub state: PathBuf,
    /// What is in `state` is read, and nothing written there: for a look at a configuration that is not put in force.
    pub read_only: bool,
    /// The most memory one policy may be given, in bytes: fixed when the engine is made.
    pub memory_max_bytes: u64,
}

/// The policies of one host.
#[derive(Clone, Debug, PartialEq)]
pub struct ChainSettings {
    /// The host's pattern in hosts.json, or the name of a domain that a pattern serves.
    pub host: String,
    /// What hosts.json says.
    pub source: ChainSource,
}

/// Where a host's policies come from.
#[derive(Clone, Debug, PartialEq)]
pub enum ChainSource {
    /// hosts.json says nothing: `<domain>.wasm` in the folder, if it is or was there.
    Dropped,
    /// `"policy": null`: none, and what was remembered is forgotten.
    None,
    /// These, in order.
    Named(Vec<PolicySettings>),
}

/// One policy of a chain.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicySettings {
    /// File, resolved against the folder.
    pub file: PathBuf,
    /// Its configuration, an object.
    pub config: serde_json::Map<String, serde_json::Value>,
    /// Secrets by name.
    pub secrets: BTreeMap<String, Secret>,
    /// `secrets`.
    pub grants: Vec<String>,
    /// Limits.
    pub limits: Limits,
    /// What a failure does.
    pub on_failure: OnFailure,
    /// Whether instances are reused.
    pub isolation: Isolation,
}

/// Bytes that are never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Arc<[u8]>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// What one phase call may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// CPU time in milliseconds. Default 5.
    pub time_ms: u32,
    /// Linear memory in MiB. Default 64.
    pub memory_mib: u32,
    /// Host calls. Default 10,000.
    pub calls: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { time_ms: 5, memory_mib: 64, calls: 10_000 }
    }
}

/// What a failure of a policy does to the request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// It is refused.
    #[default]
    Closed,
    /// It goes on as if the policy had not been there.
    Open,
}

/// Whether instances serve more than one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// Until a trap, a count, a memory mark or a reload.
    #[default]
    Reuse,
    /// Each phase call has a fresh one.
    Request,
}

/// What policies can ask for by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Capabilities {
    /// Address sets.
    pub addresses: HashMap<String, Vec<IpNet>>,
    /// Tables.
    pub tables: HashMap<String, HashMap<String, String>>,
    /// Rate limits.
    pub rates: HashMap<String, Rate>,
    /// Public keys.
    pub keys: HashMap<String, PublicKeyFile>,
    /// Names of the origins that `use-origin` may name.
    pub origins: Vec<String>,
}

/// A rate limit: `rate` in each `per`, and up to `burst` at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// How many.
    pub rate: u32,
    /// In which time.
    pub per: Duration,
    /// How many at once.
    pub burst: u32,
}

/// A public key as it was read: PEM or JWKS text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKeyFile {
    /// Where it was read.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}
