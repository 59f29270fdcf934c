//! Instances and the calls on them.
//!
//! Each thread keeps idle instances of its own: taking one is a look at a short list, with no lock that requests share. An
//! instance serves one call at a time and goes after a trap, a count, a memory mark, a reload or a while of idleness; with
//! `"isolation": "request"` after every call. A direct call has no await in it, so a thread never needs two of one policy;
//! calls on fibers may, and may end on another thread than they began on.

use std::cell::RefCell;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use wasmtime::component::TypedFunc;
use wasmtime::{Store, Trap};

use super::component::Lane;
use super::convert::{self, Returned, ReturnedUnit};
use super::decision::FailureKind;
use super::error::Fence;
use super::generation::Generation;
use super::limits::{Budget, HOSTCALL_BYTES_MAX, Meter, Metered};
use super::settings::Isolation;
use super::state::{Moments, State};
use super::ticker::LOOK;
use super::wasi::Wasi;
use super::{Decision, Exchange, Phase};

/// Calls before an instance makes room for a fresh one, give or take a fifth so that not all go at once.
const CALLS_MAX: u32 = 100_000;
/// Idle instances go after this long, give or take a quarter.
const IDLE: Duration = Duration::from_secs(60);
/// Idle instances are looked for once in so many calls of a thread.
const SWEEP_EVERY: u32 = 4096;
/// Longest message of a failure.
const REASON_BYTES_MAX: usize = 2048;

/// Why a call failed.
pub(crate) struct Fault {
    pub(crate) kind: FailureKind,
    pub(crate) reason: String,
    /// CPU time that it took, at least about.
    pub(crate) cost: Duration,
}

/// An instance with its store.
struct Slot {
    generation: Arc<Generation>,
    store: Store<State>,
    on_request: Option<TypedFunc<(), Returned>>,
    on_origin_request: Option<TypedFunc<(), Returned>>,
    on_origin_response: Option<TypedFunc<(), Returned>>,
    on_deliver: Option<TypedFunc<(), ReturnedUnit>>,
    calls_left: u32,
    used: Instant,
    idle: Duration,
}

/// The function of a phase.
enum Function {
    Decides(TypedFunc<(), Returned>),
    Unit(TypedFunc<(), ReturnedUnit>),
}

struct Slots {
    #[expect(clippy::vec_box, reason = "slots are moved in and out on every call: a pointer, not 200 bytes")]
    slots: Vec<Box<Slot>>,
    seen_change: u64,
    until_sweep: u32,
}

thread_local! {
    static SLOTS: RefCell<Slots> =
        const { RefCell::new(Slots { slots: Vec::new(), seen_change: 0, until_sweep: SWEEP_EVERY }) };
}

/// Counts reloads, so that threads know when to look for retired instances.
static CHANGES: AtomicU64 = AtomicU64::new(0);

/// A generation was retired.
pub(crate) fn note_change() {
    CHANGES.fetch_add(1, Ordering::Relaxed);
}

/// Takes an idle instance of this thread that was made for a lane.
fn take(generation: &Generation, lane: Lane) -> Option<Box<Slot>> {
    SLOTS.with_borrow_mut(|slots| {
        // The last used one first: it is warm.
        let mine = |slot: &Slot| slot.generation.number == generation.number && slot.lane() == lane;
        let at = slots.slots.iter().rposition(|slot| mine(slot))?;
        Some(slots.slots.remove(at))
    })
}

/// Puts an instance back, if it is good for another call.
fn put(slot: Box<Slot>, now: Instant) {
    let mut slot = slot;
    if slot.calls_left == 0
        || slot.generation.retired()
        || slot.generation.settings.isolation == Isolation::Request
        || slot.store.data().memory.nearly_full()
    {
        return;
    }
    slot.used = now;
    let most = slot.generation.runtime.slots_per_thread;
    // Instances are dropped outside of the borrow.
    let mut gone: Vec<Box<Slot>> = Vec::new();
    // At the end of a thread its list is gone, and the instance goes too.
    let _ = SLOTS.try_with(|slots| {
        let slots = &mut *slots.borrow_mut();
        let change = CHANGES.load(Ordering::Relaxed);
        slots.until_sweep = slots.until_sweep.saturating_sub(1);
        if slots.until_sweep == 0 || slots.seen_change != change {
            slots.until_sweep = SWEEP_EVERY;
            slots.seen_change = change;
            gone.extend(slots.slots.extract_if(.., |slot| {
                slot.generation.retired() || now.saturating_duration_since(slot.used) > slot.idle
            }));
        }
        if slots.slots.len() >= most {
            gone.push(slots.slots.remove(0));
        }
        slots.slots.push(slot);
    });
}

/// Drops all idle instances of this thread: the pool is full.
fn make_room() {
    let gone = SLOTS.with_borrow_mut(|slots| std::mem::take(&mut slots.slots));
    drop(gone);
}

impl Slot {
    fn lane(&self) -> Lane {
        if self.store.data().wasi.is_some() { Lane::Fiber } else { Lane::Direct }
    }

    fn function(&self, phase: Phase) -> Option<Function> {
        match phase {
            Phase::OnRequest => self.on_request.map(Function::Decides),
            Phase::OnOriginRequest => self.on_origin_request.map(Function::Decides),
            Phase::OnOriginResponse => self.on_origin_response.map(Function::Decides),
            Phase::OnDeliver => self.on_deliver.map(Function::Unit),
        }
    }
}

/// `meter`: of calls on a fiber.
fn new_store(generation: &Arc<Generation>, meter: Option<Arc<Meter>>) -> Store<State> {
    let surroundings = generation.surroundings.clone();
    let wasi = meter.is_some().then(|| Box::new(Wasi::new(&surroundings)));
    let budget = Budget::new(meter, generation.runtime.ticker.clone());
    let mut store = Store::new(&generation.runtime.engine, State::new(surroundings, budget, wasi));
    store.limiter(|state| &mut state.memory);
    store.set_hostcall_fuel(HOSTCALL_BYTES_MAX);
    store.epoch_deadline_callback(|mut store| store.data_mut().budget.deadline_passed().map_err(wasmtime::Error::new));
    store
}

fn begin(store: &mut Store<State>, generation: &Generation, time: Duration, began: Instant) {
    store.data_mut().budget.begin(time, generation.settings.limits.calls, began);
    // The first deadline is the next tick; what happens then is for `Budget::deadline_passed`.
    store.set_epoch_deadline(1);
}

fn time_of(generation: &Generation) -> Duration {
    Duration::from_millis(u64::from(generation.settings.limits.time_ms.max(1)))
}

/// Makes an instance and configures it. Written once for both lanes: `asynchronous` says which functions are called.
macro_rules! start {
    ($generation:ident, $began:ident, $meter:expr, $instantiate:ident, $call:ident $(, $wait:tt)?) => {{
        let mut store = new_store($generation, $meter);
        begin(&mut store, $generation, Budget::start_time(time_of($generation)), $began);
        $generation.runtime.metrics.policy_instances.inc();
        let exports = &$generation.compiled.exports;
        let started = match $generation.linked.$instantiate(&mut store)$(.$wait)? {
            Err(error) => Err(error),
            Ok(instance) => (|| {
                let configure = exports.configure.as_ref();
                let configure = configure
                    .map(|index| instance.get_typed_func::<(), ReturnedUnit>(&mut store, index))
                    .transpose()?;
                let mut decides = |index: &Option<_>| {
                    index.as_ref().map(|index| instance.get_typed_func::<(), Returned>(&mut store, index)).transpose()
                };
                let on_request = decides(&exports.on_request)?;
                let on_origin_request = decides(&exports.on_origin_request)?;
                let on_origin_response = decides(&exports.on_origin_response)?;
                let on_deliver = exports.on_deliver.as_ref();
                let on_deliver = on_deliver
                    .map(|index| instance.get_typed_func::<(), ReturnedUnit>(&mut store, index))
                    .transpose()?;
                Ok((configure, on_request, on_origin_request, on_origin_response, on_deliver))
            })(),
        };
        let (functions, configured) = match started {
            Err(error) => (None, Err(error)),
            Ok((configure, on_request, on_origin_request, on_origin_response, on_deliver)) => {
                let functions = (on_request, on_origin_request, on_origin_response, on_deliver);
                store.data_mut().moment = Moments::CONFIGURE;
                match configure {
                    None => (Some(functions), Ok((Ok(()),))),
                    Some(configure) => (Some(functions), configure.$call(&mut store, ())$(.$wait)?),
                }
            }
        };
        match (functions, configured) {
            (Some((on_request, on_origin_request, on_origin_response, on_deliver)), Ok((Ok(()),))) => Ok(Box::new(Slot {
                generation: $generation.clone(),
                store,
                on_request,
                on_origin_request,
                on_origin_response,
                on_deliver,
                calls_left: fastrand::u32(CALLS_MAX / 5 * 4..CALLS_MAX / 5 * 6),
                used: $began,
                idle: IDLE.mul_f32(fastrand::f32() / 2.0 + 0.75),
            })),
            (_, Ok((Err(reason),))) => Err((FailureKind::Error, format!("configure: {reason}"), cost(&store, $began))),
            (_, Err(error)) => {
                let (kind, reason) = classify(&error, &store);
                Err((kind, reason, cost(&store, $began)))
            }
            (None, Ok(_)) => Err((FailureKind::Trap, "it has no functions".to_owned(), cost(&store, $began))),
        }
    }};
}

type Started = Result<Box<Slot>, (FailureKind, String, Duration)>;

fn start_direct(generation: &Arc<Generation>, began: Instant) -> Started {
    // It may take longer than a call.
    let _running = generation.runtime.ticker.run();
    start!(generation, began, None, instantiate, call)
}

async fn start_on_fiber(generation: &Arc<Generation>, began: Instant, meter: Arc<Meter>) -> Started {
    start!(generation, began, Some(meter), instantiate_async, call_async, await)
}

/// Starts one instance off the request path and throws it away: whether the policy can be started at all. Blocks.
pub(crate) fn try_start(generation: &Arc<Generation>) -> Result<(), (FailureKind, String)> {
    let began = Instant::now();
    let _running = generation.runtime.ticker.run();
    let started = match generation.lane(began) {
        Lane::Direct => start_direct(generation, began),
        // A thread of its own, since the caller's may belong to a runtime, where nothing may be waited for.
        Lane::Fiber => std::thread::scope(|scope| {
            let here = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let runtime = runtime.map_err(|error| (FailureKind::Load, error.to_string(), Duration::ZERO))?;
                let wall = Budget::wall(Budget::start_time(time_of(generation)));
                runtime.block_on(async {
                    let started = tokio::time::timeout(wall, start_metered(generation, began)).await;
                    started.unwrap_or_else(|_| Err(too_slow(wall)))
                })
            });
            here.join()
                .unwrap_or_else(|_| Err((FailureKind::Load, "the loading thread panicked".to_owned(), Duration::ZERO)))
        }),
    };
    started.map(|_| ()).map_err(|(kind, reason, _)| (kind, reason))
}

fn too_slow(wall: Duration) -> (FailureKind, String, Duration) {
    (FailureKind::Time, format!("it was not done after {} ms", wall.as_millis()), wall)
}

/// As `start_on_fiber`, with its polls measured by the meter that the store's budget reads.
fn start_metered(generation: &Arc<Generation>, began: Instant) -> impl Future<Output = Started> {
    let meter = Arc::new(Meter::default());
    Metered::new(meter.clone(), start_on_fiber(generation, began, meter))
}

/// Calls a phase on this thread.
pub(crate) fn call_direct(
    generation: &Arc<Generation>,
    phase: Phase,
    exchange: Box<Exchange>,
    began: Instant,
) -> (Box<Exchange>, Result<Decision, Fault>) {
    let slot = match take(generation, Lane::Direct) {
        Some(slot) => Ok(slot),
        None => start_direct(generation, began).or_else(|fault| {
            if !is_full(&fault.1) {
                return Err(fault);
            }
            make_room();
            start_direct(generation, began)
        }),
    };
    let mut slot = match slot {
        Ok(slot) => slot,
        Err((kind, reason, cost)) => return (exchange, Err(Fault { kind, reason, cost })),
    };
    begin(&mut slot.store, generation, time_of(generation), began);
    slot.store.data_mut().put(exchange, phase);
    let returned = match slot.function(phase) {
        Some(Function::Decides(function)) => function.call(&mut slot.store, ()).map(|(returned,)| returned.map(Some)),
        Some(Function::Unit(function)) => function.call(&mut slot.store, ()).map(|(returned,)| returned.map(|()| None)),
        None => Ok(Ok(Some(super::bindings::proxyhost::policy::types::Decision::Next))),
    };
    finish(slot, returned, began)
}

/// Calls a phase on a fiber. It never blocks the worker: at each tick it gives way.
pub(crate) async fn call_on_fiber(
    generation: &Arc<Generation>,
    phase: Phase,
    exchange: Box<Exchange>,
    began: Instant,
) -> (Box<Exchange>, Result<Decision, Fault>) {
    let wall = Budget::wall(time_of(generation));
    let Ok(Ok(_room)) = tokio::time::timeout(wall, generation.runtime.fibers.acquire()).await else {
        let reason = "too many policies are running on fibers".to_owned();
        return (exchange, Err(Fault { kind: FailureKind::Time, reason, cost: Duration::ZERO }));
    };
    let slot = match take(generation, Lane::Fiber) {
        Some(slot) => Ok(slot),
        None => {
            let wall = Budget::wall(Budget::start_time(time_of(generation)));
            match tokio::time::timeout(wall, start_metered(generation, began)).await {
                Ok(started) => started,
                Err(_) => Err(too_slow(wall)),
            }
        }
    };
    let mut slot = match slot {
        Ok(slot) => slot,
        Err((kind, reason, cost)) => return (exchange, Err(Fault { kind, reason, cost })),
    };
    begin(&mut slot.store, generation, time_of(generation), Instant::now());
    slot.store.data_mut().put(exchange, phase);
    let meter = slot.store.data().budget.meter().unwrap_or_default();
    let called = match slot.function(phase) {
        Some(Function::Decides(function)) => {
            let call = Metered::new(meter, function.call_async(&mut slot.store, ()));
            tokio::time::timeout(wall, call).await.map(|called| called.map(|(returned,)| returned.map(Some)))
        }
        Some(Function::Unit(function)) => {
            let call = Metered::new(meter, function.call_async(&mut slot.store, ()));
            tokio::time::timeout(wall, call).await.map(|called| called.map(|(returned,)| returned.map(|()| None)))
        }
        None => Ok(Ok(Ok(Some(super::bindings::proxyhost::policy::types::Decision::Next)))),
    };
    let returned = called.unwrap_or_else(|_| {
        let time = u64::try_from(wall.as_millis()).unwrap_or(u64::MAX);
        Err(wasmtime::Error::new(Fence::Time(time)))
    });
    finish(slot, returned, began)
}

type ReturnedByPhase = wasmtime::Result<Result<Option<super::bindings::proxyhost::policy::types::Decision>, String>>;

/// After a call: the decision is checked, the exchange comes back, and the instance goes back or goes.
fn finish(mut slot: Box<Slot>, returned: ReturnedByPhase, began: Instant) -> (Box<Exchange>, Result<Decision, Fault>) {
    slot.calls_left = slot.calls_left.saturating_sub(1);
    let (outcome, keep) = match returned {
        Ok(Ok(None)) => (Ok(Decision::Next), true),
        Ok(Ok(Some(decision))) => {
            let fault =
                |fence: Fence| Fault { kind: fence.kind(), reason: fence.to_string(), cost: cost(&slot.store, began) };
            (convert::decision(decision).map_err(fault), true)
        }
        Ok(Err(reason)) => {
            (Err(Fault { kind: FailureKind::Error, reason: cut(reason), cost: cost(&slot.store, began) }), true)
        }
        Err(error) => {
            let (kind, reason) = classify(&error, &slot.store);
            (Err(Fault { kind, reason, cost: cost(&slot.store, began) }), false)
        }
    };
    let state = slot.store.data_mut();
    state.budget.end();
    if outcome.is_err() {
        state.roll_back();
    }
    let exchange = state.take().expect("`put` placed it there before the call, and nothing else takes it");
    if keep {
        put(slot, began);
    }
    (exchange, outcome)
}

/// CPU time of a failed call: as measured, or, when it ended before it was looked at, by the wall.
fn cost(store: &Store<State>, began: Instant) -> Duration {
    store.data().budget.cpu_used().unwrap_or_else(|| began.elapsed().min(LOOK))
}

fn is_full(reason: &str) -> bool {
    reason.contains("maximum concurrent")
}

/// What kind of failure an error is, and what to say of it.
fn classify(error: &wasmtime::Error, store: &Store<State>) -> (FailureKind, String) {
    let state = store.data();
    let last_words = state.wasi.as_ref().map(|wasi| wasi.last_words()).filter(|words| !words.is_empty());
    let (kind, reason) = if let Some(fence) = error.downcast_ref::<Fence>() {
        (fence.kind(), fence.to_string())
    } else if state.memory.refused() {
        let limit = state.surroundings.limits.memory_mib;
        (FailureKind::Memory, format!("it wanted more than its {limit} MiB of memory: {}", error.root_cause()))
    } else if matches!(error.downcast_ref::<Trap>(), Some(Trap::Interrupt)) {
        (FailureKind::Time, "it has used up its time".to_owned())
    } else {
        let root = error.root_cause().to_string();
        let kind = if root.contains("hostcalls") { FailureKind::Calls } else { FailureKind::Trap };
        let whole = format!("{error:#}");
        (kind, if whole.contains(&root) { whole } else { format!("{root}: {whole}") })
    };
    let reason = match last_words {
        Some(words) => format!("{reason} (stderr: {words})"),
        None => reason,
    };
    (kind, cut(reason))
}

fn cut(mut text: String) -> String {
    if text.len() > REASON_BYTES_MAX {
        let mut end = REASON_BYTES_MAX;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str("...");
    }
    text
}
