//! A plugin that is compiled and linked, ready for runs.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hookyard_nouns::plugin::Manifest;
#[cfg(feature = "compiler")]
use hookyard_nouns::plugin::World;
use wasmtime::component::{Component, InstancePre};

use super::Fault;
use super::bindings::exports::hookyard::plugin::{filter, lifecycle, transform};
use super::engine::{Limits, Machine};
use super::run::{Call, Run};
use super::stopwatch::Stopwatch;

/// What is kept of a plugin beside its code.
const LINKED_BYTES: usize = 64 << 10;

/// A plugin, or an image of one, that runs are made of. Runs share it.
pub(super) struct Loaded {
    pub(super) manifest: Manifest,
    /// The script that goes before each configuration, as JSON, where the plugin is a script.
    pub(super) script: Option<Arc<str>>,
    /// How much memory it takes to keep it.
    pub(super) bytes: usize,
    pub(super) pre: InstancePre<Run>,
    pub(super) lifecycle: lifecycle::GuestIndices,
    pub(super) filter: Option<filter::GuestIndices>,
    pub(super) transform: Option<transform::GuestIndices>,
    pub(super) reads: Option<Arc<[String]>>,
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
            bytes: LINKED_BYTES + (code.end.addr() - code.start.addr()),
            lifecycle: lifecycle::GuestIndices::new(&pre).map_err(unfit)?,
            filter: filter::GuestIndices::new(&pre).ok(),
            transform: transform::GuestIndices::new(&pre).ok(),
            reads: manifest.reads.clone().map(Arc::from),
            script: None,
            manifest,
            pre,
        })
    }

    /// The plugin that a script is, by the plugin that runs scripts.
    pub(super) fn of_script(&self, script: &str, manifest: Manifest) -> Loaded {
        let text = serde_json::to_string(script).expect("a text is always JSON");
        Loaded {
            bytes: LINKED_BYTES + text.len(),
            script: Some(text.into()),
            pre: self.pre.clone(),
            lifecycle: self.lifecycle.clone(),
            filter: self.filter.clone(),
            transform: self.transform.clone(),
            reads: manifest.reads.clone().map(Arc::from),
            manifest,
        }
    }

    /// The same for a script that nothing is known of yet.
    ///
    /// # Errors
    ///
    /// The script is wrong.
    pub(super) fn of_new_script(&self, machine: &Machine, script: &str) -> Result<Loaded, Fault> {
        let loaded = self.of_script(script, Manifest::default());
        let mut call = Call::on_trial(machine, &loaded)?;
        call.configure("null")?;
        let manifest = call.describe()?;
        drop(call);
        Ok(self.of_script(script, manifest))
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

    /// The CPU time of one run of it, with the making of its instance and `configure`.
    pub(super) fn budget(&self, limits: &Limits) -> Duration {
        let of = |is_there: bool, ms: u64| if is_there { ms } else { 0 };
        let filter_ms = of(self.filter.is_some(), limits.filter_ms);
        Duration::from_millis(filter_ms + of(self.transform.is_some(), limits.transform_ms))
    }

    /// Makes an instance and lets it go: what a run costs before the plugin does anything.
    pub(super) fn empty_run(&self, machine: &Machine) -> Result<(), Fault> {
        Call::on_trial(machine, self).map(|_| ())
    }

    /// Makes an instance, and tries whether it takes a configuration; an image has taken it. Answers how much CPU
    /// time that takes.
    pub(super) fn configure(
        &self,
        machine: &Machine,
        config: Option<&str>,
        budget: Duration,
    ) -> Result<Duration, Fault> {
        let clock = Stopwatch::start(Instant::now(), budget);
        let mut call = Call::new(machine, self, 0, clock)?;
        config.map_or(Ok(()), |config| call.configure(config))?;
        Ok(clock.used())
    }
}
