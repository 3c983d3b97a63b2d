//! One run: a fresh instance, what it may ask of the host, and what becomes of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hookyard_nouns::event::{Content, Event};
use hookyard_nouns::json::Json;
use hookyard_nouns::plugin::{LogLevel, LogLine, Manifest};
use wasmtime::component::{Instance, Linker};
use wasmtime::{ResourceLimiter, Store, StoreContextMut, Trap, UpdateDeadline};

use super::Fault;
use super::bindings::Plugin;
use super::bindings::hookyard::plugin::types::{CallContext, Decision, Verdict};
use super::engine::{Limits, Machine, Purpose, Running};
use super::loaded::Loaded;
use super::stopwatch::Stopwatch;

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

/// A run whose plugin has said what it has to say. It still has to be carried out, within the same budget.
pub(super) struct Ended {
    pub(super) answer: Result<Answer, Fault>,
    /// It was configured in time, so that its time is that of `filter` and `transform`.
    pub(super) began: bool,
    pub(super) cost: Cost,
    pub(super) clock: Stopwatch,
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
    pub(super) clock: Stopwatch,
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
    /// Runs the filter and then, when it accepts, the transform. Without a configuration, the plugin is
    /// an image that has taken it.
    pub(super) fn run(
        &self,
        machine: &Machine,
        input: Input,
        config: Option<&str>,
        context: &CallContext,
        now: Instant,
    ) -> Ended {
        let budget = self.budget(&machine.limits);
        // Where runs are measured there are no images, and so `configure` has time of its own.
        let before = match machine.purpose {
            Purpose::Serve => budget,
            Purpose::Measure => machine.limits.configure_budget(),
        };
        let mut clock = Stopwatch::start(now, before);
        let mut call = match Call::new(machine, self, input.content.data_bytes(), clock) {
            Ok(call) => call,
            Err(fault) => {
                return Ended { answer: Err(fault), began: false, cost: Cost::default(), clock };
            }
        };
        let configured = config.map_or(Ok(()), |config| call.configure(config));
        if machine.purpose == Purpose::Measure {
            call.restart(budget);
        }
        let fuel = call.store.get_fuel().ok();
        // What a plugin is after `configure` does not depend on the event, so that it can be kept.
        call.store.data_mut().event = Some(input);
        let began = configured.is_ok();
        let answer = configured.and_then(|()| call.answer(context));
        let fuel = fuel.zip(call.store.get_fuel().ok()).map(|(before, after)| before - after);
        let Run { memory_bytes, log, clock: ended, .. } = call.store.into_data();
        clock = ended;
        let cost = Cost { time: Duration::ZERO, memory_bytes, fuel, log };
        Ended { answer, began, cost, clock }
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
    /// Makes an instance, on which the clock counts. `data_bytes` tell how much may be answered.
    pub(super) fn new<'a>(
        machine: &'a Machine,
        plugin: &'a Loaded,
        data_bytes: usize,
        clock: Stopwatch,
    ) -> Result<Call<'a>, Fault> {
        let running = machine.ticker.run_begins();
        let limits = &machine.limits;
        let mut store = Store::new(&machine.engine, Run::new(plugin.reads.clone(), limits, clock));
        store.limiter(|run| run);
        store.set_hostcall_fuel(limits.output_bytes(data_bytes));
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(on_tick);
        if machine.purpose == Purpose::Measure {
            store.set_fuel(u64::MAX).expect("this engine counts fuel");
        }
        match plugin.pre.instantiate(&mut store) {
            Ok(instance) => Ok(Call { machine, plugin, store, instance, _running: running }),
            Err(err) => Err(fault(&store, &err)),
        }
    }

    /// An instance that is made outside of a run, and so has more time.
    pub(super) fn on_trial<'a>(
        machine: &'a Machine,
        plugin: &'a Loaded,
    ) -> Result<Call<'a>, Fault> {
        let clock = Stopwatch::start(Instant::now(), machine.limits.configure_budget());
        Call::new(machine, plugin, 0, clock)
    }

    /// The instance, for whoever wants to look at it from outside.
    #[cfg(feature = "compiler")]
    pub(super) fn into_parts(mut self) -> (Store<Run>, Instance) {
        self.store.set_hostcall_fuel(usize::MAX);
        self.restart(Duration::MAX);
        (self.store, self.instance)
    }

    fn restart(&mut self, budget: Duration) {
        self.store.data_mut().clock = Stopwatch::start(Instant::now(), budget);
    }

    pub(super) fn describe(&mut self) -> Result<Manifest, Fault> {
        self.restart(self.machine.limits.configure_budget());
        let plugin = self.plugin;
        let it = self.call(|store, instance| {
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
        self.call(|store, instance| {
            plugin.lifecycle.load(&mut *store, instance)?.call_configure(store, &config)
        })?
        .map_err(Fault::Configuration)
    }

    fn answer(&mut self, context: &CallContext) -> Result<Answer, Fault> {
        let plugin = self.plugin;
        if let Some(filter) = &plugin.filter {
            let decision = self.call(|store, instance| {
                filter.load(&mut *store, instance)?.call_filter(store, context)
            })?;
            if plugin.transform.is_none() || matches!(decision, Decision::Reject(_)) {
                return Ok(Answer::Filter(decision));
            }
        }
        let transform = plugin.transform.as_ref().expect("a plugin has a filter or a transform");
        let verdict = self.call(|store, instance| {
            transform.load(&mut *store, instance)?.call_transform(store, context)
        })?;
        Ok(Answer::Transform(verdict))
    }

    /// Makes one call of the guest.
    fn call<T>(
        &mut self,
        call: impl FnOnce(&mut Store<Run>, &Instance) -> wasmtime::Result<T>,
    ) -> Result<T, Fault> {
        call(&mut self.store, &self.instance).map_err(|err| fault(&self.store, &err))
    }
}

/// Counts the thread's CPU time and not the wall's, so that a busy machine fails nobody's plugin.
fn on_tick(store: StoreContextMut<'_, Run>) -> wasmtime::Result<UpdateDeadline> {
    Ok(match store.data().clock.check() {
        Ok(()) => UpdateDeadline::Continue(1),
        Err(_) => UpdateDeadline::Interrupt,
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
    // What a function of the host has ended the run with.
    if let Some(fault) = err.downcast_ref::<Fault>() {
        return fault.clone();
    }
    match err.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => Fault::Time { budget_ms: run.clock.budget_ms() },
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
    fn new(reads: Option<Arc<[String]>>, limits: &Limits, clock: Stopwatch) -> Run {
        Run {
            event: None,
            reads,
            searched_bytes: 0,
            memory_bytes_max: limits.memory_bytes_max,
            memory_bytes: 0,
            memory_refused: false,
            log: Vec::new(),
            log_bytes: 0,
            clock,
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
