//! The one engine, and what all policies share.
//!
//! One engine, because stores of different engines must never meet (RUSTSEC-2026-0222). Instances come from a pool: a fresh
//! store, instance and call is three times faster than on demand (WASM.md section 2). Where the address space for the pool
//! cannot be had (`ulimit -v`, 39-bit machines), instances are made on demand, and one line says so. WebAssembly features that
//! no guest toolchain needs are off: less surface.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig, Strategy, WasmBacktraceDetails,
};

use super::capability::rate::RateLimiter;
use super::component::Interface;
use super::error::PolicyError;
use super::ticker::Ticker;
use crate::telemetry::metrics::Metrics;

/// Linear memories in the pool: each takes address space only (4 GiB and a guard).
const MEMORIES: u32 = 1000;
/// A Python or composed component uses several core instances.
const CORE_INSTANCES: u32 = 4 * MEMORIES;
/// Memory that stays resident in a free slot: cleared by hand instead of by the kernel, which halves a fresh instance's cost.
const MEMORY_KEEP_RESIDENT: usize = 2 << 20;
const TABLE_KEEP_RESIDENT: usize = 64 << 10;
/// Direct calls run on the worker's own stack of 2 MiB.
const WASM_STACK: usize = 512 << 10;
/// Calls on fibers at one time; more wait.
const FIBERS: usize = 512;

/// What all policies of the program share.
pub(crate) struct Runtime {
    /// The engine.
    pub(crate) engine: Engine,
    /// Its clock.
    pub(crate) ticker: Ticker,
    /// What this version offers.
    pub(crate) interface: Interface,
    /// Buckets of `rate`.
    pub(crate) rates: Arc<RateLimiter>,
    /// Counters.
    pub(crate) metrics: Arc<Metrics>,
    /// The most memory one policy may be given.
    pub(crate) memory_max_bytes: u64,
    /// Room for fibers.
    pub(crate) fibers: Semaphore,
    /// Idle instances that one thread may keep.
    pub(crate) slots_per_thread: usize,
    /// Folder of compiled code.
    pub(crate) code: Mutex<PathBuf>,
    began: Instant,
}

impl Runtime {
    /// Makes the engine and starts its ticker.
    pub(crate) fn start(memory_max_bytes: u64, code: PathBuf, metrics: Arc<Metrics>) -> Result<Self, PolicyError> {
        let memory = usize::try_from(memory_max_bytes).unwrap_or(usize::MAX).min(4 << 30);
        // Whole WebAssembly pages.
        let memory = memory.div_ceil(64 << 10).saturating_mul(64 << 10);
        let engine = match Engine::new(&config(Some(memory))) {
            Ok(engine) => engine,
            Err(error) => {
                tracing::warn!(
                    reason = format!("{error:#}"),
                    "no address space for a pool of policy instances: they are made on demand, which is slower"
                );
                Engine::new(&config(None))
                    .map_err(|error| PolicyError(format!("the WebAssembly engine can't be made: {error:#}")))?
            }
        };
        let ticker = Ticker::start(&engine, Arc::clone(&metrics))?;
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            engine,
            ticker,
            interface: Interface::of_this_version()?,
            rates: Arc::default(),
            metrics,
            memory_max_bytes,
            fibers: Semaphore::new(FIBERS),
            slots_per_thread: (MEMORIES as usize / 2 / threads).clamp(2, 64),
            code: Mutex::new(code),
            began: Instant::now(),
        })
    }

    /// A number that no other generation or chain of this process has: threads keep idle instances by it, whosever they are.
    pub(crate) fn number(&self) -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        NEXT.fetch_add(1, Ordering::Relaxed)
    }

    /// Milliseconds since the engine was made.
    pub(crate) fn elapsed_ms(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.began).as_millis()).unwrap_or(u64::MAX)
    }
}

fn config(pool_memory: Option<usize>) -> Config {
    let mut config = Config::new();
    config.strategy(Strategy::Cranelift);
    config.cranelift_opt_level(OptLevel::Speed);
    config.epoch_interruption(true);
    config.max_wasm_stack(WASM_STACK);
    config.wasm_backtrace_details(WasmBacktraceDetails::Enable);
    config.wasm_memory64(false);
    // A policy compiles while requests are served: it may have one core, not all.
    config.parallel_compilation(false);
    if let Some(memory) = pool_memory {
        let mut pool = PoolingAllocationConfig::new();
        pool.total_memories(MEMORIES)
            .total_tables(MEMORIES * 2)
            .total_stacks(u32::try_from(FIBERS).unwrap_or(MEMORIES) + 16)
            .total_component_instances(MEMORIES)
            .total_core_instances(CORE_INSTANCES)
            .max_memory_size(memory)
            .linear_memory_keep_resident(MEMORY_KEEP_RESIDENT)
            .table_keep_resident(TABLE_KEEP_RESIDENT)
            .decommit_batch_size(16);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    }
    config
}
