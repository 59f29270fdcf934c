//! From the name in a client's hello to the certificates that may be shown for it.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::certificate::Certificate;
use super::{HostSettings, Source};
use crate::semantics::host_names::HostNames;

/// Certificates for one name.
pub(super) type Several = Vec<Arc<Certificate>>;

/// Static certificates by the names that they are for.
#[derive(Debug, Default)]
pub(super) struct ByName {
    exact: FxHashMap<Box<str>, Several>,
    /// By what stands behind `*.`: one label is meant (RFC 6125 section 6.4.3).
    wildcards: FxHashMap<Box<str>, Several>,
    first: Several,
}

impl ByName {
    pub fn new<'a>(certificates: impl Iterator<Item = &'a Arc<Certificate>>) -> Self {
        let mut all = Self::default();
        let sorted = |certificate: &Certificate| {
            let mut names = certificate.names.clone();
            names.sort();
            names
        };
        for certificate in certificates {
            if all.first.first().is_none_or(|first| sorted(first) == sorted(certificate)) {
                // The first one, and those for the same names with another kind of key.
                all.first.push(Arc::clone(certificate));
            }
            for name in &certificate.names {
                let (map, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut all.wildcards, parent),
                    None => (&mut all.exact, &**name),
                };
                map.entry(name.into()).or_default().push(Arc::clone(certificate));
            }
        }
        // A wildcard is good for each name below it too: where the one for the name alone has expired, or is of a kind that a
        // client can't verify, it does.
        for (name, several) in &mut all.exact {
            let parent = name.split_once('.').and_then(|(_, parent)| all.wildcards.get(parent));
            let other = parent.into_iter().flatten().filter(|other| !several.iter().any(|own| Arc::ptr_eq(own, other)));
            let other: Several = other.cloned().collect();
            several.extend(other);
        }
        all
    }

    /// Those that are for a name.
    pub fn fitting(&self, name: &str) -> Option<&Several> {
        self.exact.get(name).or_else(|| self.wildcards.get(name.split_once('.')?.1))
    }

    /// Those for clients that name no host.
    pub fn first(&self) -> Option<&Several> {
        (!self.first.is_empty()).then_some(&self.first)
    }
}

/// What the hosts say, by name.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    names: HostNames,
    settings: Vec<HostSettings>,
}

impl Hosts {
    pub fn new(settings: Vec<HostSettings>) -> Self {
        Self { names: HostNames::new(settings.iter().map(|host| &host.pattern)), settings }
    }

    /// What the host says that a name goes by.
    pub fn find(&self, name: &str) -> Option<&HostSettings> {
        self.settings.get(self.names.find(name)?)
    }

    pub fn all(&self) -> &[HostSettings] {
        &self.settings
    }
}

/// Whether certificates for a name are an ACME server's to issue.
pub(super) fn is_automatic(source: Source, name: &str, statics: &ByName) -> bool {
    match source {
        Source::Auto => true,
        Source::Unsaid { auto } => auto && statics.fitting(name).is_none(),
        Source::Off | Source::Static => false,
    }
}
