//! An event and a rendering make bodies. A pure function: the same bytes today, after a restart, on
//! another node.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::delivery::Reason;
use crate::event::Event;
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

/// Answers as well what the runs of plugins have taken and said.
///
/// # Errors
///
/// A plugin could not be run, and it is not its fault: to be tried again.
pub fn render(
    runtime: &Runtime,
    format: &dyn Format,
    event: &Arc<Event>,
    rendering: &Rendering,
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
            Outcome::Deliver(parts) => {
                let bodies = parts.iter().map(|it| format.encode(event, it, rendering));
                Rendered::Bodies(bodies.collect())
            }
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
