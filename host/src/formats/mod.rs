//! The formats: one file each. This one says what a format has to answer.
//!
//! A format is pure: it makes bodies out of events, and it translates between a provider's API and
//! operations on subscriptions. It reads no socket, no store and no clock.

mod api;
mod catalogue;
mod cloudevents;
mod mypreferences;

use std::time::Duration;

use crate::delivery::DEFAULT_SCHEDULE;
use crate::event::{Content, Event, Tenant};
use crate::render::{Body, Rendering};
use crate::schemas::Endpoints;

pub use api::{Answer, Api, Call, Done, Operation, Refusal};
pub use catalogue::{Catalogue, EventType, Texts};
pub use cloudevents::CloudEvents;
pub use mypreferences::{AlternateIdShape, MyPreferences};

/// What a format decides of events and of their deliveries.
pub trait Format: Send + Sync {
    /// The value of the attribute `format` of its events.
    fn name(&self) -> &'static str;

    /// The event types that there are; none when there may be any.
    fn catalogue(&self) -> Option<&Catalogue>;

    /// Which way of writing bodies new renderings get.
    fn encoding(&self) -> u16;

    /// Whether the body tells the subscription that it is for.
    fn names_subscription(&self) -> bool;

    /// Writes what is sent. `content` is the event's, or what the pipeline made of it.
    fn encode(&self, event: &Event, content: &Content, rendering: &Rendering) -> Body;

    /// When and how often a delivery is tried, and what comes after.
    fn policy(&self) -> Policy {
        Policy {
            timeout: Duration::from_secs(15),
            schedule: &DEFAULT_SCHEDULE,
            after_last: AfterLast::Keep,
        }
    }

    /// Whether a status of the endpoint's answer is a success.
    fn is_success(&self, status: u16) -> bool {
        (200..300).contains(&status)
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
}

/// What becomes of a subscription when the last attempt of a delivery has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterLast {
    Keep,
    Pause,
}

/// All formats, by name.
pub struct Formats {
    formats: Vec<Box<dyn Format>>,
}

/// What the operator decides of formats.
#[derive(Clone, Copy, Debug)]
pub struct Choices {
    pub endpoints: Endpoints,
    pub alternate_id: AlternateIdShape,
}

impl Formats {
    pub fn new(choices: Choices) -> Formats {
        Formats { formats: vec![Box::new(CloudEvents), Box::new(MyPreferences::new(choices))] }
    }

    pub fn get(&self, name: &str) -> Option<&dyn Format> {
        self.iter().find(|it| it.name() == name)
    }

    pub fn iter(&self) -> impl Iterator<Item = &dyn Format> {
        self.formats.iter().map(AsRef::as_ref)
    }
}

/// Whether a caller with this tenant is the account that a call names.
pub fn is_same_account(named: Option<&str>, tenant: &Tenant) -> bool {
    named.is_none_or(|it| it == tenant.as_str())
}
