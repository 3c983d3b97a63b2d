//! All the steps of a pipeline on one event.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hookyard_nouns::delivery::Reason;
use hookyard_nouns::digest::Digest;
use hookyard_nouns::event::{Content, Event};
use hookyard_nouns::plugin::LogLine;
use hookyard_nouns::rendering::Step;

use super::bindings::hookyard::plugin::types::CallContext;
use super::carry::{Done, check_parts};
use super::loaded::Loaded;
use super::run::{Cost, Ended, Input};
use super::runtime::Here;
use super::stopwatch::Stopwatch;
use super::{Fault, Runtime};
use crate::fair::Owner;

/// What a pipeline says of an event.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    /// What is delivered, in order: one event, or the parts of a split that no later step dropped.
    Deliver(Vec<Arc<Content>>),
    /// A plugin decided that the subscription does not get it.
    Drop(Reason),
    /// A plugin cannot handle it, or has no verdict at all.
    Fail(Reason),
}

/// What one run of a step has taken, and what the plugin has said.
#[derive(Clone, Debug, PartialEq)]
pub struct StepRun {
    /// Which step of the pipeline, from 0.
    pub step: usize,
    pub plugin: Digest,
    /// On the clock, with the making of the instance and what its verdict made of the event.
    pub time: Duration,
    /// The most memory that it had.
    pub memory_bytes: usize,
    /// The data that came out, where they are not the ones that went in.
    pub output_bytes: usize,
    /// What it cost after `configure`, the same on every machine; none where that is not counted.
    pub fuel: Option<u64>,
    pub log: Vec<LogLine>,
    /// The code of what went wrong, when it has no verdict.
    pub fault: Option<&'static str>,
}

/// What runs took together, in microseconds; none where there were none.
pub fn time_us(runs: &[StepRun]) -> Option<u32> {
    let time: Duration = runs.iter().map(|run| run.time).sum();
    (!runs.is_empty()).then(|| u32::try_from(time.as_micros()).unwrap_or(u32::MAX))
}

/// All the runs of a pipeline on one event.
#[derive(Debug)]
pub struct Ran {
    pub outcome: Outcome,
    pub runs: Vec<StepRun>,
}

/// For whom a pipeline runs; the same for all attempts of a delivery.
#[derive(Clone, Debug)]
pub struct Addressee<'a> {
    pub subscription: &'a str,
    pub format: &'a str,
    pub locale: Option<&'a str>,
}

/// What a step runs, and the configuration that it still has to take.
type Ready<'a> = (Arc<Loaded>, Option<&'a str>);

impl Runtime {
    /// Runs steps one after the other, each on what the one before it made of the event.
    ///
    /// # Errors
    ///
    /// A plugin could not be run at all, and it is not its fault: to be tried again.
    pub fn run(
        &self,
        event: &Arc<Event>,
        steps: &[Step],
        addressee: &Addressee<'_>,
    ) -> Result<Ran, Fault> {
        let mut runs = Vec::new();
        let outcome = self.outcome(event, steps, addressee, &mut runs)?;
        Ok(Ran { outcome, runs })
    }

    /// Loads what steps run.
    ///
    /// # Errors
    ///
    /// Something is missing, and is being made.
    pub fn ready(&self, steps: &[Step], tenant: &Owner) -> Result<(), Fault> {
        self.all_ready(steps, tenant).map(|_| ())
    }

    fn outcome(
        &self,
        event: &Arc<Event>,
        steps: &[Step],
        addressee: &Addressee<'_>,
        runs: &mut Vec<StepRun>,
    ) -> Result<Outcome, Fault> {
        let tenant = Some(event.tenant.clone());
        // Nothing is run in vain because a later step is missing.
        let ready = self.all_ready(steps, &tenant)?;
        let context = CallContext {
            subscription: addressee.subscription.to_owned(),
            format: addressee.format.to_owned(),
            locale: addressee.locale.map(str::to_owned),
            received_ms: event.accepted_at_ms.unsigned_abs(),
        };
        let mut now = Instant::now();
        let clock = Stopwatch::start(now, self.machine.limits.pipeline_budget());
        let mut parts = vec![Arc::clone(&event.content)];
        let mut dropped = None;
        for (at, (step, ready)) in steps.iter().zip(&ready).enumerate() {
            let mut next = Vec::new();
            for content in parts {
                if let Err(fault) = clock.check_at(now) {
                    runs.push(run(at, step, Cost::default(), 0, Some(fault.code())));
                    return failed(at, step, fault);
                }
                let input = Input { event: Arc::clone(event), content: Arc::clone(&content) };
                let (done, cost) = match ready {
                    Ok(ready) => self.step(step, ready, input, &context, &mut now)?,
                    Err(fault) => (Err(fault.clone()), Cost::default()),
                };
                let changed = done.as_ref().map_or(0, |done| done.bytes_beside(&content));
                let fault = done.as_ref().err().map(Fault::code);
                runs.push(run(at, step, cost, changed, fault));
                match done {
                    Ok(Done::Go(contents)) => next.extend(contents),
                    Ok(Done::Drop(reason)) => dropped = Some(reason),
                    Ok(Done::Fail(reason)) => return Ok(Outcome::Fail(reason)),
                    Err(fault) => return failed(at, step, fault),
                }
            }
            if let Err(fault) = check_parts(&next, &self.machine.limits) {
                if let Some(last) = runs.last_mut() {
                    last.fault = Some(fault.code());
                }
                return failed(at, step, fault);
            }
            parts = next;
        }
        Ok(match dropped {
            Some(reason) if parts.is_empty() => Outcome::Drop(reason),
            _ => Outcome::Deliver(parts),
        })
    }

    /// What each step runs. All that is missing has been ordered.
    ///
    /// # Errors
    ///
    /// Something is missing; what is wrong with a plugin is part of the answer.
    fn all_ready<'a>(
        &self,
        steps: &'a [Step],
        tenant: &Owner,
    ) -> Result<Vec<Result<Ready<'a>, Fault>>, Fault> {
        let mut all = Vec::with_capacity(steps.len());
        let (mut here, mut missing) = (Here::new(), None);
        for step in steps {
            match self.configured(step, tenant, &mut here) {
                Err(fault) if fault.is_ours() => missing = Some(fault),
                ready => all.push(ready),
            }
        }
        missing.map_or(Ok(all), Err)
    }

    /// One run, from the making of the instance to what its verdict makes of the event. Answers as well what
    /// it took, and leaves in `now` when it ended.
    ///
    /// # Errors
    ///
    /// It has to wait for an image; what else comes of running it is part of the answer.
    fn step(
        &self,
        step: &Step,
        (plugin, config): &Ready<'_>,
        input: Input,
        context: &CallContext,
        now: &mut Instant,
    ) -> Result<(Result<Done, Fault>, Cost), Fault> {
        let started = *now;
        let content = Arc::clone(&input.content);
        let event = Arc::clone(&input.event);
        let ended = plugin.run(&self.machine, input, *config, context, started);
        let Ended { mut answer, began, mut cost, mut clock } = ended;
        if let (Err(Fault::Time { .. }), false, Some(_)) = (&answer, began, config) {
            let fault = self.too_slow(step, &Some(event.tenant.clone()), clock.budget_ms());
            if fault.is_ours() {
                return Err(fault);
            }
            answer = Err(fault);
        }
        let limits = &self.machine.limits;
        let done = answer.and_then(|it| Done::carry_out(&content, it, limits, &mut clock));
        *now = Instant::now();
        cost.time = *now - started;
        let done = done.and_then(|done| clock.check_at(*now).map(|()| done));
        Ok((done, cost))
    }
}

fn run(
    at: usize,
    step: &Step,
    cost: Cost,
    output_bytes: usize,
    fault: Option<&'static str>,
) -> StepRun {
    let Cost { time, memory_bytes, fuel, log } = cost;
    StepRun { step: at, plugin: step.plugin, time, memory_bytes, output_bytes, fuel, log, fault }
}

/// A fault is the end of this delivery, unless the host is to blame for it.
fn failed(at: usize, step: &Step, fault: Fault) -> Result<Outcome, Fault> {
    if fault.is_ours() {
        return Err(fault);
    }
    let detail = format!("step {} ({}): {fault}", at + 1, step.plugin);
    Ok(Outcome::Fail(Reason { code: fault.code().to_owned(), detail: Some(detail) }))
}
