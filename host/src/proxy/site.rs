//! The configuration in force, as requests use it: sites with their counters and the identity of their origins.

use std::collections::HashMap;
use std::sync::Arc;

use ipnet::IpNet;

use super::outcome::Word;
use crate::origin::Origin;
use crate::semantics::authority::Hostname;
use crate::telemetry::metrics::{BusyCounter, HostLabels, Metrics};
use crate::vhost::{Table, VirtualHost};

/// An origin in service.
#[derive(Clone)]
pub struct Service {
    /// The origin.
    pub origin: Arc<dyn Origin>,
    /// Changes when the place does (bucket, endpoint, URL, folder): part of every cache key, so that what was kept of
    /// another place is never served after a change of hosts.json.
    pub identity: Arc<str>,
}

/// A virtual host with what the path of a request needs of it at hand.
pub struct Site {
    /// The host.
    pub host: Arc<VirtualHost>,
    /// Identity of its origin and prefix.
    pub identity: Arc<str>,
    counters: [BusyCounter; Word::ALL.len()],
}

impl Site {
    /// Counts one answer. The counter was looked up at configuration: no lock on the hit path.
    pub fn count(&self, word: Word) {
        self.counters[word as usize].inc();
    }
}

/// One configuration, whole.
pub struct Generation {
    table: Table,
    sites: HashMap<usize, Arc<Site>>,
    /// Origins by name, for `use-origin`.
    pub origins: HashMap<String, Service>,
    /// Whose word about the client is believed.
    pub trusted_proxies: Vec<IpNet>,
}

impl Generation {
    /// Puts a configuration together.
    pub fn new(
        table: Table,
        origins: HashMap<String, Service>,
        trusted_proxies: Vec<IpNet>,
        metrics: &Metrics,
    ) -> Self {
        let sites = table
            .hosts()
            .iter()
            .map(|host| {
                let place = origins.get(&host.settings.origin).map_or("", |service| &service.identity);
                let identity = format!("{place}/{}", host.settings.prefix).into();
                let counters = Word::ALL.map(|word| {
                    let labels = HostLabels { host: host.settings.name.clone(), cache: word.as_str().to_owned() };
                    metrics.requests.get_or_create(&labels).clone()
                });
                (Arc::as_ptr(host) as usize, Arc::new(Site { host: Arc::clone(host), identity, counters }))
            })
            .collect();
        Self { table, sites, origins, trusted_proxies }
    }

    /// The site for a name.
    pub fn route(&self, host: &Hostname) -> Option<&Arc<Site>> {
        let found = self.table.route(host)?;
        self.sites.get(&(Arc::as_ptr(found) as usize))
    }

    /// All virtual hosts, in the order of hosts.json.
    pub fn hosts(&self) -> &[Arc<VirtualHost>] {
        self.table.hosts()
    }
}
