//! Purges by sequence number: recorded once, judged when an entry is looked up and when a fill is committed, so that they
//! cost the same at any cache size.
//!
//! The table is read without a lock when nothing was purged since an entry was last found clean, which is nearly always: one
//! load and a comparison. Else the purges of the entry's host are asked, behind a lock that only hits on that host share, once
//! for each entry and purge. Records whose entries are all gone are dropped; `floor` then keeps out what was asked for before.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use parking_lot::{Mutex, RwLock};

/// A point in the order of purges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct PurgeSequence(pub u64);

/// What is purged.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PurgeScope {
    /// One path of a host: all variants and key parts; as asked for, as keyed, or as the origin answered.
    Path {
        /// Host as asked for.
        host: String,
        /// Decoded path.
        path: String,
    },
    /// All paths that begin so.
    Prefix {
        /// Host.
        host: String,
        /// Beginning of the decoded path.
        prefix: String,
    },
    /// All entries of a host that bear a tag.
    Tag {
        /// Host.
        host: String,
        /// Tag.
        tag: String,
    },
    /// All of a host.
    Host {
        /// Host.
        host: String,
    },
    /// Everything.
    All,
}

/// Tells somebody else of a purge that is in force here; done when it is in force there.
pub type PurgeListener = Box<dyn Fn(PurgeSequence, PurgeScope) -> BoxFuture<'static, ()> + Send + Sync>;

/// Makes the program that has the folder purge; the number there, or why it has not. The flag is whether the record must be safe
/// against the loss of power.
pub type PurgeRecorder =
    Box<dyn Fn(PurgeScope, bool) -> BoxFuture<'static, Result<PurgeSequence, String>> + Send + Sync>;

/// What a purge may hit an entry by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marks<'a> {
    pub host: &'a str,
    pub paths: [Option<&'a str>; 4],
    pub tags: &'a [String],
}

/// Purges in force.
#[derive(Debug, Default)]
pub(super) struct PurgeTable {
    newest: AtomicU64,
    all: AtomicU64,
    floor: AtomicU64,
    records: AtomicU64,
    hosts: ArcSwap<HashMap<Box<str>, Arc<HostPurges>>>,
    /// Held while a purge gets the next number.
    nexts: Mutex<()>,
}

#[derive(Debug, Default)]
struct HostPurges {
    newest: AtomicU64,
    scopes: RwLock<Scopes>,
}

#[derive(Debug, Default)]
struct Scopes {
    all: u64,
    paths: HashMap<Box<str>, u64>,
    tags: HashMap<Box<str>, u64>,
    prefixes: HashMap<Box<[u8]>, u64>,
    /// Lengths of the prefixes: a path is looked up cut to each, however many prefixes there are.
    prefix_lengths: BTreeSet<usize>,
}

impl PurgeTable {
    /// The newest purge.
    pub fn newest(&self) -> u64 {
        self.newest.load(Ordering::Acquire)
    }

    /// How many purges are remembered.
    pub fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    /// Whether a response that was asked for at `sequence` may no longer be kept, because purges after that were forgotten.
    pub fn is_before_floor(&self, sequence: u64) -> bool {
        sequence < self.floor.load(Ordering::Acquire)
    }

    /// Puts a purge in force. Purges come one at a time, in order.
    pub fn apply(&self, sequence: u64, scope: &PurgeScope) {
        self.records.fetch_add(1, Ordering::Relaxed);
        match scope {
            PurgeScope::All => {
                self.all.fetch_max(sequence, Ordering::AcqRel);
            }
            PurgeScope::Host { host } => self.in_host(host, sequence, |scopes| scopes.all = sequence),
            PurgeScope::Path { host, path } => self.in_host(host, sequence, |scopes| {
                scopes.paths.insert(path.as_str().into(), sequence);
            }),
            PurgeScope::Tag { host, tag } => self.in_host(host, sequence, |scopes| {
                scopes.tags.insert(tag.as_str().into(), sequence);
            }),
            PurgeScope::Prefix { host, prefix } => self.in_host(host, sequence, |scopes| {
                scopes.prefix_lengths.insert(prefix.len());
                scopes.prefixes.insert(prefix.as_bytes().into(), sequence);
            }),
        }
        self.advance(sequence);
    }

    /// Puts a purge in force that has no place of its own in the order here: after all that are in force, and not before `least`.
    pub fn apply_next(&self, least: u64, scope: &PurgeScope) {
        let _turn = self.nexts.lock();
        self.apply(least.max(self.newest() + 1), scope);
    }

    /// Sequences up to this one are taken.
    pub fn advance(&self, sequence: u64) {
        self.newest.fetch_max(sequence, Ordering::AcqRel);
    }

    fn in_host(&self, host: &str, sequence: u64, change: impl FnOnce(&mut Scopes)) {
        if !self.hosts.load().contains_key(host) {
            self.hosts.rcu(|hosts| {
                let mut hosts = HashMap::clone(hosts);
                hosts.entry(host.into()).or_default();
                hosts
            });
        }
        let hosts = self.hosts.load();
        if let Some(purges) = hosts.get(host) {
            change(&mut purges.scopes.write());
            purges.newest.fetch_max(sequence, Ordering::AcqRel);
        }
    }

    /// Whether a purge after `sequence` hits something so marked.
    pub fn hits(&self, marks: &Marks<'_>, sequence: u64) -> bool {
        if self.newest() <= sequence {
            return false;
        }
        if self.all.load(Ordering::Acquire) > sequence {
            return true;
        }
        let hosts = self.hosts.load();
        let Some(purges) = hosts.get(marks.host) else { return false };
        purges.newest.load(Ordering::Acquire) > sequence && purges.scopes.read().hit(marks, sequence)
    }

    /// Forgets purges up to `sequence`; all that they hit is gone from memory and disk.
    pub fn forget(&self, sequence: u64) {
        self.floor.fetch_max(sequence, Ordering::AcqRel);
        let mut left = u64::from(self.all.load(Ordering::Acquire) > sequence);
        for purges in self.hosts.load().values() {
            let mut scopes = purges.scopes.write();
            scopes.paths.retain(|_, at| *at > sequence);
            scopes.tags.retain(|_, at| *at > sequence);
            scopes.prefixes.retain(|_, at| *at > sequence);
            scopes.prefix_lengths = scopes.prefixes.keys().map(|prefix| prefix.len()).collect();
            left += (scopes.paths.len() + scopes.tags.len() + scopes.prefixes.len()) as u64;
            left += u64::from(scopes.all > sequence);
        }
        self.records.store(left, Ordering::Relaxed);
    }
}

impl Scopes {
    fn hit(&self, marks: &Marks<'_>, sequence: u64) -> bool {
        let after = |at: Option<&u64>| at.is_some_and(|at| *at > sequence);
        self.all > sequence
            || (!self.tags.is_empty() && marks.tags.iter().any(|tag| after(self.tags.get(tag.as_str()))))
            || marks.paths.iter().flatten().any(|path| {
                after(self.paths.get(*path))
                    || self
                        .prefix_lengths
                        .iter()
                        .map_while(|length| path.as_bytes().get(..*length))
                        .any(|start| after(self.prefixes.get(start)))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks<'a>(path: &'a str, tags: &'a [String]) -> Marks<'a> {
        Marks { host: "a.test", paths: [Some(path), None, None, None], tags }
    }

    fn host() -> String {
        "a.test".into()
    }

    #[test]
    fn each_scope_hits_what_it_names_and_nothing_else() {
        let red = ["red".to_string()];
        let cases = [
            (PurgeScope::All, true, true, true),
            (PurgeScope::Host { host: host() }, true, true, true),
            (PurgeScope::Host { host: "a.test.au".into() }, false, false, false),
            (PurgeScope::Path { host: host(), path: "/a/b".into() }, true, false, false),
            (PurgeScope::Prefix { host: host(), prefix: "/a".into() }, true, true, false),
            (PurgeScope::Prefix { host: host(), prefix: String::new() }, true, true, true),
            (PurgeScope::Tag { host: host(), tag: "red".into() }, true, false, false),
        ];
        for (scope, first, second, third) in cases {
            let table = PurgeTable::default();
            table.apply(5, &scope);
            assert_eq!(table.hits(&marks("/a/b", &red), 4), first, "{scope:?}");
            assert_eq!(table.hits(&marks("/ab", &[]), 4), second, "{scope:?}");
            assert_eq!(table.hits(&marks("/b", &[]), 4), third, "{scope:?}");
            assert!(!table.hits(&marks("/a/b", &red), 5), "what was asked for afterwards stays: {scope:?}");
        }
    }

    #[test]
    fn a_forgotten_purge_keeps_out_what_was_asked_for_before_it() {
        let table = PurgeTable::default();
        table.apply(5, &PurgeScope::Path { host: host(), path: "/a".into() });
        table.apply(6, &PurgeScope::Path { host: host(), path: "/b".into() });
        table.forget(5);
        assert!(!table.hits(&marks("/a", &[]), 1));
        assert!(table.hits(&marks("/b", &[]), 1));
        assert!(table.is_before_floor(4));
        assert!(!table.is_before_floor(5));
        assert_eq!(table.records(), 1);
    }
}
