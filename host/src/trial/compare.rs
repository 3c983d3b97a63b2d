//! Two pipelines on the same event.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hookyard_nouns::delivery::Reason;
use hookyard_nouns::event::Event;
use hookyard_nouns::json::Spelled;
use hookyard_nouns::rendering::{Body, Rendered, Rendering};
use json_patch::PatchOperation;
use serde::Serialize;
use uuid::Uuid;

use crate::formats::Format;
use crate::render::render;
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
    event: Uuid,
    #[serde(rename = "type")]
    event_type: String,
    pub change: Change,
    /// From the present body to the proposed one, part by part.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub diff: Vec<Difference>,
    /// Why the proposed pipeline delivers nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    pub present: Cost,
    pub proposed: Cost,
}

/// From one body to another.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Difference {
    /// Both are JSON: a JSON Patch (RFC 6902). Numbers in it are written as they are in the bodies.
    Patch(Vec<Operation>),
    Texts {
        before: String,
        after: String,
    },
    TooLong {
        too_long: bool,
        bytes: usize,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

/// One operation of a patch.
#[derive(Clone, Debug, Serialize)]
pub struct Operation {
    op: &'static str,
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Spelled>,
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
        event: event.id,
        event_type: event.content.attributes.event_type.clone(),
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

pub(super) fn differences(before: &[Body], after: &[Body]) -> Vec<Difference> {
    let none = Body { bytes: bytes::Bytes::new(), content_type: "" };
    let parts = before.len().max(after.len());
    let part = |bodies: &[Body], at: usize| bodies.get(at).unwrap_or(&none).bytes.clone();
    (0..parts).map(|at| difference(&part(before, at), &part(after, at))).collect()
}

/// From one body to another: a patch where both are JSON, and both texts where not. A difference that is too long
/// is told by its length.
pub fn difference(before: &[u8], after: &[u8]) -> Difference {
    let found = match (Spelled::read(before), Spelled::read(after)) {
        (Some(before), Some(after)) => {
            let patch = json_patch::diff(&before.0, &after.0);
            Difference::Patch(patch.0.into_iter().map(operation).collect())
        }
        _ => Difference::Texts {
            before: String::from_utf8_lossy(before).into_owned(),
            after: String::from_utf8_lossy(after).into_owned(),
        },
    };
    match found.to_string().len() {
        bytes if bytes > DIFFERENCE_BYTES_MAX => Difference::TooLong { too_long: true, bytes },
        _ => found,
    }
}

fn operation(it: PatchOperation) -> Operation {
    let path = it.path().to_string();
    let (op, value) = match it {
        PatchOperation::Add(it) => ("add", Some(it.value)),
        PatchOperation::Replace(it) => ("replace", Some(it.value)),
        PatchOperation::Remove(_) => ("remove", None),
        other => unreachable!("{other:?} is in no difference"),
    };
    Operation { op, path, value: value.map(Spelled) }
}

fn cost(runs: &[StepRun]) -> Cost {
    let time: Duration = runs.iter().map(|run| run.time).sum();
    Cost {
        time_us: u64::try_from(time.as_micros()).unwrap_or(u64::MAX),
        fuel: runs.iter().map(|run| run.fuel).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_has_numbers_as_they_are_written() {
        let before = br#"{"wei":993143214321423154315154321,"price":10.0,"text":"1","gone":1}"#;
        let after = br#"{"wei":993143214321423154315154322,"price":10.00,"text":"2","new":[1E2]}"#;
        let patch: Vec<_> = match difference(before, after) {
            Difference::Patch(all) => {
                all.iter().map(|it| serde_json::to_string(it).unwrap()).collect()
            }
            other => panic!("{other}"),
        };
        let mut wanted = [
            r#"{"op":"replace","path":"/wei","value":993143214321423154315154322}"#,
            r#"{"op":"replace","path":"/price","value":10.00}"#,
            r#"{"op":"replace","path":"/text","value":"2"}"#,
            r#"{"op":"remove","path":"/gone"}"#,
            r#"{"op":"add","path":"/new","value":[1E2]}"#,
        ];
        let mut patch = patch;
        patch.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(patch, wanted);
    }

    #[test]
    fn what_is_not_json_is_told_as_text_and_what_is_long_by_its_length() {
        let told =
            |before: &str, after: &str| difference(before.as_bytes(), after.as_bytes()).to_string();
        assert_eq!(told("a=1", "a=2"), r#"{"before":"a=1","after":"a=2"}"#);
        let long = format!("\"{}\"", "x".repeat(DIFFERENCE_BYTES_MAX));
        assert!(told("1", &long).starts_with(r#"{"too_long":true,"bytes":1"#));
    }
}
