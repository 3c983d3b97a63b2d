//! All the steps of a pipeline on one event.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::bindings::hookyard::plugin::types::{
    self, CallContext, Decision, NewData, Output, Verdict,
};
use super::imports::SEARCHED_BYTES_MAX;
use super::run::{Answer, Cost, Input};
use super::stopwatch::Stopwatch;
use super::{Fault, Runtime};
use crate::delivery::Reason;
use crate::event::{Attributes, Content, Data, Event};
use crate::json::Json;
use crate::plugin::{Digest, LogLine};

/// The most parts that an event can be split into, and how many times what one run may answer they can
/// be together.
const PARTS_MAX: usize = 64;
const PARTS_OUTPUTS_MAX: usize = 4;
/// How many attributes a plugin can make an event have, and how many bytes of them.
const ATTRIBUTES_MAX: usize = 100;
const ATTRIBUTES_BYTES_MAX: usize = 64 << 10;
/// How long a plugin's reason may be: what is longer is cut.
const DETAIL_BYTES_MAX: usize = 1 << 10;
/// The codes that only the router gives.
const OWN_CODES: &str = "plugin-";

/// One step: a plugin's version with its configuration, JSON text that fits the plugin's schema.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    pub plugin: Digest,
    pub config: String,
}

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
    /// On the clock, with the making of the instance.
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

    fn outcome(
        &self,
        event: &Arc<Event>,
        steps: &[Step],
        addressee: &Addressee<'_>,
        runs: &mut Vec<StepRun>,
    ) -> Result<Outcome, Fault> {
        let context = CallContext {
            subscription: addressee.subscription.to_owned(),
            format: addressee.format.to_owned(),
            locale: addressee.locale.map(str::to_owned),
            received_ms: event.accepted_at_ms.unsigned_abs(),
        };
        let mut clock = Stopwatch::start(self.machine.limits.pipeline_budget());
        let mut parts = vec![Arc::clone(&event.content)];
        let mut dropped = None;
        for (at, step) in steps.iter().enumerate() {
            let mut next = Vec::new();
            for content in parts {
                if let Err(fault) = clock.check() {
                    runs.push(run(at, step, Cost::default(), 0, Some(fault.code())));
                    return failed(at, step, fault);
                }
                let input = Input { event: Arc::clone(event), content: Arc::clone(&content) };
                let (answer, cost) = self.step(input, step, &context)?;
                let done = answer.and_then(|answer| self.carry_out(&content, answer));
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
            if let Err(fault) = self.check_parts(&next) {
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

    /// # Errors
    ///
    /// The plugin cannot be had; what comes of running it is part of the answer.
    fn step(
        &self,
        input: Input,
        step: &Step,
        context: &CallContext,
    ) -> Result<(Result<Answer, Fault>, Cost), Fault> {
        match self.configured(step) {
            Ok((plugin, config)) => Ok(plugin.run(&self.machine, input, config, context)),
            Err(fault @ Fault::Host(_)) => Err(fault),
            Err(fault) => Ok((Err(fault), Cost::default())),
        }
    }

    fn carry_out(&self, content: &Arc<Content>, answer: Answer) -> Result<Done, Fault> {
        let dropped = |it: Option<types::Reason>| {
            it.map_or(Ok(Reason::new("dropped", "a plugin dropped it")), reason)
        };
        Ok(match answer {
            Answer::Filter(Decision::Accept) | Answer::Transform(Verdict::Pass) => {
                Done::Go(vec![Arc::clone(content)])
            }
            Answer::Filter(Decision::Reject(it)) | Answer::Transform(Verdict::Drop(it)) => {
                Done::Drop(dropped(it)?)
            }
            Answer::Transform(Verdict::Fail(it)) => Done::Fail(reason(it)?),
            Answer::Transform(Verdict::Replace(output)) => {
                Done::Go(self.outputs(content, [(None, output)])?)
            }
            Answer::Transform(Verdict::Split(outputs)) => Done::Go(self.split(content, outputs)?),
        })
    }

    /// Parts of parts are bounded as well, and so are parts with the same data, which each deliver them.
    fn check_parts(&self, parts: &[Arc<Content>]) -> Result<(), Fault> {
        if parts.len() > PARTS_MAX {
            return Err(Fault::Verdict(format!("more than {PARTS_MAX} parts of one event")));
        }
        let bytes_max = PARTS_OUTPUTS_MAX * self.machine.limits.output_bytes_max;
        let bytes: usize = parts.iter().map(|it| it.data_bytes()).sum();
        if parts.len() > 1 && bytes > bytes_max { Err(Fault::Output { bytes_max }) } else { Ok(()) }
    }

    fn split(
        &self,
        content: &Arc<Content>,
        outputs: Vec<Output>,
    ) -> Result<Vec<Arc<Content>>, Fault> {
        if outputs.is_empty() {
            return Err(Fault::Verdict("a split into nothing; say `drop`".to_owned()));
        }
        if outputs.len() > PARTS_MAX {
            let what = format!("a split into {} parts; at most {PARTS_MAX}", outputs.len());
            return Err(Fault::Verdict(what));
        }
        self.outputs(content, outputs.into_iter().enumerate().map(|(n, it)| (Some(n), it)))
    }

    /// Makes what a verdict says of an event, within what one run may answer.
    fn outputs(
        &self,
        content: &Arc<Content>,
        outputs: impl IntoIterator<Item = (Option<usize>, Output)>,
    ) -> Result<Vec<Arc<Content>>, Fault> {
        let bytes_max = self.machine.limits.output_bytes(content.data_bytes());
        let mut work = SEARCHED_BYTES_MAX;
        let mut bytes = 0;
        let mut contents = Vec::new();
        for (part, output) in outputs {
            let same = matches!(output.data, NewData::Same);
            let new = changed(content, part, output, &mut work)?;
            bytes += if same { 0 } else { new.data_bytes() };
            if bytes > bytes_max {
                return Err(Fault::Output { bytes_max });
            }
            contents.push(Arc::new(new));
        }
        Ok(contents)
    }
}

/// What one step comes to.
enum Done {
    Go(Vec<Arc<Content>>),
    Drop(Reason),
    Fail(Reason),
}

impl Done {
    /// How many bytes of data it made that are not the ones of `before`.
    fn bytes_beside(&self, before: &Arc<Content>) -> usize {
        let Done::Go(contents) = self else { return 0 };
        let changed = contents.iter().filter(|it| !Arc::ptr_eq(it, before));
        changed.map(|it| it.data_bytes()).sum()
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
    if let Fault::Host(_) = fault {
        return Err(fault);
    }
    let detail = format!("step {} ({}): {fault}", at + 1, step.plugin);
    Ok(Outcome::Fail(Reason { code: fault.code().to_owned(), detail: Some(detail) }))
}

/// `work` is what remains of the bytes that edits may go over.
fn changed(
    content: &Content,
    part: Option<usize>,
    output: Output,
    work: &mut usize,
) -> Result<Content, Fault> {
    let mut attributes = content.attributes.clone();
    if let Some(part) = part {
        attributes.id = format!("{}.{}", attributes.id, part + 1);
    }
    for name in &output.unset {
        attributes.unset(name).map_err(|err| Fault::Verdict(err.to_string()))?;
    }
    let is_set = !output.set.is_empty();
    for (name, value) in output.set {
        attributes.set(&name, value).map_err(|err| Fault::Verdict(err.to_string()))?;
    }
    if is_set {
        check_attributes(&attributes)?;
    }
    let is_json = attributes.is_json();
    let parsed = |bytes: Bytes| {
        Json::parse(bytes)
            .map(Data::Json)
            .map_err(|err| Fault::Verdict(format!("the new data are not JSON: {err}")))
    };
    let data = match output.data {
        NewData::Same => content.data.clone(),
        NewData::Edits(edits) => {
            let removes_only = edits.iter().all(|edit| edit.value.is_none());
            let Some(Data::Json(json)) = &content.data else {
                if removes_only {
                    // There is nothing that could be removed.
                    return Ok(Content { attributes, data: content.data.clone() });
                }
                return Err(Fault::Verdict("edits of data that are not JSON".to_owned()));
            };
            let mut size = json.bytes().len();
            for edit in &edits {
                // Each goes over what the ones before it have made.
                size += edit.value.as_ref().map_or(0, String::len);
                *work = work.checked_sub(size).ok_or(Fault::Search)?;
            }
            let edits = edits.iter().map(|it| (&*it.pointer, it.value.as_deref()));
            Some(Data::Json(json.edit(edits).map_err(|err| Fault::Verdict(err.to_string()))?))
        }
        NewData::Text(text) if is_json => Some(parsed(text.into())?),
        NewData::Bytes(bytes) if is_json => Some(parsed(bytes.into())?),
        NewData::Text(text) => Some(Data::Text(text.into())),
        NewData::Bytes(bytes) => Some(Data::Binary(bytes.into())),
    };
    Ok(Content { attributes, data })
}

fn check_attributes(attributes: &Attributes) -> Result<(), Fault> {
    let (count, bytes) = attributes.size();
    if count > ATTRIBUTES_MAX || bytes > ATTRIBUTES_BYTES_MAX {
        let what = format!(
            "an event with {count} attributes of {bytes} bytes; at most {ATTRIBUTES_MAX} of \
             {ATTRIBUTES_BYTES_MAX}"
        );
        return Err(Fault::Verdict(what));
    }
    Ok(())
}

/// Codes of reasons are searched by, so they are short, and none that the router gives itself.
fn reason(it: types::Reason) -> Result<Reason, Fault> {
    let letter = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-';
    if !(1..=64).contains(&it.code.len()) || !it.code.bytes().all(letter) {
        let what = "the code of a reason must be 1 to 64 of `a` to `z`, `0` to `9` and `-`";
        return Err(Fault::Verdict(what.to_owned()));
    }
    if it.code.starts_with(OWN_CODES) {
        let what = format!("codes of reasons that begin with `{OWN_CODES}` are the router's");
        return Err(Fault::Verdict(what));
    }
    let detail = it.detail.map(|mut text| {
        text.truncate(text.floor_char_boundary(DETAIL_BYTES_MAX));
        text
    });
    Ok(Reason { code: it.code, detail })
}
