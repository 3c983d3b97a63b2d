//! Errors of our own API: problem details (RFC 9457).

use std::borrow::Cow;

use axum::response::{IntoResponse, Response};
use hookyard_nouns::event::{Violation, cut};
use hookyard_nouns::refusal::Refusal;
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::store::StoreError;

/// How long a detail may be, which may come from a compiler or a plugin.
const DETAIL_BYTES_MAX: usize = 4 << 10;

/// What is answered when something is not done. `code` is stable; the texts are for reading.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    pub(super) status: StatusCode,
    code: Cow<'static, str>,
    detail: String,
    errors: Vec<Violation>,
    headers: Vec<(header::HeaderName, &'static str)>,
}

impl Problem {
    pub(crate) fn new(
        status: StatusCode,
        code: impl Into<Cow<'static, str>>,
        detail: impl Into<String>,
    ) -> Problem {
        Problem {
            status,
            code: code.into(),
            detail: cut(detail.into(), DETAIL_BYTES_MAX),
            errors: Vec::new(),
            headers: Vec::new(),
        }
    }

    /// Something in what was sent is wrong.
    pub(crate) fn invalid(detail: impl Into<String>, errors: Vec<Violation>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, "invalid", detail).with_errors(errors)
    }

    /// The same problem, with what is wrong in detail.
    pub(crate) fn with_errors(self, errors: Vec<Violation>) -> Problem {
        Problem { errors: Violation::first(errors), ..self }
    }

    /// About how many bytes its errors have.
    pub(super) fn errors_bytes(&self) -> usize {
        self.errors.iter().map(|it| it.field.len() + it.detail.len()).sum()
    }

    /// The same problem, where there has been said so much that its errors are left out.
    pub(super) fn without_errors(mut self) -> Problem {
        self.errors.clear();
        self.detail.push_str("; what is wrong with it is left out: send it alone to be told");
        self
    }

    /// The same problem, which may be gone in a second.
    pub(crate) fn with_retry(mut self) -> Problem {
        self.headers.push((header::RETRY_AFTER, "1"));
        self
    }

    /// There are too many connections.
    pub(super) fn full(detail: &str) -> Problem {
        let full = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too-many-connections", detail);
        full.with_retry()
    }

    pub(crate) fn not_found(what: &str) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, "not-found", format!("there is no such {what}"))
    }

    /// As a member of a larger answer.
    pub(crate) fn to_json(&self) -> Value {
        let mut body = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or_default(),
            "status": self.status.as_u16(),
            "code": self.code,
            "detail": self.detail,
        });
        if !self.errors.is_empty() {
            body["errors"] = json!(self.errors);
        }
        body
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = self.to_json().to_string();
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        let media_type = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, media_type);
        for (name, value) in self.headers {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Problem {
        let (code, header) = match &refusal {
            Refusal::NoToken => ("no-token", Some((header::WWW_AUTHENTICATE, "Bearer"))),
            Refusal::BadToken => {
                let challenge = "Bearer error=\"invalid_token\"";
                ("bad-token", Some((header::WWW_AUTHENTICATE, challenge)))
            }
            Refusal::MissingScope(_) => ("missing-scope", None),
            Refusal::NoAccount => ("no-account", None),
            Refusal::Forbidden(_) => ("forbidden", None),
            Refusal::OtherAccount | Refusal::NotFound | Refusal::UnknownPath => ("not-found", None),
            Refusal::WrongMethod(allowed) => ("wrong-method", Some((header::ALLOW, *allowed))),
            Refusal::WrongMediaType(_) => ("wrong-media-type", None),
            Refusal::Encoded => ("encoded-body", None),
            Refusal::NotAcceptable(_) => ("not-acceptable", None),
            Refusal::TooLarge { .. } => ("too-large", None),
            Refusal::TooSlow => ("too-slow", None),
            Refusal::BadHost => ("bad-host", None),
            Refusal::ListTooLong(_) => ("list-too-long", None),
            Refusal::TooMany(_) => ("too-many-calls", Some((header::RETRY_AFTER, "1"))),
            Refusal::Malformed(_) => ("malformed", None),
            Refusal::Invalid(_) => ("invalid", None),
            Refusal::Conflict(_) => ("conflict", None),
            Refusal::Quota(_) => ("quota-exceeded", None),
            Refusal::Unavailable(_) => ("unavailable", Some((header::RETRY_AFTER, "1"))),
        };
        let mut problem = Problem::new(refusal.status(), code, refusal.to_string());
        problem.headers.extend(header);
        if let Refusal::Invalid(errors) = refusal {
            problem.detail = "the body does not fit".to_owned();
            problem.errors = Violation::first(errors);
        }
        problem
    }
}

impl From<StoreError> for Problem {
    fn from(err: StoreError) -> Problem {
        Refusal::from(err).into()
    }
}
