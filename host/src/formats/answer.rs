//! What a provider's API answers.

use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;

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
