//! Every chain that is alive, found by its host and by its files: with a thousand hosts nobody goes through all for each of them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use super::chain::Chain;

/// Fewer than this are never tidied up.
const FEW: usize = 64;

/// The chains.
#[derive(Default)]
pub(super) struct Chains {
    all: Vec<Weak<Chain>>,
    by_host: HashMap<String, Vec<Weak<Chain>>>,
    by_file: HashMap<PathBuf, Vec<Weak<Chain>>>,
    /// With so many, those that are gone are removed.
    full: usize,
}

impl Chains {
    /// One more.
    pub(super) fn add(&mut self, chain: &Arc<Chain>) {
        if self.all.len() >= self.full {
            self.tidy();
        }
        let weak = Arc::downgrade(chain);
        for file in chain.files() {
            self.by_file.entry(file.to_owned()).or_default().push(weak.clone());
        }
        self.by_host.entry(chain.settings.host.clone()).or_default().push(weak.clone());
        self.all.push(weak);
    }

    /// All, in the order in which they came.
    pub(super) fn all(&self) -> Vec<Arc<Chain>> {
        alive(&self.all).collect()
    }

    /// Those of a host.
    pub(super) fn of_host(&self, host: &str) -> impl Iterator<Item = Arc<Chain>> {
        alive(self.by_host.get(host).map_or(&[], Vec::as_slice))
    }

    /// Those with a policy from a file.
    pub(super) fn of_file(&self, file: &Path) -> impl Iterator<Item = Arc<Chain>> {
        alive(self.by_file.get(file).map_or(&[], Vec::as_slice))
    }

    fn tidy(&mut self) {
        let some_left = |chains: &mut Vec<Weak<Chain>>| {
            chains.retain(|chain| chain.strong_count() > 0);
            !chains.is_empty()
        };
        self.by_host.retain(|_, chains| some_left(chains));
        self.by_file.retain(|_, chains| some_left(chains));
        some_left(&mut self.all);
        self.full = FEW.max(self.all.len() * 2);
    }
}

fn alive(chains: &[Weak<Chain>]) -> impl Iterator<Item = Arc<Chain>> {
    chains.iter().filter_map(Weak::upgrade)
}
