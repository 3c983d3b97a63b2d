//! An event and a rendering make bodies. A pure function: the same bytes today, after a restart, on
//! another node.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use hookyard_nouns::delivery::Reason;
use hookyard_nouns::event::{Content, Event};
use hookyard_nouns::rendering::{Body, Output, Rendered, Rendering};

use crate::formats::Format;
use crate::wasm::{Addressee, Fault, Outcome, Ran, Runtime, StepRun};

/// How many times the bound of one body all parts of a split may be together.
const PARTS_BODIES_MAX: usize = 4;

/// Answers as well what the runs of plugins have taken and said. `bytes_max` bounds each body.
///
/// # Errors
///
/// A plugin could not be run, and it is not its fault: to be tried again.
pub fn render(
    runtime: &Runtime,
    format: &dyn Format,
    event: &Arc<Event>,
    rendering: &Rendering,
    bytes_max: usize,
) -> Result<(Rendered, Vec<StepRun>), Fault> {
    let subscription = rendering.addressee.as_ref().map(|it| it.subscription.to_string());
    let addressee = Addressee {
        subscription: subscription.as_deref().unwrap_or_default(),
        format: &rendering.format,
        locale: rendering.locale.as_deref(),
    };
    let rendered = catch_unwind(AssertUnwindSafe(|| {
        let Ran { outcome, runs } = runtime.run(event, &rendering.steps, &addressee)?;
        let rendered = match outcome {
            Outcome::Deliver(parts) => encode(format, event, &parts, rendering, bytes_max)
                .map_or_else(Rendered::Failed, Rendered::Bodies),
            Outcome::Drop(reason) => Rendered::Filtered(reason),
            Outcome::Fail(reason) => Rendered::Failed(reason),
        };
        Ok((rendered, runs))
    }));
    // A bug of ours, or of the engine, is the end of this delivery and of nothing else.
    rendered.unwrap_or_else(|_| {
        tracing::error!(event = %event.id, "rendering panicked");
        let reason = Reason::new("internal", "a bug of the router; its log says more");
        Ok((Rendered::Failed(reason), Vec::new()))
    })
}

/// Writes the bodies of all parts.
///
/// # Errors
///
/// One of them, or all of them together, would be too large.
fn encode(
    format: &dyn Format,
    event: &Event,
    parts: &[Arc<Content>],
    rendering: &Rendering,
    bytes_max: usize,
) -> Result<Vec<Body>, Reason> {
    let all_max = bytes_max.saturating_mul(PARTS_BODIES_MAX);
    let mut left = all_max;
    let mut bodies = Vec::with_capacity(parts.len());
    for content in parts {
        let out = Output::new(bytes_max.min(left));
        let body = format.encode(event, content, rendering, out).map_err(|err| {
            let detail = if left < bytes_max {
                format!(
                    "the bodies of all parts together would have more than {all_max} bytes \
                     ({PARTS_BODIES_MAX} × `delivery-bytes-max`)"
                )
            } else {
                err.to_string()
            };
            Reason::new("output-too-large", detail)
        })?;
        left -= body.bytes.len();
        bodies.push(body);
    }
    Ok(bodies)
}
