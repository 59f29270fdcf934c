//! Which policies are in service: what is loaded, and which chains requests go by. How their files are looked at is in
//! `look.rs`, which files are whose in `folder.rs`.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::capability::Prepared;
use super::chain::{Chain, Entry, Known};
use super::chains::Chains;
use super::component::{self, Compiled, Inspection, name_of};
use super::cwasm::Hash256;
use super::engine::Runtime;
use super::error::{LoadError, PolicyError};
use super::folder::dropped_file;
use super::remembered::Remembered;
use super::settings::{
    Capabilities, ChainSettings, ChainSource, Isolation, Limits, OnFailure, PolicySettings, Settings,
};
use crate::telemetry::metrics::Metrics;

/// The engine, its epoch ticker, the compile cache, and every loaded policy by file: shared by all hosts.
pub struct Policies {
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) settings: ArcSwap<Settings>,
    /// Held while files are looked at; never by a request.
    pub(super) work: Mutex<Work>,
}

/// What is touched under the lock.
pub(super) struct Work {
    pub(super) chains: Chains,
    /// Those that requests go by, as far as that was said.
    pub(super) in_force: Vec<Weak<Chain>>,
    /// Files in the folder that are nobody's, as they were last reported.
    pub(super) unused: Vec<PathBuf>,
    pub(super) compiled: HashMap<Hash256, Weak<Compiled>>,
    prepared: Option<Weak<Prepared>>,
    pub(super) remembered: Remembered,
}

impl Policies {
    /// Starts engine and ticker. `settings` can be replaced at a reload with `configure`.
    pub fn start(settings: Settings, metrics: Arc<Metrics>) -> Result<Arc<Self>, PolicyError> {
        let runtime = Arc::new(Runtime::start(settings.memory_max_bytes, code_folder(&settings), metrics)?);
        let work = Work {
            chains: Chains::default(),
            in_force: Vec::new(),
            unused: Vec::new(),
            compiled: HashMap::new(),
            prepared: None,
            remembered: remembered(&settings),
        };
        Ok(Arc::new(Self { runtime, settings: ArcSwap::from_pointee(settings), work: Mutex::new(work) }))
    }

    /// Takes the folders of a new hosts.json. The memory that policies may have at most stays as it was at the start.
    pub fn configure(&self, settings: Settings) {
        let mut work = self.work.lock();
        if settings.state != self.settings.load().state {
            work.remembered = remembered(&settings);
            *self.runtime.code.lock() = code_folder(&settings);
        }
        self.settings.store(Arc::new(settings));
    }

    /// Reads and loads (or finds loaded and unchanged) what a chain names, and gives a line for each change or failure. Never
    /// fails as a whole: a policy that is bad or missing makes its chain answer 503, and `status` says why. Blocks while it
    /// compiles: call it off the request path.
    pub fn chain(&self, settings: &ChainSettings, capabilities: &Arc<Capabilities>) -> (Arc<Chain>, Vec<String>) {
        let mut work = self.work.lock();
        let prepared = work.prepared(capabilities);
        self.chain_of(&mut work, settings, prepared)
    }

    pub(super) fn chain_of(
        &self,
        work: &mut Work,
        settings: &ChainSettings,
        prepared: Arc<Prepared>,
    ) -> (Arc<Chain>, Vec<String>) {
        let entries = self.entries(settings);
        let same = work.chains.of_host(&settings.host).find(|chain| {
            chain.settings == *settings
                && *chain.prepared.source == *prepared.source
                && chain.files().eq(entries.iter().map(|entry| &entry.settings.file))
        });
        if let Some(chain) = same {
            let lines = self.look(work, &chain, true);
            return (chain, lines);
        }
        let chain = Arc::new(Chain::new(self.runtime.clone(), settings.clone(), prepared, entries));
        let lines = self.look(work, &chain, true);
        work.chains.add(&chain);
        (chain, lines)
    }

    /// Says which chains requests go by from now on: only of these is told what became of them, and a host that is to have no
    /// policy is remembered no longer. Returns a line for each file in the folder that is nobody's.
    pub fn put_in_force(&self, chains: &[Arc<Chain>]) -> Vec<String> {
        let mut work = self.work.lock();
        for chain in chains.iter().filter(|chain| chain.settings.source == ChainSource::None) {
            work.remembered.forget(&chain.settings.host);
        }
        work.in_force = chains.iter().map(Arc::downgrade).collect();
        self.look_for_domains(&mut work, chains, true);
        self.look_for_unused(&mut work)
    }

    /// Reads and loads the policies of the domains that patterns of `chains` serve. To be called with all chains of a hosts.json
    /// before requests go by them: nothing is taken from those that do now. Returns a line for each change or failure.
    pub fn domains(&self, chains: &[Arc<Chain>]) -> Vec<String> {
        let mut work = self.work.lock();
        let mut lines = Vec::new();
        for chain in chains.iter().flat_map(|chain| chain.domains()) {
            lines.extend(self.look(&mut work, &chain, true));
        }
        lines.extend(self.look_for_domains(&mut work, chains, false));
        lines
    }

    fn entries(&self, settings: &ChainSettings) -> Vec<Entry> {
        match &settings.source {
            ChainSource::None => Vec::new(),
            ChainSource::Named(policies) => policies
                .iter()
                .map(|policy| Entry {
                    settings: policy.clone(),
                    dropped: false,
                    known: Mutex::new(Known { expected: true, ..Known::default() }),
                })
                .collect(),
            ChainSource::Dropped => vec![Entry {
                settings: PolicySettings {
                    file: dropped_file(&self.settings.load().folder, &settings.host),
                    config: serde_json::Map::new(),
                    secrets: std::collections::BTreeMap::new(),
                    grants: Vec::new(),
                    limits: Limits::default(),
                    on_failure: OnFailure::Closed,
                    isolation: Isolation::Reuse,
                },
                dropped: true,
                known: Mutex::default(),
            }],
        }
    }

    /// Looks at the folder and at every file in service; validates, compiles and swaps in what changed. Called by the
    /// watcher, at SIGHUP and by the admin listener. Returns a line for each change or failure.
    pub fn refresh(&self) -> Vec<String> {
        self.refresh_with(true)
    }

    /// `force` reads files even when their times say that they have not changed.
    pub(crate) fn refresh_with(&self, force: bool) -> Vec<String> {
        self.look_at_all(&mut self.work.lock(), force)
    }

    fn look_at_all(&self, work: &mut Work, force: bool) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for chain in work.current() {
            lines.extend(self.look(work, &chain, force));
        }
        let in_force = work.in_force();
        lines.extend(self.look_for_domains(work, &in_force, true));
        lines.extend(self.look_for_unused(work));
        // Two hosts may share a file.
        let mut told = HashSet::new();
        lines.retain(|line| told.insert(line.clone()));
        lines
    }

    /// Takes a policy whose file has vanished out of force, and forgets that its host had one. Tells whether there was
    /// anything to forget; while the file is there, there is not.
    pub fn forget(&self, host: &str) -> bool {
        let mut work = self.work.lock();
        let is_dropped = |chain: &Arc<Chain>| chain.settings.source == ChainSource::Dropped;
        let chains: Vec<Arc<Chain>> = work.chains.of_host(host).filter(is_dropped).collect();
        if chains.iter().flat_map(|chain| chain.files()).any(|file| file.symlink_metadata().is_ok()) {
            return false;
        }
        let mut forgotten = work.remembered.forget(host);
        // A domain without a policy of its own goes by that of its pattern, from before its own is taken away.
        let in_force = work.in_force();
        self.look_for_domains(&mut work, &in_force, true);
        for chain in chains {
            for entry in &chain.entries {
                let mut known = entry.known.lock();
                forgotten |= known.expected;
                if let Some(old) = known.generation.take() {
                    old.retire();
                }
                *known = Known::default();
            }
            chain.publish();
        }
        forgotten
    }

    /// Reads and checks a file without putting it in service.
    pub fn inspect(&self, file: &Path) -> Result<Inspection, LoadError> {
        let bytes = component::read(file)?;
        Ok(Compiled::load(&self.runtime, &name_of(file), &bytes)?.inspection)
    }
}

/// Which hosts had policies.
fn remembered(settings: &Settings) -> Remembered {
    let remembered = Remembered::open(&settings.state);
    if settings.read_only { remembered.unsaved() } else { remembered }
}

/// Where compiled code is kept; an empty path when nothing is kept at all.
fn code_folder(settings: &Settings) -> PathBuf {
    if settings.read_only || settings.state.as_os_str().is_empty() {
        PathBuf::new()
    } else {
        settings.state.join("code")
    }
}

/// The hosts whose policy hosts.json named when it was last in service. `state`: as in `Settings`.
pub fn had_named_policy(state: &Path, host: &str) -> bool {
    Remembered::open(state).had_named(host)
}

impl Work {
    /// The chains in force.
    fn in_force(&self) -> Vec<Arc<Chain>> {
        self.in_force.iter().filter_map(Weak::upgrade).collect()
    }

    /// The chains in force and those of their domains, or all while nobody has said which those are.
    pub(super) fn current(&self) -> Vec<Arc<Chain>> {
        if self.in_force.is_empty() {
            return self.chains.all();
        }
        let mut all = self.in_force();
        let domains: Vec<Arc<Chain>> = all.iter().flat_map(|chain| chain.domains()).collect();
        all.extend(domains);
        all
    }

    /// Keys parsed and sets sorted, once for all chains with the same capabilities.
    fn prepared(&mut self, capabilities: &Arc<Capabilities>) -> Arc<Prepared> {
        if let Some(prepared) = self.prepared.as_ref().and_then(Weak::upgrade)
            && (Arc::ptr_eq(&prepared.source, capabilities) || *prepared.source == **capabilities)
        {
            return prepared;
        }
        let prepared = Arc::new(Prepared::new(capabilities.clone()));
        self.prepared = Some(Arc::downgrade(&prepared));
        prepared
    }
}
