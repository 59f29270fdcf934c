//! From a host name to its site: the exact name before the longest wildcard before `*`.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::VirtualHost;
use crate::semantics::authority::{HostPattern, Hostname};

/// All sites.
pub struct Table {
    hosts: Vec<Arc<VirtualHost>>,
    names: Names,
}

/// Which of the sites a name leads to, apart from the sites themselves. The names in the tables are those of hosts.json, so
/// that nobody else can make them collide.
#[derive(Default)]
struct Names {
    exact: FxHashMap<Box<str>, usize>,
    wildcards: FxHashMap<Box<str>, usize>,
    any: Option<usize>,
}

impl Table {
    /// Of sites with patterns that differ.
    pub fn new(hosts: Vec<Arc<VirtualHost>>) -> Self {
        let names = Names::new(hosts.iter().map(|host| &host.settings.pattern));
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

impl Names {
    fn new<'a>(patterns: impl Iterator<Item = &'a HostPattern>) -> Self {
        let mut names = Self::default();
        for (index, pattern) in patterns.enumerate() {
            match pattern {
                HostPattern::Exact(host) => {
                    names.exact.insert(host.as_str().into(), index);
                }
                HostPattern::Wildcard(host) => {
                    names.wildcards.insert(host.as_str().into(), index);
                }
                HostPattern::Any => names.any = Some(index),
            }
        }
        names
    }

    /// At most one look-up for each dot of the name, and names have at most 253 bytes.
    fn find(&self, host: &str) -> Option<usize> {
        if let Some(index) = self.exact.get(host) {
            return Some(*index);
        }
        let mut rest = host;
        while !self.wildcards.is_empty()
            && let Some((_, parent)) = rest.split_once('.')
        {
            if let Some(index) = self.wildcards.get(parent) {
                return Some(*index);
            }
            rest = parent;
        }
        self.any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(patterns: &[&str]) -> Names {
        let patterns: Vec<HostPattern> =
            patterns.iter().map(|text| HostPattern::parse(text).expect("the test's patterns are right")).collect();
        Names::new(patterns.iter())
    }

    #[test]
    fn exact_comes_before_the_longest_wildcard_before_any() {
        let names = names(&["*", "*.example", "*.b.example", "a.b.example"]);
        for (host, index) in [
            ("a.b.example", 3),
            ("c.b.example", 2),
            ("x.y.b.example", 2),
            ("b.example", 1),
            ("x.example", 1),
            ("example", 0),
            ("notb.example.org", 0),
            ("xb.example", 1),
            ("[::1]", 0),
        ] {
            assert_eq!(names.find(host), Some(index), "{host}");
        }
    }

    #[test]
    fn an_unknown_host_leads_nowhere() {
        let names = names(&["a.example", "*.b.example"]);
        for host in ["b.example", "c.example", "a.example.org", "xa.example", "example"] {
            assert_eq!(names.find(host), None, "{host}");
        }
        assert_eq!(names.find("x.b.example"), Some(1));
    }
}
