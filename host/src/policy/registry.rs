//! Which policies are in service: files found, changed, replaced, kept when they go bad or vanish.
//!
//! A changed file is read, validated, compiled and configured here, on the caller's thread and under a lock that no request
//! takes; only then is it swapped in. One that fails leaves the old one in service, is logged once, counted, and shown by
//! `status`. A file that vanishes leaves its policy in force.
//!
//! A host that hosts.json gives no policy has the one in the file of its name, if there is one: `a.example.wasm` for
//! `a.example`, `_.example.wasm` for `*.example`, `_.wasm` for `*` (a star is awkward in shells and no file name elsewhere).

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use serde_json::json;

use super::capability::Prepared;
use super::chain::{Chain, Entry, Known, Stamp};
use super::component::{self, Compiled, Inspection, Kind, Lane, name_of};
use super::cwasm::{self, Hash256};
use super::engine::Runtime;
use super::error::{LoadError, PolicyError};
use super::generation::Generation;
use super::remembered::Remembered;
use super::settings::{
    Capabilities, ChainSettings, ChainSource, Isolation, Limits, OnFailure, PolicySettings, Settings,
};
use crate::clock::{Clock, Timestamp};
use crate::telemetry::metrics::{Metrics, PolicyLabels};

/// A file that changed this short a time before it was looked at may change again within the clock's resolution.
const SETTLED: Duration = Duration::from_secs(2);

/// The engine, its epoch ticker, the compile cache, and every loaded policy by file: shared by all hosts.
pub struct Policies {
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) settings: ArcSwap<Settings>,
    /// Held while files are looked at; never by a request.
    work: Mutex<Work>,
}

struct Work {
    chains: Vec<Weak<Chain>>,
    /// Those that requests go by, as far as that was said.
    in_force: Vec<Weak<Chain>>,
    /// Files in the folder that are nobody's, as they were last reported.
    unused: Vec<PathBuf>,
    compiled: HashMap<Hash256, Weak<Compiled>>,
    prepared: Option<Weak<Prepared>>,
    remembered: Remembered,
}

impl Policies {
    /// Starts engine and ticker. `settings` can be replaced at a reload with `configure`.
    pub fn start(settings: Settings, metrics: Arc<Metrics>) -> Result<Arc<Self>, PolicyError> {
        let runtime = Arc::new(Runtime::start(settings.memory_max_bytes, code_folder(&settings), metrics)?);
        let work = Work {
            chains: Vec::new(),
            in_force: Vec::new(),
            unused: Vec::new(),
            compiled: HashMap::new(),
            prepared: None,
            remembered: Remembered::open(&settings.state),
        };
        Ok(Arc::new(Self { runtime, settings: ArcSwap::from_pointee(settings), work: Mutex::new(work) }))
    }

    /// Takes the folders of a new hosts.json. The memory that policies may have at most stays as it was at the start.
    pub fn configure(&self, settings: Settings) {
        let mut work = self.work.lock();
        if settings.state != self.settings.load().state {
            work.remembered = Remembered::open(&settings.state);
            *self.runtime.code.lock() = code_folder(&settings);
        }
        self.settings.store(Arc::new(settings));
    }

    /// Loads (or finds loaded and unchanged) what a chain names. Never fails as a whole: a policy that is bad or missing
    /// makes its chain answer 503, and `status` says why. Blocks while it compiles: call it off the request path.
    pub fn chain(self: &Arc<Self>, settings: &ChainSettings, capabilities: &Arc<Capabilities>) -> Arc<Chain> {
        let mut work = self.work.lock();
        let work = &mut *work;
        work.chains.retain(|chain| chain.strong_count() > 0);
        let prepared = work.prepared(capabilities);
        let entries = self.entries(settings);
        let same = work.chains.iter().filter_map(Weak::upgrade).find(|chain| {
            chain.settings == *settings
                && *chain.prepared.source == **capabilities
                && chain.files().eq(entries.iter().map(|entry| &entry.settings.file))
        });
        let (chain, new) = match same {
            Some(chain) => (chain, false),
            None => (Arc::new(Chain::new(self.runtime.clone(), settings.clone(), prepared, entries)), true),
        };
        self.look(work, &chain, new);
        if new {
            work.chains.push(Arc::downgrade(&chain));
        }
        chain
    }

    /// Says which chains requests go by from now on: only of these is told what became of them, and a host that is to have no
    /// policy is remembered no longer. Looks at their files, and returns a line for each change or failure.
    pub fn put_in_force(&self, chains: &[Arc<Chain>]) -> Vec<String> {
        let mut work = self.work.lock();
        for chain in chains.iter().filter(|chain| chain.settings.source == ChainSource::None) {
            work.remembered.forget(&chain.settings.host);
        }
        work.in_force = chains.iter().map(Arc::downgrade).collect();
        self.look_at_all(&mut work, true)
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
        work.chains.retain(|chain| chain.strong_count() > 0);
        let mut lines: Vec<String> = Vec::new();
        for line in work.current().iter().flat_map(|chain| self.look(work, chain, force)) {
            // Two hosts may share a file.
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        lines.extend(self.look_for_unused(work));
        lines
    }

    /// A file that lies in the folder and is no host's policy is most likely thought to be one.
    fn look_for_unused(&self, work: &mut Work) -> Vec<String> {
        let used: Vec<PathBuf> = work
            .in_force
            .iter()
            .filter_map(Weak::upgrade)
            .flat_map(|chain| chain.files().cloned().collect::<Vec<_>>())
            .collect();
        let there = std::fs::read_dir(&self.settings.load().folder);
        let mut unused: Vec<PathBuf> = there
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|file| file.extension().is_some_and(|extension| extension == "wasm") && !used.contains(file))
            .collect();
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

    /// Takes a policy whose file has vanished out of force, and forgets that its host had one. Tells whether there was
    /// anything to forget.
    pub fn forget(&self, host: &str) -> bool {
        let mut work = self.work.lock();
        let mut forgotten = work.remembered.forget(host);
        for chain in work.chains.iter().filter_map(Weak::upgrade) {
            if chain.settings.host != host || chain.settings.source != ChainSource::Dropped {
                continue;
            }
            for entry in chain.entries.iter().filter(|entry| !entry.settings.file.exists()) {
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

    /// Looks at the files of one chain, and publishes what changed.
    fn look(&self, work: &mut Work, chain: &Chain, force: bool) -> Vec<String> {
        let mut lines = Vec::new();
        let mut changed = force && chain.entries.is_empty();
        for entry in &chain.entries {
            if let Some(line) = self.look_at(work, chain, entry, force) {
                changed = true;
                lines.extend(line);
            }
        }
        if changed {
            chain.publish();
        }
        lines
    }

    /// `None` when nothing changed; else the line to report, if there is one.
    fn look_at(&self, work: &mut Work, chain: &Chain, entry: &Entry, force: bool) -> Option<Option<String>> {
        let host = &chain.settings.host;
        let file = &entry.settings.file;
        let mut known = entry.known.lock();
        let stamp = stamp(file);
        if !force && stamp.is_some() && stamp == known.stamp {
            return None;
        }
        known.stamp = stamp.filter(Stamp::is_settled);
        let bytes = match component::read(file) {
            Ok(bytes) => bytes,
            Err(error) => return self.without_file(work, chain, entry, &mut known, error),
        };
        let hash = cwasm::hash(&bytes);
        let in_service = known.generation.as_ref().map(|generation| generation.compiled.hash);
        if in_service == Some(hash) {
            known.bad = None;
            // The file is as it should be again.
            return known.problem.take().map(|_| Some(format!("{host}: {} is back", file.display())));
        }
        if known.bad == Some(hash) && !force {
            return None;
        }
        let first = !known.expected || entry.dropped;
        known.expected = true;
        if entry.dropped && first {
            work.remembered.remember(host, false);
        }
        match self.load(work, chain, entry, hash, &bytes) {
            Ok(generation) => {
                let line = format!("{host}: {} is in service ({})", file.display(), &cwasm::hex(&hash)[..12]);
                tracing::info!(host, file = %file.display(), sha256 = cwasm::hex(&hash), "policy is in service");
                if !entry.dropped {
                    work.remembered.remember(host, true);
                }
                known.bad = None;
                known.problem = None;
                known.since = Some(Clock::System.now());
                if let Some(old) = known.generation.replace(generation) {
                    old.retire();
                }
                Some(Some(line))
            }
            Err(error) => {
                let again = known.bad == Some(hash);
                known.bad = Some(hash);
                if known.generation.is_none() {
                    known.generation = self.last_good(work, chain, entry);
                }
                Some(Some(self.report(host, file, &mut known, &error.to_string(), again)))
            }
        }
    }

    /// The file can't be read: what is in service stays; at a start, a host that had a policy is closed.
    fn without_file(
        &self,
        work: &mut Work,
        chain: &Chain,
        entry: &Entry,
        known: &mut Known,
        error: LoadError,
    ) -> Option<Option<String>> {
        let host = &chain.settings.host;
        let vanished = matches!(error, LoadError::Missing(_));
        let mut error = error;
        if entry.dropped && vanished && !known.expected {
            if known.generation.is_none() {
                known.generation = self.last_good(work, chain, entry);
            }
            if known.generation.is_none() && !work.remembered.has(host) {
                // There never was one.
                return None;
            }
            known.expected = true;
            if known.generation.is_none() {
                error = LoadError::MissingNow(entry.settings.file.clone());
            }
        }
        known.expected = true;
        if known.generation.is_none() {
            known.generation = self.last_good(work, chain, entry);
        }
        let mut reason = match (&error, entry.dropped && known.generation.is_none()) {
            (LoadError::Missing(file), true) => LoadError::MissingNow(file.clone()).to_string(),
            _ => error.to_string(),
        };
        if known.generation.is_some() {
            reason.push_str("; the policy stays in force");
        }
        let again = known.problem.as_deref() == Some(reason.as_str());
        if again {
            return None;
        }
        Some(Some(self.report(host, &entry.settings.file, known, &reason, false)))
    }

    fn report(&self, host: &str, file: &Path, known: &mut Known, reason: &str, again: bool) -> String {
        let kept = known.generation.is_some();
        let name = name_of(file);
        if !again {
            let labels = PolicyLabels { policy: name, kind: "load".to_owned() };
            self.runtime.metrics.policy_failures.get_or_create(&labels).inc();
            tracing::error!(
                host,
                file = %file.display(),
                previous_stays = kept,
                "policy is not in service: {}",
                super::console::clean(reason)
            );
        }
        known.problem = Some(reason.to_owned());
        let consequence = if kept { "the previous one stays in service" } else { "its host answers by on_failure" };
        format!("{host}: {reason} ({consequence})")
    }

    fn load(
        &self,
        work: &mut Work,
        chain: &Chain,
        entry: &Entry,
        hash: Hash256,
        bytes: &[u8],
    ) -> Result<Arc<Generation>, LoadError> {
        let compiled = match work.compiled.get(&hash).and_then(Weak::upgrade) {
            Some(compiled) => compiled,
            None => {
                let compiled = Arc::new(Compiled::load(&self.runtime, &name_of(&entry.settings.file), bytes)?);
                work.compiled.retain(|_, compiled| compiled.strong_count() > 0);
                work.compiled.insert(hash, Arc::downgrade(&compiled));
                compiled
            }
        };
        let host = &chain.settings.host;
        Generation::new(&self.runtime, compiled, host, entry.settings.clone(), chain.prepared.clone())
    }

    /// The code that another chain has in service from the same file: after a reload of hosts.json a file that has gone bad or
    /// vanished meanwhile keeps its policy, under the new settings.
    fn last_good(&self, work: &Work, chain: &Chain, entry: &Entry) -> Option<Arc<Generation>> {
        let chains: Vec<Arc<Chain>> = work.chains.iter().filter_map(Weak::upgrade).collect();
        let compiled = chains
            .iter()
            .filter(|other| !std::ptr::eq(&***other, chain))
            .flat_map(|other| &other.entries)
            .filter(|other| other.settings.file == entry.settings.file)
            .find_map(|other| other.known.lock().generation.as_ref().map(|generation| generation.compiled.clone()))?;
        let host = &chain.settings.host;
        Generation::new(&self.runtime, compiled, host, entry.settings.clone(), chain.prepared.clone()).ok()
    }

    /// What is in service, for the admin listener.
    pub fn status(&self) -> serde_json::Value {
        let (chains, unused) = {
            let work = self.work.lock();
            (work.current(), work.unused.clone())
        };
        let mut hosts: Vec<serde_json::Value> = Vec::new();
        for chain in chains {
            let policies: Vec<serde_json::Value> = chain.entries.iter().filter_map(entry_status).collect();
            if !policies.is_empty() {
                hosts.push(json!({
                    "host": chain.settings.host,
                    "generation": chain.lease().generation(),
                    "policies": policies,
                }));
            }
        }
        hosts.sort_by_key(|host| host["host"].as_str().unwrap_or_default().to_owned());
        let broken = hosts.iter().any(|host| {
            host["policies"].as_array().is_some_and(|all| all.iter().any(|policy| !policy["problem"].is_null()))
        });
        let unused: Vec<String> = unused.iter().map(|file| file.display().to_string()).collect();
        json!({ "ok": !broken, "hosts": hosts, "unused_files": unused })
    }

    /// Reads and checks a file without putting it in service.
    pub fn inspect(&self, file: &Path) -> Result<Inspection, LoadError> {
        let bytes = component::read(file)?;
        Ok(Compiled::load(&self.runtime, &name_of(file), &bytes)?.inspection)
    }

    /// A line for each file of the folder that is nobody's policy.
    pub fn unused(&self) -> Vec<String> {
        self.work.lock().unused.iter().map(|file| unused_line(file)).collect()
    }
}

fn entry_status(entry: &Entry) -> Option<serde_json::Value> {
    let known = entry.known.lock();
    if !known.expected && known.generation.is_none() {
        return None;
    }
    let mut status = json!({
        "file": entry.settings.file.display().to_string(),
        "state": match (&known.generation, &known.problem) {
            (Some(_), None) => "in service",
            (Some(_), Some(_)) => "previous version in service",
            (None, _) => "not in service",
        },
        "problem": known.problem,
        "on_failure": match entry.settings.on_failure {
            OnFailure::Closed => "closed",
            OnFailure::Open => "open",
        },
    });
    if let (Some(generation), Some(map)) = (&known.generation, status.as_object_mut()) {
        let inspection = &generation.compiled.inspection;
        map.insert("sha256".to_owned(), json!(inspection.sha256));
        map.insert("size".to_owned(), json!(inspection.size));
        map.insert("phases".to_owned(), json!(inspection.phases));
        map.insert("imports".to_owned(), json!(inspection.imports));
        let (kind, lane) = (inspection.kind, generation.lane());
        map.insert("kind".to_owned(), json!(if kind == Kind::Component { "component" } else { "core module" }));
        map.insert("lane".to_owned(), json!(if lane == Lane::Direct { "direct" } else { "fiber" }));
        if let Some(since) = known.since {
            map.insert("since_ms".to_owned(), json!(since.as_millis()));
        }
        let quarantine: serde_json::Map<String, serde_json::Value> =
            generation.quarantines().into_iter().map(|(phase, left)| (phase.to_owned(), json!(left))).collect();
        if !quarantine.is_empty() {
            map.insert("quarantine_ms".to_owned(), serde_json::Value::Object(quarantine));
        }
    }
    Some(status)
}

/// The file that is a host's policy by its name.
pub fn dropped_file(folder: &Path, host: &str) -> PathBuf {
    folder.join(format!("{}.wasm", host.replace('*', "_")))
}

/// Where compiled code is kept; an empty path when nothing is kept at all.
fn code_folder(settings: &Settings) -> PathBuf {
    if settings.state.as_os_str().is_empty() { PathBuf::new() } else { settings.state.join("code") }
}

/// What to say of a file that no host goes by.
fn unused_line(file: &Path) -> String {
    format!(
        "{} is no host's policy: a host of hosts.json without `policy` has the file of its name in lower case, with `_` in \
         place of `*`, and no other name goes by it",
        file.display()
    )
}

/// The hosts whose policy hosts.json named when it was last in service. `state`: as in `Settings`.
pub fn had_named_policy(state: &Path, host: &str) -> bool {
    Remembered::open(state).had_named(host)
}

impl Work {
    /// The chains in force, or all while nobody has said which those are.
    fn current(&self) -> Vec<Arc<Chain>> {
        let chains = if self.in_force.is_empty() { &self.chains } else { &self.in_force };
        chains.iter().filter_map(Weak::upgrade).collect()
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

fn stamp(file: &Path) -> Option<Stamp> {
    let data = std::fs::metadata(file).ok()?;
    Some(Stamp {
        length: data.len(),
        inode: data.ino(),
        modified: (data.mtime(), data.mtime_nsec()),
        changed: (data.ctime(), data.ctime_nsec()),
    })
}

impl Stamp {
    /// Whether another change would surely show.
    fn is_settled(&self) -> bool {
        let Ok(seconds) = u64::try_from(self.changed.0) else { return false };
        // Against the file system's clock, which is the system's, whatever clock requests go by.
        Clock::System.now().since(Timestamp::from_millis(seconds.saturating_mul(1000))) > SETTLED
    }
}
