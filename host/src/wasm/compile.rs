//! Makes compiled code out of a file: checks it, compiles it, and tries what has come out.

use std::time::Instant;

use wasmtime::component::Component;

use super::check::Contract;
use super::compiler::{About, Compiled, Job};
use super::engine::{Allocation, Machine};
use super::run::{Call, Loaded};
use super::{Fault, Refusal, image, manifest};
use crate::plugin::Manifest;

/// How many empty runs tell what one costs.
const TRIALS: usize = 21;

/// `trial_begins` is called when all is compiled, before any of it runs.
pub(super) fn compile(
    job: &Job,
    file: &[u8],
    trial_begins: &dyn Fn(),
) -> Result<Compiled, Refusal> {
    let (component, imports) = Contract::new().component(file)?;
    let machine = Machine::new(job.limits, job.purpose, Allocation::OnDemand)
        .map_err(|err| Refusal::from(Fault::Host(format!("{err:#}"))))?;
    let component = match &job.config {
        Some(config) => {
            let (context, code) = image::instrument(&machine, &component)?;
            trial_begins();
            image::snapshot(&machine, &context, &code, config)?
        }
        None => component,
    };

    let start = Instant::now();
    let code = code(&machine, &component)?;
    let compile_time = start.elapsed();
    trial_begins();
    let mut plugin = load(&machine, &code)?;
    let world = plugin.world().expect("the contract has been checked");
    let manifest = Call::new(&machine, &plugin, None)?.describe()?;
    manifest::check(&manifest)?;
    manifest.config_schema.as_ref().map(manifest::schema).transpose()?;
    plugin.manifest = manifest.clone();
    let mut times = Vec::with_capacity(TRIALS);
    for _ in 0..TRIALS {
        let start = Instant::now();
        plugin.empty_run(&machine)?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let empty_run_time = times[TRIALS / 2];
    let about = About { world, manifest, imports, compile_time, empty_run_time };
    Ok(Compiled { about, code: code.into() })
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
