//! Makes compiled code out of a file: checks it, compiles it, and tries what has come out.

use std::time::Instant;

use hookyard_nouns::plugin::Manifest;
use wasmtime::component::Component;

use super::check::Contract;
use super::compiler::{About, Compiled, Job};
use super::engine::{Allocation, Machine};
use super::loaded::Loaded;
use super::run::Call;
use super::{Fault, Refusal, image, manifest};

/// How many empty runs tell what one costs.
const TRIALS: usize = 21;

/// What the process that compiles does between its parts: it has other limits in each.
pub(super) struct Stages<'a> {
    /// The next form of the code is made.
    pub(super) form: &'a dyn Fn(),
    /// All is compiled, and some of it runs.
    pub(super) trial: &'a dyn Fn(),
}

/// Makes each form of the code that is asked for, and tries the first one.
pub(super) fn compile(job: &Job, file: &[u8], stages: &Stages<'_>) -> Result<Compiled, Refusal> {
    let (component, imports) = Contract::new().component(file)?;
    let ours = |err: &dyn std::fmt::Display| Refusal::from(Fault::Host(err.to_string()));
    let machines = job.forms.iter().map(|it| Machine::new(job.limits, *it, Allocation::OnDemand));
    let machines: Vec<_> = machines.collect::<Result<_, _>>().map_err(|err| ours(&err))?;
    let machine = machines.first().ok_or_else(|| ours(&"it was asked for nothing"))?;
    let component = match &job.config {
        Some(config) => {
            let (context, code) = image::instrument(machine, &component)?;
            (stages.trial)();
            image::snapshot(machine, &context, &code, config)?
        }
        None => component,
    };

    let start = Instant::now();
    let mut codes = Vec::new();
    for machine in &machines {
        (stages.form)();
        codes.push(code(machine, &component)?);
    }
    let compile_time = start.elapsed();
    (stages.trial)();
    let mut plugin = load(machine, &codes[0])?;
    let world = plugin.world().expect("the contract has been checked");
    let manifest = Call::on_trial(machine, &plugin)?.describe()?;
    manifest::check(&manifest)?;
    manifest.config_schema.as_ref().map(manifest::schema).transpose()?;
    plugin.manifest = manifest.clone();
    let mut times = Vec::with_capacity(TRIALS);
    for _ in 0..TRIALS {
        let start = Instant::now();
        plugin.empty_run(machine)?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let empty_run_time = times[TRIALS / 2];
    let about = About { world, manifest, imports, compile_time, empty_run_time, is_script: false };
    Ok(Compiled { about, codes })
}

pub(super) fn code(machine: &Machine, component: &[u8]) -> Result<Vec<u8>, Refusal> {
    machine.engine.precompile_component(component).map_err(|err| {
        Refusal::new("cannot-compile", format!("the file cannot be compiled: {err:#}"))
    })
}

/// Loads what was compiled a moment ago, and knows nothing of it yet.
pub(super) fn load(machine: &Machine, code: &[u8]) -> Result<Loaded, Refusal> {
    #[expect(unsafe_code, reason = "this process has compiled these bytes")]
    let component = unsafe { Component::deserialize(&machine.engine, code) };
    let component = component.map_err(|err| Refusal::new("cannot-compile", format!("{err:#}")))?;
    Ok(Loaded::new(machine, &component, Manifest::default())?)
}
