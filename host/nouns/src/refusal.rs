//! Why something is not done that somebody asks for.

use std::fmt;

use http::StatusCode;

use crate::event::{DETAIL_BYTES_MAX, Violation, cut};

/// Why something was not done. Each format has its own words and codes for these.
#[derive(Debug)]
pub enum Refusal {
    NoToken,
    BadToken,
    MissingScope(String),
    /// The call names an account that is not the caller's.
    OtherAccount,
    /// Nobody may do this, whatever the token is.
    Forbidden(String),
    /// The token is the operator's, and the call names no account.
    NoAccount,
    /// There is no such thing, or none that the caller may know of.
    NotFound,
    /// Nothing is at this path, whatever there is in the account.
    UnknownPath,
    WrongMethod(&'static str),
    WrongMediaType(&'static str),
    /// The body is compressed, or coded in another way.
    Encoded,
    /// The only media type that answers have is not one that the caller takes.
    NotAcceptable(&'static str),
    TooLarge {
        bytes_max: usize,
    },
    /// The body came more slowly than it has to.
    TooSlow,
    /// The header `Host` is not there, or not as it has to be.
    BadHost,
    /// The API knows no pages, and there is more than one answer of it can hold.
    ListTooLong(String),
    /// The caller has so many calls under way that there may be no more.
    TooMany(String),
    /// The body cannot be read at all.
    Malformed(String),
    Invalid(Vec<Violation>),
    /// Another subscription has what no two may have.
    Conflict(String),
    /// The account would have more than it may: how much that is, and by which setting.
    Quota(String),
    Unavailable(String),
}

impl Refusal {
    /// The status that HTTP has for it.
    pub fn status(&self) -> StatusCode {
        match self {
            Refusal::NoToken | Refusal::BadToken => StatusCode::UNAUTHORIZED,
            Refusal::MissingScope(_) | Refusal::NoAccount | Refusal::Forbidden(_) => {
                StatusCode::FORBIDDEN
            }
            Refusal::OtherAccount | Refusal::NotFound | Refusal::UnknownPath => {
                StatusCode::NOT_FOUND
            }
            Refusal::WrongMethod(_) => StatusCode::METHOD_NOT_ALLOWED,
            Refusal::WrongMediaType(_) | Refusal::Encoded => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Refusal::NotAcceptable(_) => StatusCode::NOT_ACCEPTABLE,
            Refusal::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Refusal::ListTooLong(_) => StatusCode::NOT_IMPLEMENTED,
            Refusal::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
            Refusal::BadHost | Refusal::Malformed(_) | Refusal::Invalid(_) => {
                StatusCode::BAD_REQUEST
            }
            Refusal::Conflict(_) | Refusal::Quota(_) => StatusCode::CONFLICT,
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
            Refusal::NoAccount => f.write_str(
                "the token is for all accounts, and an account is needed here; `hookyard token create --tenant …` \
                 makes a token of one",
            ),
            Refusal::OtherAccount | Refusal::NotFound => {
                f.write_str("there is no such subscription")
            }
            Refusal::UnknownPath => f.write_str("there is nothing at this path"),
            Refusal::WrongMethod(allowed) => {
                write!(f, "the method is not allowed here; use {allowed}")
            }
            Refusal::WrongMediaType(wanted) => write!(f, "the body must be {wanted}"),
            Refusal::Encoded => f.write_str(
                "the body is coded as the header `Content-Encoding` says; send it as it is, without that header",
            ),
            Refusal::NotAcceptable(offered) => {
                write!(f, "the answer is {offered}; the header `Accept` must take it")
            }
            Refusal::TooLarge { bytes_max } => {
                write!(f, "the body is larger than {bytes_max} bytes")
            }
            Refusal::TooSlow => f.write_str(
                "the body came too slowly: at least 8 KiB a second are wanted, after 10 s",
            ),
            Refusal::BadHost => f.write_str(
                "the header `Host` must be there once, with the name or the address that is called",
            ),
            Refusal::Malformed(why)
            | Refusal::Forbidden(why)
            | Refusal::Quota(why)
            | Refusal::Unavailable(why)
            | Refusal::TooMany(why)
            | Refusal::ListTooLong(why) => f.write_str(&cut(why.clone(), DETAIL_BYTES_MAX)),
            Refusal::Invalid(violations) => {
                let all: Vec<String> = violations.iter().map(ToString::to_string).collect();
                f.write_str(&all.join("; "))
            }
            Refusal::Conflict(what) => {
                write!(
                    f,
                    "another subscription has `{}` already",
                    cut(what.clone(), DETAIL_BYTES_MAX)
                )
            }
        }
    }
}
