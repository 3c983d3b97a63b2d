//! The engine: how code is compiled, how instances are kept, and what counts their time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wasmtime::component::Linker;
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::run::{self, Run};

/// What a run may use. The operator's ceilings.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Limits {
    pub filter_ms: u64,
    pub transform_ms: u64,
    pub configure_ms: u64,
    pub memory_bytes_max: usize,
    /// Everything that one run answers; less where the event is small, see [`Limits::output_bytes`].
    pub output_bytes_max: usize,
    /// How many runs there can be at the same time.
    pub runs_max: u32,
}

impl Limits {
    /// The CPU time of all runs for one event and one subscription together: a split may make many.
    pub(super) fn pipeline_budget(&self) -> Duration {
        Duration::from_millis(5 * (self.filter_ms + self.transform_ms))
    }

    /// The CPU time of `describe`, and of `configure` outside of a run.
    pub(super) fn configure_budget(&self) -> Duration {
        Duration::from_millis(self.configure_ms)
    }

    /// What a run on an event of this size may answer.
    pub(super) fn output_bytes(&self, data_bytes: usize) -> usize {
        (4 * data_bytes + 64 * 1024).min(self.output_bytes_max)
    }
}

/// One tick of the clock that stops runs.
const TICK: Duration = Duration::from_millis(1);
/// Ticks without a run after which the ticker sleeps until there is one.
const TICKS_IDLE_MAX: u32 = 100;

/// What an engine is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// Runs on the way of events: many, and fast.
    Serve,
    /// Runs whose cost is counted in fuel, which is the same on every machine: trials, tests and replays.
    Measure,
}

/// Where instances live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Allocation {
    Pooled,
    OnDemand,
}

/// An engine with all that a run needs.
pub(super) struct Machine {
    pub(super) engine: Engine,
    pub(super) linker: Linker<Run>,
    pub(super) ticker: Ticker,
    pub(super) limits: Limits,
    pub(super) purpose: Purpose,
}

impl Machine {
    pub(super) fn new(
        limits: Limits,
        purpose: Purpose,
        allocation: Allocation,
    ) -> anyhow::Result<Machine> {
        let engine = engine(&limits, purpose, allocation)?;
        Ok(Machine {
            linker: run::linker(&engine)?,
            ticker: Ticker::start(&engine)?,
            limits,
            purpose,
            engine,
        })
    }
}

fn engine(limits: &Limits, purpose: Purpose, allocation: Allocation) -> wasmtime::Result<Engine> {
    let mut config = Config::new();
    #[cfg(feature = "compiler")]
    config
        .strategy(wasmtime::Strategy::Cranelift)
        .cranelift_opt_level(wasmtime::OptLevel::Speed)
        // The same bits on every processor, so that a run can be repeated anywhere.
        .cranelift_nan_canonicalization(true);
    config
        .concurrency_support(false)
        .epoch_interruption(true)
        .consume_fuel(purpose == Purpose::Measure)
        .memory_init_cow(true)
        // A few bytes far from each other do not become megabytes that are nearly all zeros.
        .memory_guaranteed_dense_image_size(64 << 10)
        .wasm_backtrace_max_frames(None)
        .wasm_memory64(false)
        // No upload may have several memories; what the engine puts between components does.
        .wasm_multi_memory(true)
        .wasm_relaxed_simd(false)
        .wasm_tail_call(false);
    if allocation == Allocation::Pooled {
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(limits)));
    }
    Engine::new(&config)
}

fn pool(limits: &Limits) -> PoolingAllocationConfig {
    // Beside the runs there may be uploads on trial.
    let instances = limits.runs_max + 4;
    // Keeping pages pays when the kernel can tell which of them were written; a blind reset does not.
    let resident =
        if PoolingAllocationConfig::is_pagemap_scan_available() { 256 << 10 } else { 128 << 10 };
    let mut pool = PoolingAllocationConfig::new();
    // Toolchains of other languages make components of many parts: Python's has 38, with three memories.
    pool.total_component_instances(instances)
        .total_core_instances(instances * 64)
        .max_core_instances_per_component(64)
        .total_memories(instances * 4)
        .max_memories_per_component(4)
        .max_memory_size(limits.memory_bytes_max)
        .total_tables(instances * 8)
        .max_tables_per_component(8)
        .table_elements(20_000)
        .linear_memory_keep_resident(resident)
        .table_keep_resident(resident)
        .pagemap_scan(Enabled::Auto);
    pool
}

/// Advances the engine's epoch every millisecond while there are runs, and costs nothing otherwise.
pub(super) struct Ticker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    /// How many runs there are now.
    runs: AtomicU64,
    asleep: AtomicBool,
    stopped: AtomicBool,
}

impl Ticker {
    pub(super) fn start(engine: &Engine) -> std::io::Result<Ticker> {
        let shared = Arc::new(Shared {
            runs: AtomicU64::new(0),
            asleep: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
        });
        let engine = engine.clone();
        let thread = thread::Builder::new().name("plugin-ticker".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || tick(&engine, &shared)
        })?;
        Ok(Ticker { shared, thread: Some(thread) })
    }

    /// To be called when a run begins. What it answers is to be kept until the run has ended.
    pub(super) fn run_begins(&self) -> Running<'_> {
        self.shared.runs.fetch_add(1, Ordering::SeqCst);
        if self.shared.asleep.load(Ordering::SeqCst)
            && let Some(thread) = &self.thread
        {
            thread.thread().unpark();
        }
        Running(&self.shared)
    }
}

/// A run that goes on.
pub(super) struct Running<'a>(&'a Shared);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.runs.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A ticker that panicked has nothing left to stop.
            let _ = thread.join();
        }
    }
}

fn tick(engine: &Engine, shared: &Shared) {
    let mut idle = 0;
    while !shared.stopped.load(Ordering::SeqCst) {
        thread::sleep(TICK);
        engine.increment_epoch();
        let runs = || shared.runs.load(Ordering::SeqCst);
        idle = if runs() == 0 { idle + 1 } else { 0 };
        if idle < TICKS_IDLE_MAX {
            continue;
        }
        // A run that begins between these lines sees that we sleep, or we see that it began.
        shared.asleep.store(true, Ordering::SeqCst);
        while runs() == 0 && !shared.stopped.load(Ordering::SeqCst) {
            thread::park();
        }
        shared.asleep.store(false, Ordering::SeqCst);
        idle = 0;
    }
}
