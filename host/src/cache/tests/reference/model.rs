//! What the map knows: which responses were kept for each path, and which of them may still be found.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// How long a purge holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gone {
    #[default]
    No,
    /// It could not be written down: until the process ends.
    InMemory,
    /// Until the power goes.
    Unsynced,
    ForEver,
}

impl Gone {
    pub fn after(self, power_lost: bool) -> Self {
        let lost = self == Self::InMemory || (power_lost && self == Self::Unsynced);
        if lost { Self::No } else { self }
    }
}

/// A response that was kept.
#[derive(Debug)]
pub struct Version {
    pub number: u64,
    pub size: usize,
    pub purged: Gone,
    /// When it came or was found unchanged, and whether it was made stale since.
    pub moments: Vec<(Timestamp, Gone)>,
}

#[derive(Default)]
pub struct Model {
    pub versions: BTreeMap<usize, Vec<Version>>,
    pub coming: BTreeMap<usize, (Writer, u64)>,
    /// Of these, those during which something went wrong.
    pub doubtful: BTreeSet<usize>,
    /// Where nothing went wrong: the version that is there.
    pub certain: BTreeMap<usize, u64>,
    pub next: u64,
}

impl Model {
    /// Something went wrong: nothing is certain any more.
    pub fn doubt(&mut self) {
        self.certain.clear();
        self.doubtful.extend(self.coming.keys());
    }

    pub fn each_moment(&mut self, change: impl Fn(&mut Gone)) {
        for version in self.versions.values_mut().flatten() {
            change(&mut version.purged);
            version.moments.iter_mut().for_each(|(_, stale)| change(stale));
        }
    }

    pub fn purge(&mut self, hits: impl Fn(&str) -> bool, how: How, gone: Gone) {
        for (path, versions) in &mut self.versions {
            if !hits(PATHS[*path]) {
                continue;
            }
            for version in versions {
                if how == How::Soft {
                    version.moments.iter_mut().for_each(|(_, stale)| *stale = gone.max(*stale));
                } else {
                    version.purged = gone.max(version.purged);
                    self.certain.remove(path);
                }
            }
        }
    }
}

/// What no other version has.
pub fn body_of(path: usize, number: u64, size: usize) -> Vec<u8> {
    let seed = (path as u64 * 31 + number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..size).map(|at| (seed >> (at % 8 * 8)) as u8 ^ (at >> 9) as u8).collect()
}

/// Whether a purge hits a path.
pub type Hits = Box<dyn Fn(&str) -> bool>;

/// A purge by number.
pub fn scope(number: u8) -> (PurgeScope, Hits) {
    let host = || "a.test".to_owned();
    let path = PATHS[usize::from(number / 8) % PATHS.len()];
    match number % 8 {
        0 => (PurgeScope::All, Box::new(|_| true)),
        1 => (PurgeScope::Host { host: host() }, Box::new(|_| true)),
        2 => (PurgeScope::Prefix { host: host(), prefix: "/d/".into() }, Box::new(|path| path.starts_with("/d/"))),
        3 => (PurgeScope::Tag { host: host(), tag: "one".into() }, Box::new(|path| path.ends_with('1'))),
        4 => (PurgeScope::TagEverywhere { tag: "other".into() }, Box::new(|path| !path.ends_with('1'))),
        5 => (PurgeScope::Glob { host: host(), glob: "/**1".into() }, Box::new(|path| path.ends_with('1'))),
        _ => (PurgeScope::Path { host: host(), path: path.into() }, Box::new(move |other| other == path)),
    }
}
