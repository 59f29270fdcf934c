//! What policies may ask of the host by name (wit/policy.wit: `crypto`, `rate`, `tables`, `client.ip-in`, `secrets`), made
//! ready once: keys parsed, address sets sorted, secrets turned into keyed hashes. What a policy names and hosts.json does not
//! have is never an empty answer that could read as "not on the deny list": it is an error or a failure.

pub(crate) mod addresses;
pub(crate) mod crypto;
pub(crate) mod keys;
pub(crate) mod rate;

use std::collections::HashMap;
use std::sync::Arc;

use addresses::AddressSet;
use keys::PublicKeys;

use super::settings::Capabilities;

/// `Capabilities`, ready for use. Shared by all chains that were made with the same ones.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// As hosts.json has them: tables, rates and origins are used as they are.
    pub(crate) source: Arc<Capabilities>,
    addresses: HashMap<String, AddressSet>,
    keys: HashMap<String, Result<PublicKeys, String>>,
}

impl Prepared {
    /// Parses and sorts. A key that can't be read is an error at its use; `PublicKeyFile::check` finds it at start.
    pub(crate) fn new(source: Arc<Capabilities>) -> Self {
        let addresses = source.addresses.iter().map(|(name, nets)| (name.clone(), AddressSet::new(nets))).collect();
        let keys = source.keys.iter().map(|(name, file)| (name.clone(), PublicKeys::parse(&file.text))).collect();
        Self { source, addresses, keys }
    }

    /// An address set.
    pub(crate) fn addresses(&self, name: &str) -> Option<&AddressSet> {
        self.addresses.get(name)
    }

    /// A public key or key set.
    pub(crate) fn key(&self, name: &str) -> Result<&PublicKeys, String> {
        match self.keys.get(name) {
            Some(Ok(keys)) => Ok(keys),
            Some(Err(reason)) => Err(format!("the key {name:?} can't be used: {reason}")),
            None => Err(format!("there is no key {name:?} in hosts.json")),
        }
    }
}
