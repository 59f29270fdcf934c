//! The policies of one host in order, and the lease that one request takes of them.
//!
//! Files are looked at off the request path; what is in service hangs on one pointer that requests load and reloads swap, so a
//! request sees the whole chain of one moment and keeps it to its end.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use super::capability::Prepared;
use super::component::name_of;
use super::cwasm::Hash256;
use super::decision::{FailureKind, PolicyFailure};
use super::engine::Runtime;
use super::generation::Generation;
use super::settings::{ChainSettings, OnFailure, PolicySettings};
use super::{Decision, Exchange, Phase};
use crate::local::{self, Local};
use crate::telemetry::metrics::PolicyLabels;

/// The policies of one host in order. Swapping in a new version of a file happens inside; requests in flight finish on the
/// version that they began with.
pub struct Chain {
    pub(crate) settings: ChainSettings,
    pub(crate) prepared: Arc<Prepared>,
    pub(crate) entries: Vec<Entry>,
    runtime: Arc<Runtime>,
    /// Of a pattern: the domains it serves that have a file of their own. Only touched under the registry's lock.
    pub(crate) domains: Mutex<Domains>,
    current: ArcSwap<Links>,
}

/// Chains by the name of their host.
pub(crate) type Domains = BTreeMap<Arc<str>, Arc<Chain>>;

/// One policy of a chain, and what is known of its file. Only touched under the registry's lock.
pub(crate) struct Entry {
    pub(crate) settings: PolicySettings,
    /// It is there because of its file's name: without the file there is no policy.
    pub(crate) dropped: bool,
    pub(crate) known: Mutex<Known>,
}

/// What is known of a file.
#[derive(Default)]
pub(crate) struct Known {
    /// In service.
    pub(crate) generation: Option<Arc<Generation>>,
    /// Why not, or why not the newest.
    pub(crate) problem: Option<String>,
    /// The file as it was when it was last looked at.
    pub(crate) stamp: Option<Stamp>,
    /// Content that was tried and is bad.
    pub(crate) bad: Option<Hash256>,
    /// There should be a policy.
    pub(crate) expected: bool,
    /// When what is in service was loaded.
    pub(crate) since: Option<crate::clock::Timestamp>,
}

/// What tells a changed file cheaply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) length: u64,
    pub(crate) inode: u64,
    pub(crate) modified: (i64, i64),
    pub(crate) changed: (i64, i64),
}

struct Links {
    number: u64,
    links: Vec<Link>,
    exports: [bool; 4],
    domains: FxHashMap<Arc<str>, Arc<Chain>>,
}

enum Link {
    Ready(Arc<Generation>),
    Broken { name: String, reason: String, open: bool, runtime: Arc<Runtime> },
}

impl Chain {
    /// A chain with nothing in service yet.
    pub(crate) fn new(
        runtime: Arc<Runtime>,
        settings: ChainSettings,
        prepared: Arc<Prepared>,
        entries: Vec<Entry>,
    ) -> Self {
        let nothing =
            Links { number: runtime.number(), links: Vec::new(), exports: [false; 4], domains: FxHashMap::default() };
        let current = ArcSwap::from_pointee(nothing);
        Self { settings, prepared, entries, runtime, domains: Mutex::default(), current }
    }

    /// Takes the current generation of each policy for one request to `host`: of those of the host itself if this chain is a
    /// pattern's and the host has a file of its own.
    pub fn lease(&self, host: &str) -> ChainLease {
        let links = Local::of(&self.current.load());
        if !links.domains.is_empty()
            && let Some(own) = links.domains.get(host)
        {
            let own = Local::of(&own.current.load());
            // One whose file went before it could be read leaves the host to the pattern's.
            if !own.links.is_empty() {
                return ChainLease { links: own };
            }
        }
        ChainLease { links }
    }

    /// The number of what is in service: it changes when any policy of the chain does.
    pub(crate) fn number(&self) -> u64 {
        self.current.load().number
    }

    /// Puts in service what the entries know.
    pub(crate) fn publish(&self) {
        let mut links = Vec::new();
        for entry in &self.entries {
            let known = entry.known.lock();
            match (&known.generation, known.expected) {
                (Some(generation), _) => links.push(Link::Ready(generation.clone())),
                (None, true) => links.push(Link::Broken {
                    name: name_of(&entry.settings.file),
                    reason: known.problem.clone().unwrap_or_else(|| "it is not loaded".to_owned()),
                    open: entry.settings.on_failure == OnFailure::Open,
                    runtime: self.runtime.clone(),
                }),
                (None, false) => {}
            }
        }
        let exports = Phase::ALL.map(|phase| links.iter().any(|link| link.exports(phase)));
        let domains = self.domains.lock().iter().map(|(name, chain)| (Arc::clone(name), Arc::clone(chain))).collect();
        self.current.store(Arc::new(Links { number: self.runtime.number(), links, exports, domains }));
        local::forget();
    }

    /// Why requests are not judged as they should be: a line for each policy that should be in service and is not.
    pub fn problems(&self) -> Vec<String> {
        let problem = |entry: &Entry| {
            let known = entry.known.lock();
            let broken = known.expected && known.generation.is_none();
            broken.then(|| known.problem.clone().unwrap_or_else(|| "it is not loaded".to_owned()))
        };
        self.entries.iter().filter_map(problem).collect()
    }

    /// Files of the policies that are in service.
    pub fn in_service(&self) -> Vec<PathBuf> {
        let serving = self.entries.iter().filter(|entry| entry.known.lock().generation.is_some());
        serving.map(|entry| entry.settings.file.clone()).collect()
    }

    /// The chains of the domains that a pattern serves and that have a file of their own.
    pub fn domains(&self) -> Vec<Arc<Chain>> {
        self.domains.lock().values().cloned().collect()
    }

    /// As hosts.json has it.
    pub fn settings(&self) -> &ChainSettings {
        &self.settings
    }

    /// The files that it looks at.
    pub(crate) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.entries.iter().map(|entry| &entry.settings.file)
    }
}

impl Link {
    /// A broken policy stands in the way of every request, by its rule for failures.
    fn exports(&self, phase: Phase) -> bool {
        match self {
            Self::Ready(generation) => generation.exports(phase),
            Self::Broken { .. } => phase == Phase::OnRequest,
        }
    }

    async fn run(
        &self,
        phase: Phase,
        exchange: Box<Exchange>,
    ) -> (Box<Exchange>, Result<Decision, PolicyFailure>, bool) {
        match self {
            Self::Ready(generation) => {
                let (exchange, outcome) = generation.run(phase, exchange).await;
                (exchange, outcome, generation.settings.on_failure == OnFailure::Open)
            }
            Self::Broken { name, reason, open, runtime } => {
                let kind = FailureKind::Load;
                let labels = PolicyLabels { policy: name.clone(), kind: kind.as_str().to_owned() };
                runtime.metrics.policy_failures.get_or_create(&labels).inc();
                let failure = PolicyFailure {
                    policy: name.clone(),
                    phase: phase.as_str(),
                    kind,
                    message: reason.clone(),
                    status: phase.failure_status(),
                };
                (exchange, Err(failure), *open)
            }
        }
    }
}

/// The chain as it was when a request came in.
#[derive(Clone)]
pub struct ChainLease {
    links: Local<Links>,
}

impl ChainLease {
    /// File names of its policies, in order.
    pub fn names(&self) -> Vec<String> {
        let name = |link: &Link| match link {
            Link::Ready(generation) => name_of(&generation.settings.file),
            Link::Broken { name, .. } => name.clone(),
        };
        self.links.links.iter().map(name).collect()
    }

    /// Whether any policy of the chain exports the phase; if not, `run` need not be called.
    pub fn exports(&self, phase: Phase) -> bool {
        self.links.exports[phase.index()]
    }

    /// Runs one phase: in order on the way in (the first decision that is not `Next` wins), in reverse on the way out.
    /// The exchange comes back with the edits; after a failure without those of the failed policy.
    pub async fn run(&self, phase: Phase, exchange: Box<Exchange>) -> (Box<Exchange>, Decision) {
        let links = &self.links.links;
        let mut exchange = exchange;
        for position in 0..links.len() {
            let position = if phase.is_way_in() { position } else { links.len() - 1 - position };
            let link = &links[position];
            if !link.exports(phase) {
                continue;
            }
            let (back, outcome, open) = link.run(phase, exchange).await;
            exchange = back;
            match outcome {
                Ok(Decision::Next) => {}
                Ok(decision) => return (exchange, decision),
                Err(_) if open => exchange.failed_open = true,
                Err(failure) => return (exchange, Decision::Failed(failure)),
            }
        }
        (exchange, Decision::Next)
    }

    /// Runs on-request for who needs no leave: a policy that refuses is left out, with all that it edited, and the others go on.
    /// What it would have made of a request that it lets through is not known; one that only judges makes nothing of it.
    pub async fn run_without_refusals(&self, exchange: Box<Exchange>) -> (Box<Exchange>, Decision) {
        let mut exchange = exchange;
        for link in self.links.links.iter().filter(|link| link.exports(Phase::OnRequest)) {
            let before = exchange.clone();
            let (back, outcome, open) = link.run(Phase::OnRequest, exchange).await;
            exchange = back;
            match outcome {
                Ok(Decision::Next) => {}
                Ok(Decision::Deny(_)) => exchange = before,
                Ok(Decision::Reply(reply)) if reply.status.is_client_error() => exchange = before,
                Ok(decision) => return (exchange, decision),
                Err(_) if open => exchange.failed_open = true,
                Err(failure) => return (exchange, Decision::Failed(failure)),
            }
        }
        (exchange, Decision::Next)
    }
}
