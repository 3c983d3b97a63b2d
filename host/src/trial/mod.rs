//! What plugins would do: one plugin on one event, or another pipeline in the place of the present one.
//! Nothing is delivered, and nothing is counted as a run.

mod compare;
mod reproduce;
mod shadow;

use std::sync::Arc;

use hookyard_nouns::delivery::Reason;
use hookyard_nouns::event::{Content, Event};
use hookyard_nouns::json::Json;
use hookyard_nouns::rendering::{Output, Rendering, Step};
use serde::Serialize;

use crate::formats::{CloudEvents, Format};
use crate::wasm::{Addressee, Fault, Outcome, Runtime, StepRun};

pub use compare::{Change, Comparison, Difference, Totals, compare, difference};
pub use reproduce::Reproduction;
pub use shadow::{Seeing, Shadow, Shadows};

/// What one plugin makes of one event.
#[derive(Debug)]
pub struct Trial {
    pub verdict: Verdict,
    /// What it took; none where it did not get to run.
    pub run: Option<StepRun>,
}

/// What is said of the event, and what comes out of it, in the CloudEvents JSON format: as it stands in answers and
/// in the expectations of cases.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "verdict", rename_all = "lowercase")]
pub enum Verdict {
    Pass,
    Replace { event: Json },
    Split { events: Vec<Json> },
    Drop { reason: Reason },
    Fail { reason: Reason },
}

/// Runs one step on an event.
///
/// # Errors
///
/// The plugin cannot be had.
pub fn try_step(runtime: &Runtime, event: &Arc<Event>, step: &Step) -> Result<Trial, Fault> {
    let addressee = Addressee { subscription: "", format: event.format, locale: None };
    let ran = runtime.run(event, std::slice::from_ref(step), &addressee)?;
    let verdict = match ran.outcome {
        Outcome::Drop(reason) => Verdict::Drop { reason },
        Outcome::Fail(reason) => Verdict::Fail { reason },
        Outcome::Deliver(parts) => match parts.as_slice() {
            [one] if Arc::ptr_eq(one, &event.content) => Verdict::Pass,
            // A split into one part has given it an id of its own.
            [one] => Verdict::Replace { event: structured(event, one) },
            parts => {
                Verdict::Split { events: parts.iter().map(|it| structured(event, it)).collect() }
            }
        },
    };
    Ok(Trial { verdict, run: ran.runs.into_iter().next() })
}

/// An event in the CloudEvents JSON format.
pub fn structured(event: &Event, content: &Content) -> Json {
    let out = Output::new(usize::MAX);
    let body = CloudEvents.encode(event, content, &Rendering::default(), out);
    let body = body.expect("it may be of any size");
    Json::trusted(body.bytes)
}
