//! From a host name to a pattern of hosts.json: the exact name before the longest wildcard before `*`.

use rustc_hash::FxHashMap;

use super::authority::HostPattern;

/// Which pattern of a list a name goes by. The names in the tables are those of hosts.json, so that nobody else can make them
/// collide.
#[derive(Debug, Default)]
pub struct HostNames {
    exact: FxHashMap<Box<str>, usize>,
    wildcards: FxHashMap<Box<str>, usize>,
    any: Option<usize>,
}

impl HostNames {
    /// Of patterns that differ.
    pub fn new<'a>(patterns: impl Iterator<Item = &'a HostPattern>) -> Self {
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

    /// The index of the pattern. At most one look-up for each dot of the name, and names have at most 253 bytes.
    pub fn find(&self, host: &str) -> Option<usize> {
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

    fn names(patterns: &[&str]) -> HostNames {
        let patterns: Vec<HostPattern> =
            patterns.iter().map(|text| HostPattern::parse(text).expect("the test's patterns are right")).collect();
        HostNames::new(patterns.iter())
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
