//! How an event becomes bodies: what decides them, and what comes of it.

use std::io;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::delivery::Reason;
use crate::digest::Digest;

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

/// One step: a plugin's version with its configuration, JSON text that fits the plugin's schema.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    pub plugin: Digest,
    pub config: Arc<str>,
    #[serde(skip)]
    name: Name,
}

/// What a step is called, once somebody has asked: a configuration may be long, and is asked for in each run.
#[derive(Clone, Debug, Default)]
struct Name(OnceLock<Digest>);

impl PartialEq for Name {
    /// The same steps have the same name, whether it is known or not.
    fn eq(&self, _: &Name) -> bool {
        true
    }
}

impl Eq for Name {}

impl Step {
    pub fn new(plugin: Digest, config: impl Into<Arc<str>>) -> Step {
        Step { plugin, config: config.into(), name: Name::default() }
    }

    /// Tells it apart from all other steps: the name of its image.
    pub fn name(&self) -> Digest {
        let name = || Digest::of(&[&self.plugin.0[..], self.config.as_bytes()].concat());
        *self.name.0.get_or_init(name)
    }
}

/// What is sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Body {
    pub bytes: Bytes,
    pub content_type: &'static str,
}

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
