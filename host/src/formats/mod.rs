//! The formats: one file each. This one says what a format has to answer.
//!
//! A format is pure: it makes bodies out of events, and it translates between a provider's API and
//! operations on subscriptions. It reads no socket, no store and no clock.

mod cloudevents;
mod mypreferences;

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use crate::delivery::DEFAULT_SCHEDULE;
use crate::event::{Content, Data, Event, Tenant, Violation};
use crate::render::{Body, Rendering};
use crate::schemas::{self, Endpoints, Schema};
use crate::subscription::{Draft, Subscription};

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

/// A provider's API, as a translation.
pub trait Api: Send + Sync {
    /// The paths under the format's base path, with parameters in braces.
    fn routes(&self) -> &'static [&'static str];

    /// What a call asks for.
    ///
    /// # Errors
    ///
    /// The call is not one that the provider would take.
    fn operation(&self, call: &Call) -> Result<Operation, Refusal>;

    /// The provider's answer.
    fn answer(&self, call: &Call, outcome: Result<Done, Refusal>) -> Answer;

    /// The id of a new subscription, from a number that counts the tenant's subscriptions in this format.
    fn provider_id(&self, number: u64) -> String;
}

/// One request to a provider's API.
#[derive(Debug)]
pub struct Call {
    pub method: Method,
    /// Which of [`Api::routes`].
    pub route: &'static str,
    /// The values of the route's parameters.
    pub parameters: HashMap<String, String>,
    pub query: HashMap<String, String>,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// What can be done with subscriptions, whatever the API. Ids are the provider's.
#[derive(Debug)]
pub enum Operation {
    /// `tenant` is the account that the call names, where it names one.
    Create {
        tenant: Option<String>,
        draft: Box<Draft>,
    },
    List {
        tenant: Option<String>,
    },
    Read {
        tenant: Option<String>,
        id: String,
    },
    Replace {
        tenant: Option<String>,
        id: String,
        draft: Box<Draft>,
    },
    Delete {
        tenant: Option<String>,
        id: String,
    },
}

impl Operation {
    /// The account that the call names, where it names one.
    pub fn tenant(&self) -> Option<&str> {
        match self {
            Operation::Create { tenant, .. }
            | Operation::List { tenant }
            | Operation::Read { tenant, .. }
            | Operation::Replace { tenant, .. }
            | Operation::Delete { tenant, .. } => tenant.as_deref(),
        }
    }

    /// The scope that the caller's token needs.
    pub fn scope(&self) -> &'static str {
        match self {
            Operation::List { .. } | Operation::Read { .. } => "subscriptions:read",
            Operation::Create { .. } | Operation::Replace { .. } | Operation::Delete { .. } => {
                "subscriptions:write"
            }
        }
    }
}

/// What was done.
#[derive(Debug)]
pub enum Done {
    Created(Subscription),
    Listed(Vec<Subscription>),
    Read(Subscription),
    Replaced(Subscription),
    Deleted(Subscription),
}

/// Why something was not done. Each format has its own words and codes for these.
#[derive(Debug)]
pub enum Refusal {
    NoToken,
    BadToken,
    MissingScope(&'static str),
    /// There is no such thing, or none that the caller may know of.
    NotFound,
    WrongMethod(&'static str),
    WrongMediaType(&'static str),
    TooLarge {
        bytes_max: usize,
    },
    /// The body cannot be read at all.
    Malformed(String),
    Invalid(Vec<Violation>),
    /// Another subscription has what no two may have.
    Conflict(String),
    Unavailable(String),
}

impl Refusal {
    /// The status that HTTP has for it.
    pub fn status(&self) -> StatusCode {
        match self {
            Refusal::NoToken | Refusal::BadToken => StatusCode::UNAUTHORIZED,
            Refusal::MissingScope(_) => StatusCode::FORBIDDEN,
            Refusal::NotFound => StatusCode::NOT_FOUND,
            Refusal::WrongMethod(_) => StatusCode::METHOD_NOT_ALLOWED,
            Refusal::WrongMediaType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Refusal::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::Malformed(_) | Refusal::Invalid(_) => StatusCode::BAD_REQUEST,
            Refusal::Conflict(_) => StatusCode::CONFLICT,
            Refusal::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// In words, for whoever called.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NoToken => f.write_str("the header `Authorization` is missing"),
            Refusal::BadToken => f.write_str("the token is unknown, revoked or expired"),
            Refusal::MissingScope(scope) => {
                write!(f, "the token does not have the scope `{scope}`")
            }
            Refusal::NotFound => f.write_str("there is no such subscription"),
            Refusal::WrongMethod(allowed) => {
                write!(f, "the method is not allowed here; use {allowed}")
            }
            Refusal::WrongMediaType(wanted) => write!(f, "the body must be {wanted}"),
            Refusal::TooLarge { bytes_max } => {
                write!(f, "the body is larger than {bytes_max} bytes")
            }
            Refusal::Malformed(why) | Refusal::Unavailable(why) => f.write_str(why),
            Refusal::Invalid(violations) => {
                let all: Vec<String> = violations.iter().map(ToString::to_string).collect();
                f.write_str(&all.join("; "))
            }
            Refusal::Conflict(what) => write!(f, "another subscription has `{what}` already"),
        }
    }
}

/// An answer of a provider's API.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: Vec<(http::HeaderName, String)>,
    pub content_type: &'static str,
    pub body: Bytes,
}

impl Answer {
    pub fn json(status: StatusCode, body: &Value) -> Answer {
        Answer {
            status,
            headers: Vec::new(),
            content_type: "application/json",
            body: body.to_string().into(),
        }
    }

    pub fn empty(status: StatusCode) -> Answer {
        Answer { status, headers: Vec::new(), content_type: "", body: Bytes::new() }
    }
}

/// The event types of a format.
pub struct Catalogue {
    types: HashMap<String, EventType>,
    /// Other spellings of some types.
    aliases: HashMap<String, String>,
}

/// One type of the catalogue.
pub struct EventType {
    pub entity: String,
    /// An extension attribute that every event of the type has, since subscriptions select by it.
    requires: Option<String>,
    data: Schema,
    /// By locale.
    pub texts: HashMap<String, Texts>,
}

/// What an event type is called in a locale.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Texts {
    pub name: String,
    pub description: String,
}

/// `schemas/<format>/catalogue.json`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CatalogueFile {
    #[serde(rename = "format")]
    _format: String,
    #[serde(rename = "source")]
    _source: String,
    #[serde(rename = "entities")]
    _entities: Value,
    #[serde(default)]
    aliases: HashMap<String, String>,
    types: Vec<EventTypeFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventTypeFile {
    r#type: String,
    entity: String,
    #[serde(default, rename = "inferred")]
    _inferred: bool,
    requires: Option<String>,
    data: String,
    texts: HashMap<String, Texts>,
}

impl Catalogue {
    fn load(format: &str) -> Catalogue {
        let file: CatalogueFile =
            serde_json::from_str(schemas::file(&format!("{format}/catalogue.json")))
                .unwrap_or_else(|err| panic!("the catalogue of `{format}` is broken: {err}"));
        let data = schemas::file(&format!("{format}/data.json"));
        let types = file.types.into_iter().map(|it| {
            let schema = Schema::definition(data, &it.data);
            let event_type = EventType {
                entity: it.entity,
                requires: it.requires,
                data: schema,
                texts: it.texts,
            };
            (it.r#type, event_type)
        });
        Catalogue { types: types.collect(), aliases: file.aliases }
    }

    /// The usual spelling of a type.
    pub fn canonical<'a>(&'a self, event_type: &'a str) -> &'a str {
        self.aliases.get(event_type).map_or(event_type, String::as_str)
    }

    /// A type by its usual spelling.
    pub fn get(&self, event_type: &str) -> Option<&EventType> {
        self.types.get(event_type)
    }

    /// Checks an event's type, the attribute that subscriptions select by, and the data.
    ///
    /// # Errors
    ///
    /// What is wrong; fields of the data are JSON Pointers that begin with `/data`.
    pub fn check(&self, content: &Content) -> Result<(), Vec<Violation>> {
        let Some(event_type) = self.get(&content.attributes.event_type) else {
            let detail = "is not in the catalogue of the format";
            return Err(vec![Violation::new("type", detail)]);
        };
        let mut violations = Vec::new();
        if let Some(name) = &event_type.requires
            && content.attributes.get(name).is_none()
        {
            let detail = "is missing; subscriptions to this type select by this attribute";
            violations.push(Violation::new(name, detail));
        }
        let data = match &content.data {
            Some(Data::Json(json)) => json.read(),
            Some(Data::Text(_) | Data::Binary(_)) | None => None,
        };
        match data {
            Some(data) => violations.extend(
                event_type
                    .data
                    .violations(&data)
                    .into_iter()
                    .map(|it| Violation::new(format!("/data{}", it.field), it.detail)),
            ),
            None => violations.push(Violation::new("/data", "must be JSON")),
        }
        if violations.is_empty() { Ok(()) } else { Err(violations) }
    }
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
