//! From a host name to its site: the exact name before the longest wildcard before `*`.

use std::sync::Arc;

use super::VirtualHost;
use crate::semantics::authority::Hostname;
use crate::semantics::host_names::HostNames;

/// All sites.
pub struct Table {
    hosts: Vec<Arc<VirtualHost>>,
    names: HostNames,
}

impl Table {
    /// Of sites with patterns that differ.
    pub fn new(hosts: Vec<Arc<VirtualHost>>) -> Self {
        let names = HostNames::new(hosts.iter().map(|host| &host.settings.pattern));
        Self { hosts, names }
    }

    /// The site for a name.
    pub fn route(&self, host: &Hostname) -> Option<&Arc<VirtualHost>> {
        self.names.find(host.as_str()).and_then(|index| self.hosts.get(index))
    }

    /// All sites in the order of hosts.json.
    pub fn hosts(&self) -> &[Arc<VirtualHost>] {
        &self.hosts
    }
}
