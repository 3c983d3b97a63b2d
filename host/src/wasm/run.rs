//! One run: a fresh instance, what it may ask of the host, and what becomes of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use wasmtime::component::{InstancePre, Linker};
use wasmtime::{ResourceLimiter, Store, StoreContextMut, Trap, UpdateDeadline};

use super::bindings::Plugin;
use super::bindings::exports::hookyard::plugin::{filter, lifecycle, transform};
use super::bindings::hookyard::plugin::log::Level;
use super::bindings::hookyard::plugin::types::{CallContext, Decision, Verdict};
use super::engine::Limits;
use super::imports::SearchedTooMuch;
use super::{Fault, Runtime};
use crate::event::{Content, Event};
use crate::json::Json;
use crate::plugin::{Digest, Manifest, World};

/// Before this there is nothing to measure.
const STOPWATCH_MIN: Duration = Duration::from_millis(1);

/// A plugin that is compiled and linked, ready for runs.
pub(super) struct Loaded {
    pub(super) digest: Digest,
    pub(super) manifest: Manifest,
    pre: InstancePre<Run>,
    lifecycle: lifecycle::GuestIndices,
    filter: Option<filter::GuestIndices>,
    transform: Option<transform::GuestIndices>,
    reads: Option<Arc<[String]>>,
}

/// What a step says of an event.
pub(super) enum Answer {
    Filter(Decision),
    Transform(Verdict),
}

/// The host's side of one run.
pub(super) struct Run {
    pub(super) event: Option<Input>,
    pub(super) reads: Option<Arc<[String]>>,
    pub(super) searched_bytes: usize,
    memory_bytes_max: usize,
    memory_refused: bool,
    pub(super) log: Vec<(Level, String)>,
    pub(super) log_bytes: usize,
    budget: Duration,
    /// The thread's CPU time at the first tick of the current call.
    since: Option<Duration>,
}

/// What a run is about.
#[derive(Clone)]
pub(super) struct Input {
    pub(super) event: Arc<Event>,
    /// What the steps before this one made of the event.
    pub(super) content: Arc<Content>,
}

pub(super) fn linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<Run>> {
    let mut linker = Linker::new(engine);
    Plugin::add_to_linker::<_, wasmtime::component::HasSelf<Run>>(&mut linker, |run| run)?;
    Ok(linker)
}

impl Loaded {
    /// Links a component and asks it what it is.
    pub(super) fn new(
        runtime: &Runtime,
        digest: Digest,
        component: &wasmtime::component::Component,
    ) -> Result<Loaded, Fault> {
        let unfit = |err: wasmtime::Error| Fault::Unfit(format!("{err:#}"));
        let pre = runtime.linker.instantiate_pre(component).map_err(unfit)?;
        let manifest = Manifest {
            name: String::new(),
            version: String::new(),
            summary: String::new(),
            config_schema: None,
            reads: None,
        };
        let mut loaded = Loaded {
            digest,
            manifest,
            lifecycle: lifecycle::GuestIndices::new(&pre).map_err(unfit)?,
            filter: filter::GuestIndices::new(&pre).ok(),
            transform: transform::GuestIndices::new(&pre).ok(),
            reads: None,
            pre,
        };
        loaded.manifest = loaded.describe(runtime)?;
        loaded.reads = loaded.manifest.reads.clone().map(Arc::from);
        Ok(loaded)
    }

    pub(super) fn world(&self) -> Option<World> {
        match (&self.filter, &self.transform) {
            (Some(_), Some(_)) => Some(World::Both),
            (Some(_), None) => Some(World::Filter),
            (None, Some(_)) => Some(World::Transform),
            (None, None) => None,
        }
    }

    fn describe(&self, runtime: &Runtime) -> Result<Manifest, Fault> {
        let mut call = Call::new(runtime, self, None)?;
        let it = call.within(runtime.limits.configure_ms, |store, instance| {
            self.lifecycle.load(&mut *store, instance)?.call_describe(store)
        })?;
        let schema = it.config_schema.map(|text| {
            let json = Json::parse(text.into())
                .map_err(|err| Fault::Unfit(format!("its `config-schema` is not JSON: {err}")))?;
            Ok::<_, Fault>(json.read().expect("JSON is a JSON value"))
        });
        Ok(Manifest {
            name: it.name,
            version: it.version,
            summary: it.summary,
            config_schema: schema.transpose()?,
            reads: it.reads,
        })
    }

    /// Makes an instance and lets it go: what a run costs before the plugin does anything.
    pub(super) fn empty_run(&self, runtime: &Runtime) -> Result<(), Fault> {
        Call::new(runtime, self, None).map(|_| ())
    }

    /// Tries whether the plugin takes a configuration.
    pub(super) fn configure(&self, runtime: &Runtime, config: &str) -> Result<(), Fault> {
        Call::new(runtime, self, None)?.configure(config)
    }

    /// Runs the filter and then, when it accepts, the transform.
    pub(super) fn run(
        &self,
        runtime: &Runtime,
        input: Input,
        config: &str,
        context: &CallContext,
    ) -> Result<Answer, Fault> {
        let mut call = Call::new(runtime, self, Some(input))?;
        call.configure(config)?;
        if let Some(filter) = &self.filter {
            let decision = call.within(runtime.limits.filter_ms, |store, instance| {
                filter.load(&mut *store, instance)?.call_filter(store, context)
            })?;
            if self.transform.is_none() || matches!(decision, Decision::Reject(_)) {
                return Ok(Answer::Filter(decision));
            }
        }
        let transform = self.transform.as_ref().expect("a plugin has a filter or a transform");
        let verdict = call.within(runtime.limits.transform_ms, |store, instance| {
            transform.load(&mut *store, instance)?.call_transform(store, context)
        })?;
        Ok(Answer::Transform(verdict))
    }
}

/// An instance, and the plugin that it is of.
struct Call<'a> {
    runtime: &'a Runtime,
    plugin: &'a Loaded,
    store: Store<Run>,
    instance: wasmtime::component::Instance,
}

impl Call<'_> {
    fn new<'a>(
        runtime: &'a Runtime,
        plugin: &'a Loaded,
        event: Option<Input>,
    ) -> Result<Call<'a>, Fault> {
        runtime.ticker.run_begins();
        let limits = &runtime.limits;
        let data_bytes = event.as_ref().and_then(|it| it.content.data.as_ref());
        let output_bytes = limits.output_bytes(data_bytes.map_or(0, |it| it.bytes().len()));
        let mut store = Store::new(&runtime.engine, Run::new(event, plugin.reads.clone(), limits));
        store.limiter(|run| run);
        store.set_hostcall_fuel(output_bytes);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(on_tick);
        store.data_mut().budget = Duration::from_millis(limits.configure_ms);
        match plugin.pre.instantiate(&mut store) {
            Ok(instance) => Ok(Call { runtime, plugin, store, instance }),
            Err(err) => Err(fault(&store, &err)),
        }
    }

    fn configure(&mut self, config: &str) -> Result<(), Fault> {
        let plugin = self.plugin;
        self.within(self.runtime.limits.configure_ms, |store, instance| {
            plugin.lifecycle.load(&mut *store, instance)?.call_configure(store, config)
        })?
        .map_err(Fault::Configuration)
    }

    /// Makes one call of the guest within a budget of CPU time.
    fn within<T>(
        &mut self,
        budget_ms: u64,
        call: impl FnOnce(&mut Store<Run>, &wasmtime::component::Instance) -> wasmtime::Result<T>,
    ) -> Result<T, Fault> {
        let run = self.store.data_mut();
        run.budget = Duration::from_millis(budget_ms);
        run.since = None;
        self.store.set_epoch_deadline(1);
        call(&mut self.store, &self.instance).map_err(|err| fault(&self.store, &err))
    }
}

/// The CPU time of a pipeline on this thread.
pub(super) struct Stopwatch {
    budget: Duration,
    start: Instant,
    /// The thread's CPU time when first looked at: asking for it costs more than most runs.
    since: Option<Duration>,
}

impl Stopwatch {
    pub(super) fn start(budget: Duration) -> Stopwatch {
        Stopwatch { budget, start: Instant::now(), since: None }
    }

    /// # Errors
    ///
    /// The budget is used up.
    pub(super) fn check(&mut self) -> Result<(), Fault> {
        if self.start.elapsed() < STOPWATCH_MIN {
            return Ok(());
        }
        let now = cpu_time();
        let since = *self.since.get_or_insert(now);
        if now - since < self.budget {
            return Ok(());
        }
        Err(Fault::Time { budget_ms: self.budget.as_millis() })
    }
}

/// Counts the thread's CPU time and not the wall's, so that a busy machine fails nobody's plugin.
fn on_tick(mut store: StoreContextMut<'_, Run>) -> wasmtime::Result<UpdateDeadline> {
    let run = store.data_mut();
    let now = cpu_time();
    let since = *run.since.get_or_insert(now);
    Ok(if now - since < run.budget {
        UpdateDeadline::Continue(1)
    } else {
        UpdateDeadline::Interrupt
    })
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Gives what went wrong its name.
fn fault(store: &Store<Run>, err: &wasmtime::Error) -> Fault {
    let run = store.data();
    let last_words = || {
        let error = run.log.iter().rev().find(|(level, _)| *level == Level::Error);
        error.map_or_else(String::new, |(_, message)| format!(": {message}"))
    };
    if err.is::<wasmtime::PoolConcurrencyLimitError>() {
        return Fault::Host(err.to_string());
    }
    if err.is::<SearchedTooMuch>() {
        return Fault::Search;
    }
    match err.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => Fault::Time { budget_ms: run.budget.as_millis() },
        _ if run.memory_refused => Fault::Memory { bytes_max: run.memory_bytes_max },
        Some(trap) => Fault::Trap(format!("{trap}{}", last_words())),
        // The engine has no public type for this one.
        None if format!("{err:#}").contains("fuel allocated for hostcalls") => {
            Fault::Output { bytes_max: store.hostcall_fuel() }
        }
        None => Fault::Trap(format!("{err:#}{}", last_words())),
    }
}

impl Run {
    fn new(event: Option<Input>, reads: Option<Arc<[String]>>, limits: &Limits) -> Run {
        Run {
            event,
            reads,
            searched_bytes: 0,
            memory_bytes_max: limits.memory_bytes_max,
            memory_refused: false,
            log: Vec::new(),
            log_bytes: 0,
            budget: Duration::ZERO,
            since: None,
        }
    }
}

impl ResourceLimiter for Run {
    fn memory_growing(
        &mut self,
        _: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let fits = desired <= self.memory_bytes_max;
        self.memory_refused |= !fits;
        Ok(fits)
    }

    fn table_growing(
        &mut self,
        _: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // The pool has its own, smaller limit; this one only names it.
        Ok(desired <= 20_000)
    }
}
