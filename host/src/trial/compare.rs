//! Two pipelines on the same event.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::delivery::Reason;
use crate::event::Event;
use crate::formats::Format;
use crate::render::{Body, Rendered, Rendering, render};
use crate::wasm::{Fault, Runtime, StepRun};

/// The longest difference that is told.
const DIFFERENCE_BYTES_MAX: usize = 16 << 10;

/// What becomes of an event with the proposed pipeline in the place of the present one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    Same,
    Changed,
    NowDropped,
    NowDelivered,
    Fails,
}

/// What comparing two pipelines on one event has shown.
#[derive(Debug, Serialize)]
pub struct Comparison {
    pub change: Change,
    /// From the present body to the proposed one, as a JSON Patch (RFC 6902), part by part.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub diff: Vec<Value>,
    /// Why the proposed pipeline delivers nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    pub present: Cost,
    pub proposed: Cost,
}

/// What all the steps of a pipeline took.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Cost {
    pub time_us: u64,
    /// None where it was not counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fuel: Option<u64>,
}

/// Comparisons, counted.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Totals {
    pub events: u64,
    pub same: u64,
    pub changed: u64,
    pub now_dropped: u64,
    pub now_delivered: u64,
    pub fails: u64,
}

impl Totals {
    pub fn count(&mut self, change: Change) {
        self.events += 1;
        *match change {
            Change::Same => &mut self.same,
            Change::Changed => &mut self.changed,
            Change::NowDropped => &mut self.now_dropped,
            Change::NowDelivered => &mut self.now_delivered,
            Change::Fails => &mut self.fails,
        } += 1;
    }
}

/// Renders an event both ways.
///
/// # Errors
///
/// A plugin cannot be had.
pub fn compare(
    runtime: &Runtime,
    format: &dyn Format,
    event: &Arc<Event>,
    present: &Rendering,
    proposed: &Rendering,
    bytes_max: usize,
) -> Result<Comparison, Fault> {
    let (present, present_runs) = render(runtime, format, event, present, bytes_max)?;
    let (proposed, proposed_runs) = render(runtime, format, event, proposed, bytes_max)?;
    let (change, reason) = judge(&present, &proposed);
    let diff = match (&present, &proposed) {
        (Rendered::Bodies(before), Rendered::Bodies(after)) if change == Change::Changed => {
            differences(before, after)
        }
        _ => Vec::new(),
    };
    Ok(Comparison {
        change,
        diff,
        reason,
        present: cost(&present_runs),
        proposed: cost(&proposed_runs),
    })
}

/// What a change from one result to the other is.
pub(super) fn judge(present: &Rendered, proposed: &Rendered) -> (Change, Option<Reason>) {
    match (present, proposed) {
        (Rendered::Bodies(before), Rendered::Bodies(after)) => {
            (if before == after { Change::Same } else { Change::Changed }, None)
        }
        (Rendered::Filtered(_) | Rendered::Failed(_), Rendered::Bodies(_)) => {
            (Change::NowDelivered, None)
        }
        (Rendered::Failed(_), Rendered::Failed(reason))
        | (Rendered::Filtered(_), Rendered::Filtered(reason)) => {
            (Change::Same, Some(reason.clone()))
        }
        (Rendered::Bodies(_) | Rendered::Failed(_), Rendered::Filtered(reason)) => {
            (Change::NowDropped, Some(reason.clone()))
        }
        (Rendered::Bodies(_) | Rendered::Filtered(_), Rendered::Failed(reason)) => {
            (Change::Fails, Some(reason.clone()))
        }
    }
}

pub(super) fn differences(before: &[Body], after: &[Body]) -> Vec<Value> {
    let none = Body { bytes: bytes::Bytes::new(), content_type: "" };
    let parts = before.len().max(after.len());
    let part = |bodies: &[Body], at: usize| bodies.get(at).unwrap_or(&none).bytes.clone();
    (0..parts).map(|at| difference(&part(before, at), &part(after, at))).collect()
}

/// From one body to another: a JSON Patch where both are JSON, and both texts where not. A difference
/// that is too long is told by its length.
pub fn difference(before: &[u8], after: &[u8]) -> Value {
    let json = |bytes| serde_json::from_slice::<Value>(bytes).ok();
    let diff = match (json(before), json(after)) {
        (Some(before), Some(after)) => {
            serde_json::to_value(json_patch::diff(&before, &after)).expect("a patch is JSON")
        }
        _ => serde_json::json!({
            "before": String::from_utf8_lossy(before),
            "after": String::from_utf8_lossy(after),
        }),
    };
    match diff.to_string().len() {
        length if length > DIFFERENCE_BYTES_MAX => {
            serde_json::json!({"too_long": true, "bytes": length})
        }
        _ => diff,
    }
}

fn cost(runs: &[StepRun]) -> Cost {
    let time: Duration = runs.iter().map(|run| run.time).sum();
    Cost {
        time_us: u64::try_from(time.as_micros()).unwrap_or(u64::MAX),
        fuel: runs.iter().map(|run| run.fuel).sum(),
    }
}
