//! `/v1/signing-keys`: the records that the operator publishes in DNS, for receivers to verify by.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use hookyard_nouns::clock;
use http::StatusCode;
use serde_json::json;

use super::auth::Caller;
use super::problem::Problem;
use super::{Api, answer};
use crate::keys;
use crate::manage;

/// `GET /v1/signing-keys`: of this month and of the next, so that the next one can be published before
/// it signs. For the operator.
pub(super) async fn list(State(api): State<Arc<Api>>, caller: Caller) -> Result<Response, Problem> {
    caller.require("admin")?;
    if caller.bound_to().is_some() {
        let detail = "the keys are the operator's; your token is for one tenant";
        return Err(Problem::new(StatusCode::FORBIDDEN, "missing-scope", detail));
    }
    let now_ms = clock::now_ms();
    let domain = &api.app.settings.copernica_key_domain;
    let mut records = Vec::new();
    for selector in [keys::selector(now_ms), keys::next_selector(now_ms)] {
        let key = manage::keys::get(&api.app, &selector).await?;
        let value = key.record();
        // A character-string of DNS holds no more (RFC 1035, section 3.3).
        let strings: Vec<_> =
            value.as_bytes().chunks(255).map(|it| String::from_utf8_lossy(it)).collect();
        records.push(json!({
            "name": format!("{selector}._domainkey.{domain}"),
            "type": "TXT",
            "strings": strings,
            "value": value,
        }));
    }
    Ok(answer(StatusCode::OK, &json!({"records": records})))
}
