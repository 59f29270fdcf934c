//! The folder of the policies: which file is a host's by its name, and which is nobody's.
//!
//! A host that hosts.json gives no policy has the one in the file of its name, if there is one: `a.example.wasm` for
//! `a.example`, `_.example.wasm` for `*.example`, `_.wasm` for `*` (a star is awkward in shells and no file name elsewhere).
//! So has each domain that such a pattern serves: `b.example.wasm` is the policy of `b.example` in place of `_.example.wasm`,
//! and what is remembered of hosts holds for it as well.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::chain::{Chain, Domains};
use super::registry::{Policies, Work};
use super::settings::{ChainSettings, ChainSource};
use crate::semantics::authority::{HostPattern, Hostname};
use crate::semantics::host_names::HostNames;

impl Policies {
    /// Gives each domain that has a file of its own, and is served by a pattern of `all` that hosts.json gives no policy, a chain
    /// of its own. With `last`, `all` is what requests go by and nothing else: chains that are not wanted any more go. Returns a
    /// line for each change or failure.
    pub(super) fn look_for_domains(&self, work: &mut Work, all: &[Arc<Chain>], last: bool) -> Vec<String> {
        let mut chains = Vec::with_capacity(all.len());
        let mut patterns = Vec::with_capacity(all.len());
        for chain in all {
            if let Ok(pattern) = HostPattern::parse(&chain.settings.host) {
                chains.push(chain);
                patterns.push(pattern);
            }
        }
        if patterns.iter().all(|pattern| matches!(pattern, HostPattern::Exact(_))) {
            return Vec::new();
        }
        let names = HostNames::new(patterns.iter());
        let mut wanted: HashMap<*const Chain, BTreeSet<Arc<str>>> = HashMap::new();
        let open = chains.iter().zip(&patterns).filter(|(chain, pattern)| {
            !matches!(pattern, HostPattern::Exact(_)) && chain.settings.source == ChainSource::Dropped
        });
        // That of the chains, which is not that of a reload that is not decided yet.
        let Some(folder) = open.into_iter().find_map(|(chain, _)| Some(chain.files().next()?.parent()?.to_owned()))
        else {
            return Vec::new();
        };
        let named: HashSet<&PathBuf> = all
            .iter()
            .filter(|chain| matches!(chain.settings.source, ChainSource::Named(_)))
            .flat_map(|chain| chain.files())
            .collect();
        let files = wasm_files(&folder);
        let stems = files.iter().filter(|file| !named.contains(file)).filter_map(|file| file.file_stem()?.to_str());
        for name in stems.chain(work.remembered.hosts()) {
            // A file with a lone `_` in front is a pattern's, and `signed-url.wasm` no domain's: those have a dot.
            if !name.contains('.')
                || name.starts_with("_.")
                || !Hostname::parse(name).is_ok_and(|host| host.as_str() == name)
            {
                continue;
            }
            let Some(index) = names.find(name) else { continue };
            let own = matches!(patterns[index], HostPattern::Exact(_));
            if !own && chains[index].settings.source == ChainSource::Dropped {
                wanted.entry(Arc::as_ptr(chains[index])).or_default().insert(name.into());
            }
        }
        let mut lines = Vec::new();
        for chain in all {
            let mut wanted = wanted.remove(&Arc::as_ptr(chain)).unwrap_or_default();
            let known = chain.domains.lock().clone();
            if !last {
                // What requests go by until the change is made still needs them.
                wanted.extend(known.keys().cloned());
            }
            if wanted.iter().eq(known.keys()) {
                continue;
            }
            let mut domains = Domains::new();
            for name in wanted {
                let own = known.get(&name).cloned().unwrap_or_else(|| {
                    let settings = ChainSettings { host: name.to_string(), source: ChainSource::Dropped };
                    let (own, told) = self.chain_of(work, &settings, Arc::clone(&chain.prepared));
                    lines.extend(told);
                    own
                });
                domains.insert(name, own);
            }
            *chain.domains.lock() = domains;
            chain.publish();
        }
        lines
    }

    /// A file that lies in the folder and is no host's policy is most likely thought to be one.
    pub(super) fn look_for_unused(&self, work: &mut Work) -> Vec<String> {
        let current = work.current();
        let used: HashSet<&PathBuf> = current.iter().flat_map(|chain| chain.files()).collect();
        let mut unused = wasm_files(&self.settings.load().folder);
        unused.retain(|file| !used.contains(file));
        unused.sort();
        if work.in_force.is_empty() || unused == work.unused {
            return Vec::new();
        }
        let new: Vec<String> =
            unused.iter().filter(|file| !work.unused.contains(file)).map(|file| unused_line(file)).collect();
        for line in &new {
            tracing::warn!("{line}");
        }
        work.unused = unused;
        new
    }

    /// A line for each file of the folder that is nobody's policy.
    pub fn unused(&self) -> Vec<String> {
        self.work.lock().unused.iter().map(|file| unused_line(file)).collect()
    }
}

/// What could be a policy.
fn wasm_files(folder: &Path) -> Vec<PathBuf> {
    let there = std::fs::read_dir(folder);
    let files = there.into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    files.filter(|file| file.extension().is_some_and(|extension| extension == "wasm")).collect()
}

/// The file that is a host's policy by its name.
pub fn dropped_file(folder: &Path, host: &str) -> PathBuf {
    folder.join(format!("{}.wasm", host.replace('*', "_")))
}

/// What to say of a file that no host goes by.
fn unused_line(file: &Path) -> String {
    format!(
        "{} is no host's policy: a host of hosts.json without `policy`, and each domain that such a pattern serves, has the \
         file of its name in lower case, with `_` in place of `*`; no other name goes by it",
        file.display()
    )
}
