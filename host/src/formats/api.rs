//! What a provider's API for subscriptions is made of: calls, operations, refusals and answers.

use std::collections::HashMap;

use bytes::Bytes;
use hookyard_nouns::refusal::Refusal;
use hookyard_nouns::subscription::{Draft, Subscription};
use http::{HeaderMap, Method, header};
use serde_json::Value;
use url::form_urlencoded;
use uuid::Uuid;

use super::Answer;

/// A provider's API, as a translation.
pub trait Api: Send + Sync {
    /// The paths under the format's base path, with parameters in braces.
    fn routes(&self) -> &'static [&'static str];

    /// How clients come by tokens; none where they are only given out by the operator.
    fn login(&self) -> Option<Login> {
        None
    }

    /// Where the caller's token is. Where it is in the body, a little of it is read before the caller is known.
    fn token_place(&self) -> TokenPlace {
        TokenPlace::Head
    }

    /// The text of the caller's token. Where it is in the head, the body has not been read yet.
    ///
    /// # Errors
    ///
    /// There is none, or the call cannot even be read so far.
    fn token(&self, call: &Call) -> Result<String, Refusal> {
        bearer(&call.headers)
    }

    /// What a call asks for.
    ///
    /// # Errors
    ///
    /// The call is not one that the provider would take.
    fn operation(&self, call: &Call) -> Result<Operation, Refusal>;

    /// Whether a token allows an operation.
    ///
    /// # Errors
    ///
    /// It does not.
    fn permit(&self, operation: &Operation, granted: &Granted<'_>) -> Result<(), Refusal> {
        let scope = if operation.changes() { "subscriptions:write" } else { "subscriptions:read" };
        if granted.has(scope) { Ok(()) } else { Err(Refusal::MissingScope(scope.to_owned())) }
    }

    /// What a change of some members makes of a subscription.
    ///
    /// # Errors
    ///
    /// What would come of it is not a subscription that the provider would take.
    fn patched(&self, present: &Subscription, patch: &Value) -> Result<Draft, Refusal> {
        let _ = (present, patch);
        Err(Refusal::NotFound)
    }

    /// The settings of an account that has not made any.
    fn default_settings(&self) -> Value {
        Value::Null
    }

    /// How fast an account with these settings takes deliveries; none for as fast as they come.
    fn account_rate(&self, settings: &Value) -> Option<AccountRate> {
        let _ = settings;
        None
    }

    /// The provider's answer.
    fn answer(&self, call: &Call, outcome: Result<Done, Refusal>) -> Answer;

    /// The id of a new subscription, from a number that counts the tenant's subscriptions in this
    /// format, and from our own id for it.
    fn provider_id(&self, number: u64, id: Uuid) -> String;
}

/// Where the token of a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenPlace {
    /// In a header or in the query.
    Head,
    Body,
}

/// How a provider's clients come by tokens. Paths are as in [`Api::routes`].
#[derive(Clone, Copy, Debug)]
pub enum Login {
    /// Client credentials (RFC 6749, section 4.4), of which the client's id is the id of one of our
    /// tokens and its secret is the token.
    OAuth {
        token: &'static [&'static str],
        /// RFC 7009.
        revoke: &'static [&'static str],
        expires_s: u32,
        /// Whether there are refresh tokens (RFC 6749, section 6).
        refresh: bool,
    },
    /// A form with one of our tokens as `access_token` is answered with another one, as text.
    Exchange { path: &'static str, expires_s: u32 },
}

/// How many deliveries all subscriptions of an account get in a cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountRate {
    pub deliveries: u64,
    pub cycle_ms: i64,
}

/// The scopes of a caller's token.
#[derive(Clone, Copy, Debug)]
pub struct Granted<'a>(pub &'a [String]);

impl Granted<'_> {
    /// Whether the token has a scope; `admin` is all of them.
    pub fn has(&self, scope: &str) -> bool {
        self.0.iter().any(|it| it == scope || it == "admin")
    }
}

/// The token of `Authorization: Bearer …` (RFC 6750).
///
/// # Errors
///
/// There is no such header, or it has something else.
pub fn bearer(headers: &HeaderMap) -> Result<String, Refusal> {
    let value = headers.get(header::AUTHORIZATION).ok_or(Refusal::NoToken)?;
    let text = value.to_str().map_err(|_| Refusal::BadToken)?;
    let (scheme, token) = text.split_once(' ').ok_or(Refusal::BadToken)?;
    if scheme.eq_ignore_ascii_case("bearer") {
        Ok(token.trim().to_owned())
    } else {
        Err(Refusal::BadToken)
    }
}

/// One request to a provider's API.
#[derive(Debug)]
pub struct Call {
    pub method: Method,
    /// Which of [`Api::routes`].
    pub route: &'static str,
    /// The values of the route's parameters.
    pub parameters: HashMap<String, String>,
    /// Behind the `?`, as it was sent.
    pub query: String,
    pub headers: HeaderMap,
    /// How the client reaches the format's own base path: `https://hooks.example.com/kajabi`.
    pub base: String,
    pub body: Bytes,
}

impl Call {
    /// The first value of a parameter of the query.
    pub fn parameter(&self, name: &str) -> Option<String> {
        let mut pairs = form_urlencoded::parse(self.query.as_bytes());
        pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }
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
    /// Changes some members; [`Api::patched`] says what comes of it.
    Patch {
        tenant: Option<String>,
        id: String,
        patch: Value,
    },
    Delete {
        tenant: Option<String>,
        id: String,
    },
    /// Asks for something that is the same for everyone.
    Show(Answer),
    ReadSettings {
        tenant: Option<String>,
    },
    WriteSettings {
        tenant: Option<String>,
        settings: Value,
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
            | Operation::Patch { tenant, .. }
            | Operation::Delete { tenant, .. }
            | Operation::ReadSettings { tenant }
            | Operation::WriteSettings { tenant, .. } => tenant.as_deref(),
            Operation::Show(_) => None,
        }
    }

    /// Whether anything is other than before when it is done.
    pub fn changes(&self) -> bool {
        match self {
            Operation::List { .. }
            | Operation::Read { .. }
            | Operation::Show(_)
            | Operation::ReadSettings { .. } => false,
            Operation::Create { .. }
            | Operation::Replace { .. }
            | Operation::Patch { .. }
            | Operation::Delete { .. }
            | Operation::WriteSettings { .. } => true,
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
    Patched(Subscription),
    Deleted(Subscription),
    Shown(Answer),
    Settings(Value),
}
