//! What a provider's API for subscriptions is made of: calls, operations, refusals and answers.

use std::collections::HashMap;
use std::fmt;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use serde_json::Value;

use crate::event::Violation;
use crate::subscription::{Draft, Subscription};

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
