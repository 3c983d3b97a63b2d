//! One run: a fresh instance, what it may ask of the host, and what becomes of it.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::component::{Component, Instance, InstancePre, Linker};
use wasmtime::{ResourceLimiter, Store, StoreContextMut, Trap, UpdateDeadline};

use super::Fault;
use super::bindings::Plugin;
use super::bindings::exports::hookyard::plugin::{filter, lifecycle, transform};
use super::bindings::hookyard::plugin::types::{CallContext, Decision, Verdict};
use super::configured::Images;
use super::engine::{Limits, Machine, Purpose, Running};
use super::imports::SearchedTooMuch;
use super::stopwatch::cpu_time;
use crate::event::{Content, Event};
use crate::json::Json;
#[cfg(feature = "compiler")]
use crate::plugin::World;
use crate::plugin::{LogLevel, LogLine, Manifest};

/// A plugin that is compiled and linked, ready for runs.
pub(super) struct Loaded {
    pub(super) manifest: Manifest,
    /// What it is after it has taken one configuration or another.
    pub(super) images: Images,
    /// The script that goes before each configuration, as JSON, where the plugin is a script.
    pub(super) script: Option<Arc<str>>,
    /// How much memory it takes to keep it.
    pub(super) bytes: usize,
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

/// What a run has taken, and what the plugin has said.
#[derive(Default)]
pub(super) struct Cost {
    pub(super) time: Duration,
    pub(super) memory_bytes: usize,
    /// None where the engine does not count it.
    pub(super) fuel: Option<u64>,
    pub(super) log: Vec<LogLine>,
}

/// The host's side of one run.
pub(super) struct Run {
    pub(super) event: Option<Input>,
    pub(super) reads: Option<Arc<[String]>>,
    pub(super) searched_bytes: usize,
    memory_bytes_max: usize,
    /// Of all memories together.
    memory_bytes: usize,
    memory_refused: bool,
    pub(super) log: Vec<LogLine>,
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
    /// Links a component, which said this of itself.
    pub(super) fn new(
        machine: &Machine,
        component: &Component,
        manifest: Manifest,
    ) -> Result<Loaded, Fault> {
        let unfit = |err: wasmtime::Error| Fault::Unfit(format!("{err:#}"));
        let pre = machine.linker.instantiate_pre(component).map_err(unfit)?;
        let code = component.image_range();
        Ok(Loaded {
            bytes: code.end.addr() - code.start.addr(),
            lifecycle: lifecycle::GuestIndices::new(&pre).map_err(unfit)?,
            filter: filter::GuestIndices::new(&pre).ok(),
            transform: transform::GuestIndices::new(&pre).ok(),
            reads: manifest.reads.clone().map(Arc::from),
            script: None,
            images: Images::default(),
            manifest,
            pre,
        })
    }

    /// The plugin that a script is, by the plugin that runs scripts.
    ///
    /// # Errors
    ///
    /// The script is wrong.
    pub(super) fn of_script(&self, machine: &Machine, script: &str) -> Result<Loaded, Fault> {
        let text = serde_json::to_string(script).expect("a text is always JSON");
        let mut loaded = Loaded {
            manifest: Manifest::default(),
            images: Images::default(),
            bytes: text.len(),
            script: Some(text.into()),
            pre: self.pre.clone(),
            lifecycle: self.lifecycle.clone(),
            filter: self.filter.clone(),
            transform: self.transform.clone(),
            reads: None,
        };
        let mut call = Call::new(machine, &loaded, None)?;
        call.configure("null")?;
        let manifest = call.describe()?;
        drop(call);
        loaded.reads = manifest.reads.clone().map(Arc::from);
        loaded.manifest = manifest;
        Ok(loaded)
    }

    #[cfg(feature = "compiler")]
    pub(super) fn world(&self) -> Option<World> {
        match (&self.filter, &self.transform) {
            (Some(_), Some(_)) => Some(World::Both),
            (Some(_), None) => Some(World::Filter),
            (None, Some(_)) => Some(World::Transform),
            (None, None) => None,
        }
    }

    /// What `configure` is called with: for a script, the script and its configuration.
    pub(super) fn whole_config<'a>(&self, config: &'a str) -> Cow<'a, str> {
        match &self.script {
            Some(script) => Cow::Owned(format!(r#"{{"script":{script},"config":{config}}}"#)),
            None => Cow::Borrowed(config),
        }
    }

    /// Makes an instance and lets it go: what a run costs before the plugin does anything.
    pub(super) fn empty_run(&self, machine: &Machine) -> Result<(), Fault> {
        Call::new(machine, self, None).map(|_| ())
    }

    /// Tries whether the plugin takes a configuration.
    pub(super) fn configure(&self, machine: &Machine, config: &str) -> Result<(), Fault> {
        Call::new(machine, self, None)?.configure(config)
    }

    /// Runs the filter and then, when it accepts, the transform. Without a configuration, the plugin is
    /// an image that has taken it.
    pub(super) fn run(
        &self,
        machine: &Machine,
        input: Input,
        config: Option<&str>,
        context: &CallContext,
    ) -> (Result<Answer, Fault>, Cost) {
        let start = Instant::now();
        let mut call = match Call::new(machine, self, Some(&input)) {
            Ok(call) => call,
            Err(fault) => {
                return (Err(fault), Cost { time: start.elapsed(), ..Cost::default() });
            }
        };
        let configured = config.map_or(Ok(()), |config| call.configure(config));
        let fuel = call.fuel_left();
        // What a plugin is after `configure` does not depend on the event, so that it can be kept.
        call.store.data_mut().event = Some(input);
        let answer = configured.and_then(|()| call.answer(context));
        let used = fuel.zip(call.fuel_left()).map(|(before, after)| before - after);
        let run = call.store.into_data();
        let cost = Cost {
            time: start.elapsed(),
            memory_bytes: run.memory_bytes,
            fuel: used,
            log: run.log,
        };
        (answer, cost)
    }
}

/// An instance, and the plugin that it is of.
pub(super) struct Call<'a> {
    machine: &'a Machine,
    plugin: &'a Loaded,
    store: Store<Run>,
    instance: Instance,
    /// The clock ticks for as long as this is here.
    _running: Running<'a>,
}

impl Call<'_> {
    /// `input` only tells how much may be answered.
    pub(super) fn new<'a>(
        machine: &'a Machine,
        plugin: &'a Loaded,
        input: Option<&Input>,
    ) -> Result<Call<'a>, Fault> {
        let running = machine.ticker.run_begins();
        let limits = &machine.limits;
        let output_bytes = limits.output_bytes(input.map_or(0, |it| it.content.data_bytes()));
        let mut store = Store::new(&machine.engine, Run::new(plugin.reads.clone(), limits));
        store.limiter(|run| run);
        store.set_hostcall_fuel(output_bytes);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(on_tick);
        store.data_mut().budget = Duration::from_millis(limits.configure_ms);
        if machine.purpose == Purpose::Measure {
            store.set_fuel(u64::MAX).expect("this engine counts fuel");
        }
        match plugin.pre.instantiate(&mut store) {
            Ok(instance) => Ok(Call { machine, plugin, store, instance, _running: running }),
            Err(err) => Err(fault(&store, &err)),
        }
    }

    /// The instance, for whoever wants to look at it from outside.
    #[cfg(feature = "compiler")]
    pub(super) fn into_parts(mut self) -> (Store<Run>, Instance) {
        self.store.set_hostcall_fuel(usize::MAX);
        self.store.data_mut().budget = Duration::MAX;
        (self.store, self.instance)
    }

    fn fuel_left(&self) -> Option<u64> {
        self.store.get_fuel().ok()
    }

    pub(super) fn describe(&mut self) -> Result<Manifest, Fault> {
        let plugin = self.plugin;
        let it = self.within(self.machine.limits.configure_ms, |store, instance| {
            plugin.lifecycle.load(&mut *store, instance)?.call_describe(store)
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

    pub(super) fn configure(&mut self, config: &str) -> Result<(), Fault> {
        let plugin = self.plugin;
        let config = plugin.whole_config(config);
        self.within(self.machine.limits.configure_ms, |store, instance| {
            plugin.lifecycle.load(&mut *store, instance)?.call_configure(store, &config)
        })?
        .map_err(Fault::Configuration)
    }

    fn answer(&mut self, context: &CallContext) -> Result<Answer, Fault> {
        let (plugin, limits) = (self.plugin, self.machine.limits);
        if let Some(filter) = &plugin.filter {
            let decision = self.within(limits.filter_ms, |store, instance| {
                filter.load(&mut *store, instance)?.call_filter(store, context)
            })?;
            if plugin.transform.is_none() || matches!(decision, Decision::Reject(_)) {
                return Ok(Answer::Filter(decision));
            }
        }
        let transform = plugin.transform.as_ref().expect("a plugin has a filter or a transform");
        let verdict = self.within(limits.transform_ms, |store, instance| {
            transform.load(&mut *store, instance)?.call_transform(store, context)
        })?;
        Ok(Answer::Transform(verdict))
    }

    /// Makes one call of the guest within a budget of CPU time.
    fn within<T>(
        &mut self,
        budget_ms: u64,
        call: impl FnOnce(&mut Store<Run>, &Instance) -> wasmtime::Result<T>,
    ) -> Result<T, Fault> {
        let run = self.store.data_mut();
        run.budget = Duration::from_millis(budget_ms);
        run.since = None;
        self.store.set_epoch_deadline(1);
        call(&mut self.store, &self.instance).map_err(|err| fault(&self.store, &err))
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

/// Gives what went wrong its name.
fn fault(store: &Store<Run>, err: &wasmtime::Error) -> Fault {
    let run = store.data();
    let last_words = || {
        let error = run.log.iter().rev().find(|it| it.level == LogLevel::Error);
        error.map_or_else(String::new, |it| format!(": {}", it.message))
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
    fn new(reads: Option<Arc<[String]>>, limits: &Limits) -> Run {
        Run {
            event: None,
            reads,
            searched_bytes: 0,
            memory_bytes_max: limits.memory_bytes_max,
            memory_bytes: 0,
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
        current: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // A component may have several memories; they share the limit.
        let sum = self.memory_bytes + (desired - current);
        let fits = sum <= self.memory_bytes_max;
        if fits {
            self.memory_bytes = sum;
        }
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
