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
        for certificate in certificates {
            if all.first.first().is_none_or(|first| first.names == certificate.names) {
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
