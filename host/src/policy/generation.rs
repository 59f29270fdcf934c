//! One version of one policy in service for one host: compiled code, linked and configured, with its limits, secrets and
//! capabilities. A reload makes a new generation; requests in flight finish on theirs, its idle instances go when a thread
//! next looks at them, and the code goes with the last lease.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use wasmtime::component::InstancePre;

use super::capability::Prepared;
use super::capability::crypto::Secrets;
use super::component::{Compiled, Lane};
use super::console::LogGate;
use super::decision::{FailureKind, PolicyFailure};
use super::engine::Runtime;
use super::error::LoadError;
use super::pool;
use super::quarantine::Quarantine;
use super::settings::{OnFailure, PolicySettings};
use super::state::{State, Surroundings};
use super::{Decision, Exchange, Phase};
use crate::telemetry::metrics::PolicyLabels;

/// The longest time limit of a policy that is called directly on a worker.
const DIRECT_MS_MAX: u32 = 20;
/// How long a policy that has run out of its time is called on fibers.
const SLOW_MS: u64 = 10_000;
/// The same goes for one that fails after so long: direct calls that fail one behind the other keep all others off their worker.
const SLOW_COST: std::time::Duration = std::time::Duration::from_millis(1);

/// A policy that can be called.
pub(crate) struct Generation {
    /// Unlike that of any other.
    pub(crate) number: u64,
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) compiled: Arc<Compiled>,
    pub(crate) settings: PolicySettings,
    pub(crate) surroundings: Arc<Surroundings>,
    pub(crate) linked: InstancePre<State>,
    quarantine: [Quarantine; 4],
    /// Moment (milliseconds) until which calls give way; zero when no call has run out of its time.
    slow_until: AtomicU64,
    failure_log: LogGate,
    retired: AtomicBool,
}

impl Generation {
    /// Links, starts an instance and configures it: what can't be is found now and not at the first request.
    pub(crate) fn new(
        runtime: &Arc<Runtime>,
        compiled: Arc<Compiled>,
        host: &str,
        settings: PolicySettings,
        prepared: Arc<Prepared>,
    ) -> Result<Arc<Self>, LoadError> {
        let name = super::component::name_of(&settings.file);
        let memory = u64::from(settings.limits.memory_mib) << 20;
        if memory > runtime.memory_max_bytes {
            return Err(LoadError::Limits(format!(
                "{name} is given {} MiB of memory, but policies have at most {} MiB since the start: restart with a larger \
                 policy_memory_max",
                settings.limits.memory_mib,
                runtime.memory_max_bytes >> 20,
            )));
        }
        if let Some(unknown) = settings.grants.iter().find(|grant| *grant != "secrets") {
            return Err(LoadError::Limits(format!(
                "{name} is granted {unknown:?}, which is not available in this version"
            )));
        }
        let linked = compiled.link(runtime, &name, &settings.grants)?;
        let config = settings
            .config
            .iter()
            .map(|(key, value)| (key.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
            .collect();
        let surroundings = Surroundings {
            name: Arc::from(name.as_str()),
            host: Arc::from(host),
            config,
            config_json: serde_json::Value::Object(settings.config.clone()).to_string(),
            secrets: Secrets::new(settings.secrets.iter()),
            limits: settings.limits,
            prepared,
            rates: runtime.rates.clone(),
            log: LogGate::default(),
        };
        let generation = Arc::new(Self {
            number: runtime.number(),
            runtime: runtime.clone(),
            compiled,
            settings,
            surroundings: Arc::new(surroundings),
            linked,
            quarantine: Default::default(),
            slow_until: AtomicU64::new(0),
            failure_log: LogGate::default(),
            retired: AtomicBool::new(false),
        });
        pool::try_start(&generation).map_err(|(_, reason)| LoadError::Start { name, reason })?;
        Ok(generation)
    }

    /// Whether a phase is exported.
    pub(crate) fn exports(&self, phase: Phase) -> bool {
        self.compiled.exports.has(phase)
    }

    /// How it is called at this moment. On a fiber a policy gives way at each tick; one that takes long would hold all that its
    /// worker serves.
    pub(crate) fn lane(&self, now: Instant) -> Lane {
        match self.compiled.inspection.lane {
            Lane::Direct if self.settings.limits.time_ms > DIRECT_MS_MAX || self.is_slow(now) => Lane::Fiber,
            lane => lane,
        }
    }

    fn is_slow(&self, now: Instant) -> bool {
        let until = self.slow_until.load(Ordering::Relaxed);
        until != 0 && self.runtime.elapsed_ms(now) < until
    }

    /// No new request gets this generation; its idle instances may go.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
        pool::note_change();
    }

    /// Whether it was replaced.
    pub(crate) fn retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    /// Runs one phase. After a failure the exchange is as it was before.
    pub(crate) async fn run(
        self: &Arc<Self>,
        phase: Phase,
        exchange: Box<Exchange>,
    ) -> (Box<Exchange>, Result<Decision, PolicyFailure>) {
        let began = Instant::now();
        if let Some(left) = self.quarantined(phase, began) {
            let reason = format!("it is in quarantine for another {left} ms");
            return (exchange, Err(self.failure(phase, FailureKind::Quarantine, reason)));
        }
        self.runtime.metrics.policy_calls.inc();
        let (exchange, outcome) = match self.lane(began) {
            Lane::Direct => {
                self.runtime.ticker.wake();
                pool::call_direct(self, phase, exchange, began)
            }
            // Boxed, so that the rare lane does not make every request's future larger.
            Lane::Fiber => {
                let _running = self.runtime.ticker.run();
                Box::pin(pool::call_on_fiber(self, phase, exchange, began)).await
            }
        };
        match outcome {
            Ok(decision) => (exchange, Ok(decision)),
            Err(fault) => {
                // One that cost nothing did not run: it waited for others.
                let is_slow = fault.kind == FailureKind::Time || fault.kind.is_costly() && fault.cost >= SLOW_COST;
                if is_slow && !fault.cost.is_zero() {
                    self.slow_until.store(self.runtime.elapsed_ms(began) + SLOW_MS, Ordering::Relaxed);
                }
                if fault.kind.is_costly() {
                    self.charge(phase, fault.cost);
                }
                (exchange, Err(self.failure(phase, fault.kind, fault.reason)))
            }
        }
    }

    fn quarantine(&self, phase: Phase) -> &Quarantine {
        match phase {
            Phase::OnRequest => &self.quarantine[0],
            Phase::OnOriginRequest => &self.quarantine[1],
            Phase::OnOriginResponse => &self.quarantine[2],
            Phase::OnDeliver => &self.quarantine[3],
        }
    }

    fn quarantined(&self, phase: Phase, now: Instant) -> Option<u64> {
        let quarantine = self.quarantine(phase);
        if quarantine.ever() { quarantine.remaining(self.runtime.elapsed_ms(now)) } else { None }
    }

    /// Milliseconds of quarantine left, by phase, for the status.
    pub(crate) fn quarantines(&self) -> Vec<(&'static str, u64)> {
        let now = Instant::now();
        Phase::ALL
            .into_iter()
            .filter_map(|phase| self.quarantined(phase, now).map(|left| (phase.as_str(), left)))
            .collect()
    }

    fn charge(&self, phase: Phase, cost: std::time::Duration) {
        let now = self.runtime.elapsed_ms(Instant::now());
        if let Some(length_ms) = self.quarantine(phase).charge(cost, now) {
            tracing::error!(
                target: "policy",
                host = &*self.surroundings.host,
                policy = &*self.surroundings.name,
                phase = phase.as_str(),
                length_ms,
                "failing calls cost more than a fifth of a core over ten seconds: the phase is in quarantine"
            );
        }
    }

    fn failure(&self, phase: Phase, kind: FailureKind, message: String) -> PolicyFailure {
        let name = &self.surroundings.name;
        let labels = PolicyLabels { policy: name.to_string(), kind: kind.as_str().to_owned() };
        self.runtime.metrics.policy_failures.get_or_create(&labels).inc();
        if let Some(dropped) = self.failure_log.pass(Instant::now()) {
            let message = super::console::clean(&message);
            tracing::warn!(
                target: "policy",
                host = &*self.surroundings.host,
                policy = &**name,
                phase = phase.as_str(),
                kind = kind.as_str(),
                open = self.settings.on_failure == OnFailure::Open,
                dropped,
                "policy failed: {message}"
            );
        }
        PolicyFailure { policy: name.to_string(), phase: phase.as_str(), kind, message, status: phase.failure_status() }
    }
}

impl FailureKind {
    /// Whether failures of this kind count towards quarantine: those that a limit or a trap ended.
    fn is_costly(self) -> bool {
        matches!(self, Self::Trap | Self::Time | Self::Memory | Self::Calls)
    }
}
