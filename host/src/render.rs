//! An event and a rendering make bodies. A pure function: the same bytes today, after a restart, on
//! another node.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::delivery::Reason;
use crate::event::{Content, Event};
use crate::formats::Format;
use crate::plugin::Digest;
use crate::wasm::{Addressee, Fault, Outcome, Ran, Runtime, Step, StepRun};

/// Everything that decides a body beside the event. Immutable, and named by its hash.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rendering {
    pub format: String,
    /// Which of the format's ways to write a body; a new way gets a new number, and the old one stays.
    pub encoding: u16,
    pub locale: Option<String>,
    /// For whom, where the body or a plugin can tell. Without it, subscriptions share their bodies.
    pub addressee: Option<Recipient>,
    pub steps: Vec<Step>,
}

/// A subscription as bodies and plugins see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipient {
    pub subscription: Uuid,
    pub provider_id: String,
}

impl Rendering {
    /// The name of this rendering.
    pub fn hash(&self) -> Digest {
        Digest::of(&serde_json::to_vec(self).expect("a rendering is always JSON"))
    }
}

/// What is sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Body {
    pub bytes: Bytes,
    pub content_type: &'static str,
}

/// How many times the bound of one body all parts of a split may be together.
const PARTS_BODIES_MAX: usize = 4;

/// What a format writes a body into. It takes a bounded number of bytes: a form repeats names, so that a small
/// event could become gigabytes. A format whose work grows with the output, and not only with the event, looks at
/// [`Output::is_full`] and stops.
#[derive(Debug)]
pub struct Output {
    bytes: Vec<u8>,
    bytes_max: usize,
    is_full: bool,
}

/// A body would have more bytes than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body would have more than {bytes_max} bytes (`delivery-bytes-max`)")]
pub struct TooLarge {
    pub bytes_max: usize,
}

impl Output {
    pub fn new(bytes_max: usize) -> Output {
        Output { bytes: Vec::new(), bytes_max, is_full: false }
    }

    /// Makes room for about as many bytes as will come.
    pub fn reserve(&mut self, bytes: usize) {
        self.bytes.reserve(bytes.min(self.bytes_max));
    }

    /// Adds bytes at the end, or none of them when they do not fit any more.
    pub fn push(&mut self, more: &[u8]) {
        self.is_full |= more.len() > self.bytes_max - self.bytes.len();
        if !self.is_full {
            self.bytes.extend_from_slice(more);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether something did not fit: then there will be no body, and nothing more need be written.
    pub fn is_full(&self) -> bool {
        self.is_full
    }

    /// # Errors
    ///
    /// More was written than there may be.
    pub fn into_body(self, content_type: &'static str) -> Result<Body, TooLarge> {
        if self.is_full {
            return Err(TooLarge { bytes_max: self.bytes_max });
        }
        Ok(Body { bytes: self.bytes.into(), content_type })
    }
}

impl io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes);
        if self.is_full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(bytes.len()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What becomes of an event for a subscription.
#[derive(Clone, Debug, PartialEq)]
pub enum Rendered {
    /// Part by part.
    Bodies(Vec<Body>),
    /// A plugin decided that there is nothing to send.
    Filtered(Reason),
    /// A plugin could not handle it.
    Failed(Reason),
}

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
