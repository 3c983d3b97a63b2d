//! The formats: one file or folder each. This one says what a format has to answer.
//!
//! A format is pure: it makes bodies out of events, and it translates between a provider's API and
//! operations on subscriptions. It reads no socket, no store and no clock.

mod answer;
mod api;
mod catalogue;
mod cloudevents;
mod copernica;
mod kajabi;
mod mypreferences;
mod vision6;
mod vonage;
mod writer;

use std::time::Duration;

use hookyard_nouns::delivery::DEFAULT_SCHEDULE;
use hookyard_nouns::event::{Content, Event, Violation};
use hookyard_nouns::json::Json;
use hookyard_nouns::refusal::Refusal;
use hookyard_nouns::rendering::{Body, Output, Rendering, TooLarge};
use http::HeaderName;
use serde_json::Value;

use crate::schemas::{Endpoints, Schema};
use crate::sign::{self, Unsigned};

pub use answer::Answer;
pub use api::{AccountRate, Api, Call, Done, Granted, Login, Operation, TokenPlace, bearer};
pub use catalogue::{Catalogue, EventType, Texts};
pub use cloudevents::CloudEvents;
pub use copernica::{Copernica, InterestShape};
pub use kajabi::Kajabi;
pub use mypreferences::{AlternateIdShape, MyPreferences};
pub use vision6::Vision6;
pub use vonage::Vonage;
pub use writer::Writer;

/// What a format decides of events and of their deliveries.
pub trait Format: Send + Sync {
    /// The value of the attribute `format` of its events.
    fn name(&self) -> &'static str;

    /// The event types that there are; none when there may be any.
    fn catalogue(&self) -> Option<&Catalogue>;

    /// Which way of writing bodies new renderings get.
    fn encoding(&self) -> u16 {
        1
    }

    /// Whether the body tells the subscription that it is for.
    fn names_subscription(&self) -> bool {
        false
    }

    /// Writes what is sent into `out`. `content` is the event's, or what the pipeline made of it.
    ///
    /// # Errors
    ///
    /// More than `out` takes would be sent.
    fn encode(
        &self,
        event: &Event,
        content: &Content,
        rendering: &Rendering,
        out: Output,
    ) -> Result<Body, TooLarge>;

    /// The headers that sign a request, made anew for each attempt. Standard Webhooks, unless the
    /// provider has something of its own; nothing for a subscription without a secret.
    fn sign(&self, request: &Unsigned<'_>) -> Vec<(HeaderName, String)> {
        sign::standard_webhooks(request)
    }

    /// Whether deliveries are signed with a key of ours that changes each month.
    fn has_rotating_key(&self) -> bool {
        false
    }

    /// When and how often a delivery is tried, and what comes after.
    fn policy(&self) -> Policy {
        Policy::default()
    }

    /// Whether a status of the endpoint's answer is a success.
    fn is_success(&self, status: u16) -> bool {
        (200..300).contains(&status)
    }

    /// Whether endpoints may be plain `http`.
    fn takes_http(&self) -> bool {
        false
    }

    /// How the endpoint of a subscription shows that it wants deliveries, by what the format keeps of
    /// it.
    fn proof(&self, document: &Value) -> Proof {
        let _ = document;
        Proof::None
    }

    /// The profile that an event is about.
    fn profile(&self, content: &Content) -> Option<String> {
        content.attributes.subject.clone()
    }

    /// The provider's own API for subscriptions; none for our own format.
    fn api(&self) -> Option<&dyn Api>;
}

/// How a format delivers.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// For the whole request, answer included.
    pub timeout: Duration,
    /// How long after the previous attempt each attempt is made.
    pub schedule: &'static [Duration],
    pub after_last: AfterLast,
    /// An endpoint that answers 410 gets nothing more.
    pub gone_disables: bool,
}

impl Default for Policy {
    /// What Standard Webhooks advises.
    fn default() -> Policy {
        Policy {
            timeout: Duration::from_secs(15),
            schedule: &DEFAULT_SCHEDULE,
            after_last: AfterLast::Keep,
            gone_disables: true,
        }
    }
}

/// What becomes of a subscription when the last attempt of a delivery has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterLast {
    Keep,
    Pause,
    Remove,
}

/// How an endpoint shows that it wants deliveries, before it gets the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    None,
    /// The handshake of the CloudEvents webhook specification, section 4. Without it, the subscription
    /// is refused.
    Handshake,
    /// The same, or that it answers a code that it is sent. Without it, the subscription is paused.
    HandshakeOrEcho,
    /// A TXT record of its domain, or of one above it. Without it, the subscription is refused.
    DnsRecord,
}

/// All formats, by name.
pub struct Formats {
    formats: Vec<Box<dyn Format>>,
}

/// What the operator decides of formats.
#[derive(Clone, Debug)]
pub struct Choices {
    pub endpoints: Endpoints,
    pub alternate_id: AlternateIdShape,
    pub mypreferences_validation: bool,
    pub interests: InterestShape,
    pub copernica_validation: bool,
    /// The domain below which receivers find the keys of Copernica deliveries.
    pub copernica_key_domain: String,
}

impl Formats {
    pub fn new(choices: &Choices) -> Formats {
        Formats {
            formats: vec![
                Box::new(CloudEvents),
                Box::new(MyPreferences::new(choices)),
                Box::new(Kajabi::new(choices.endpoints)),
                Box::new(Vision6::new(choices.endpoints)),
                Box::new(Copernica::new(choices)),
                Box::new(Vonage::new(choices.endpoints)),
            ],
        }
    }

    /// The formats that are built in, and one more.
    #[must_use]
    pub fn with(mut self, format: Box<dyn Format>) -> Formats {
        self.formats.push(format);
        self
    }

    pub fn get(&self, name: &str) -> Option<&dyn Format> {
        self.iter().find(|it| it.name() == name)
    }

    pub fn iter(&self) -> impl Iterator<Item = &dyn Format> {
        self.formats.iter().map(AsRef::as_ref)
    }
}

/// Reads a JSON body and checks it.
///
/// # Errors
///
/// It is not JSON, or does not fit.
pub fn read_json(body: &[u8], schema: &Schema) -> Result<Value, Refusal> {
    let json = Json::parse(body.to_vec().into())
        .map_err(|err| Refusal::Malformed(format!("the body is not JSON: {err}")))?;
    let document: Value = json.read().expect("JSON is a JSON value");
    check(&document, schema)?;
    Ok(document)
}

/// # Errors
///
/// The value does not fit.
pub fn check(value: &Value, schema: &Schema) -> Result<(), Refusal> {
    let violations = schema.violations(value);
    if violations.is_empty() { Ok(()) } else { Err(Refusal::Invalid(violations)) }
}

/// Takes the id out of a change to what this id names: what has been read can be sent again, changed or not.
///
/// # Errors
///
/// It is another id.
pub fn take_id(change: &mut Value, name: &str, id: &str) -> Result<(), Refusal> {
    let found = change.as_object_mut().and_then(|it| it.remove(name));
    let is_other = |it: &Value| match it {
        Value::String(text) => text != id,
        it => *it.to_string() != *id,
    };
    if found.as_ref().is_some_and(is_other) {
        let detail = "must be the id in the path, or left out";
        return Err(Refusal::Invalid(vec![Violation::new(format!("/{name}"), detail)]));
    }
    Ok(())
}

/// A whole number, or a text of digits. For JSON Schema, `1.0` and `1e3` are whole numbers as well.
pub fn whole_number(value: &Value) -> Option<u64> {
    match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => {
            // Behind 2^53 a float is no longer one number.
            let is_whole =
                |it: &f64| it.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(it);
            let of_float = || number.as_f64().filter(is_whole).map(|it| it as u64);
            number.as_u64().or_else(of_float)
        }
        _ => None,
    }
}
