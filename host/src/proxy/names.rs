//! The names that a host of the configuration has entries under. A pattern serves any number of them, and clients make them.

use super::{Generation, Proxy};
use crate::semantics::authority::{HostPattern, Hostname};
use crate::vhost::VirtualHost;

/// Names that something is kept of and that are looked through.
const NAMES_MOST: usize = 1000;

impl Proxy {
    /// The names under which entries of a host are kept; none for too many to go through.
    pub(super) async fn names_of(&self, host: &VirtualHost, generation: &Generation) -> Option<Vec<String>> {
        if let HostPattern::Exact(name) = &host.settings.pattern {
            return Some(vec![name.as_str().to_owned()]);
        }
        let is_of_host = |name: &String| {
            let site = Hostname::parse(name).ok().and_then(|name| generation.route(&name));
            site.is_some_and(|site| site.host.settings.name == host.settings.name)
        };
        let names = self.cache.hosts(NAMES_MOST).await?;
        Some(names.into_iter().filter(is_of_host).collect())
    }
}
