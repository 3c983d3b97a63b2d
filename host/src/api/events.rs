//! `/v1/events`: publishing, in the three modes of the CloudEvents HTTP binding 1.0.2.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use uuid::Uuid;

use super::auth::Caller;
use super::problem::Problem;
use super::{Api, answer, path_id, read_body, tenant};
use crate::clock;
use crate::event::{Data, Event, OPERATIONAL_PREFIX, Tenant, Violation};
use crate::formats::Refusal;
use crate::publication::{Publication, Sent, SentData, structured};
use crate::store::{Accepted, NewEvent};

const STRUCTURED: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";
const MEDIA_TYPES: &str = "`application/cloudevents+json`, `application/cloudevents-batch+json`, or \
     the data themselves with `ce-` headers (CloudEvents binary mode)";

const TOO_MUCH: StatusCode = StatusCode::TOO_MANY_REQUESTS;

/// `POST /v1/events`
pub(super) async fn publish(
    State(api): State<Arc<Api>>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    caller.require("events:write")?;
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok());
    let essence = media_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let body = async || read_body(body, &headers, api.app.settings.body_bytes_max).await;
    if essence.eq_ignore_ascii_case(BATCH) {
        return publish_batch(&api, &caller, body().await?).await;
    }
    let sent = if essence.eq_ignore_ascii_case(STRUCTURED) {
        structured(body().await?).map_err(refused)?
    } else if headers.contains_key("ce-specversion") {
        binary(&headers, media_type, body().await?)?
    } else {
        return Err(Refusal::WrongMediaType(MEDIA_TYPES).into());
    };
    let event = prepare(&api, &caller, sent).await?;
    let accepted = api.app.store.accept(vec![event]).await?;
    let it = accepted.first().expect("each event has an answer");
    Ok(answer(StatusCode::ACCEPTED, it))
}

#[derive(Serialize)]
struct BatchAnswer {
    accepted: Vec<InBatch>,
    rejected: Vec<Value>,
}

/// An event that was accepted, by its place in the batch.
#[derive(Serialize)]
struct InBatch {
    index: usize,
    #[serde(flatten)]
    it: Accepted,
}

async fn publish_batch(api: &Api, caller: &Caller, body: Bytes) -> Result<Response, Problem> {
    let items: Vec<&RawValue> = serde_json::from_slice(&body)
        .map_err(|err| Refusal::Malformed(format!("the body is not a JSON array: {err}")))?;
    let events_max = api.app.settings.batch_events_max;
    if items.len() > events_max {
        let detail =
            format!("a batch has at most {events_max} events, and this one {}", items.len());
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-many-events", detail));
    }
    let mut events = Vec::with_capacity(items.len());
    let mut places = Vec::with_capacity(items.len());
    let mut rejected = Vec::new();
    for (index, item) in items.into_iter().enumerate() {
        let item = body.slice_ref(item.get().as_bytes());
        let event = match structured(item) {
            Ok(sent) => prepare(api, caller, sent).await,
            Err(refusal) => Err(refused(refusal)),
        };
        match event {
            // None of them is taken: whoever tries again does so with all.
            Err(problem) if problem.status == TOO_MUCH => return Err(problem),
            Ok(event) => {
                events.push(event);
                places.push(index);
            }
            Err(problem) => rejected.push(json!({"index": index, "problem": problem.to_json()})),
        }
    }
    let none_fits = events.is_empty() && !rejected.is_empty();
    let accepted =
        if events.is_empty() { Vec::new() } else { api.app.store.accept(events).await? };
    let accepted = places.into_iter().zip(accepted).map(|(index, it)| InBatch { index, it });
    let status = if none_fits { StatusCode::BAD_REQUEST } else { StatusCode::ACCEPTED };
    Ok(answer(status, &BatchAnswer { accepted: accepted.collect(), rejected }))
}

/// CloudEvents HTTP binding 1.0.2, section 3.1: attributes are headers, the body is the data.
fn binary(headers: &HeaderMap, media_type: Option<&str>, body: Bytes) -> Result<Sent, Problem> {
    let mut attributes = Vec::new();
    let mut violations = Vec::new();
    for (name, value) in headers {
        let Some(name) = name.as_str().strip_prefix("ce-") else { continue };
        match value.to_str().ok().and_then(percent_decoded) {
            Some(text) => attributes.push((name.to_owned(), text)),
            None => {
                let detail = "must be visible ASCII, with everything else percent-encoded as UTF-8";
                violations.push(Violation::new(name, detail));
            }
        }
    }
    attributes.extend(media_type.map(|it| ("datacontenttype".to_owned(), it.to_owned())));
    let data = if body.is_empty() { SentData::None } else { SentData::Bytes(body) };
    if violations.is_empty() { Ok(Sent { attributes, data }) } else { Err(invalid(violations)) }
}

/// Section 3.1.3.2: a value in double quotes is what is between them, and `%XX` is a byte of UTF-8.
fn percent_decoded(text: &str) -> Option<String> {
    let text = text.strip_prefix('"').and_then(|it| it.strip_suffix('"')).unwrap_or(text);
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = (*first == b'%').then(|| std::str::from_utf8(after.get(..2)?).ok()).flatten();
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

fn refused(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::Invalid(violations) => invalid(violations),
        other => other.into(),
    }
}

fn invalid(violations: Vec<Violation>) -> Problem {
    Problem::invalid("the event is not one that we take", violations)
}

/// Checks an event, and takes out of it what is for the router alone.
async fn prepare(api: &Api, caller: &Caller, sent: Sent) -> Result<NewEvent, Problem> {
    let Publication { tenant, format, alternate_ids, mut content } =
        sent.read().map_err(invalid)?;
    let tenant: Tenant = caller.tenant(&api.app, tenant.as_deref()).await?;
    if let Some(why) = api.app.backlogs.refusal(&api.app, &tenant) {
        return Err(Problem::new(TOO_MUCH, "too-much-waits", why).with_retry());
    }
    let format = find_format(api, format.as_deref().unwrap_or("cloudevents"))?;
    let event_type = &mut content.attributes.event_type;
    if event_type.starts_with(OPERATIONAL_PREFIX) {
        let rule = "must not begin with `hookyard.`: those are the router's own events";
        return Err(invalid(vec![Violation::new("type", rule)]));
    }
    if let Some(catalogue) = format.catalogue() {
        *event_type = catalogue.canonical(event_type).to_owned();
        catalogue.check(&content).map_err(invalid)?;
    }
    Ok(NewEvent {
        id: Uuid::now_v7(),
        tenant,
        format: format.name(),
        profile: format.profile(&content),
        content: Arc::new(content),
        alternate_ids,
        accepted_at_ms: clock::now_ms(),
    })
}

fn find_format<'a>(api: &'a Api, name: &str) -> Result<&'a dyn crate::formats::Format, Problem> {
    api.app.formats.get(name).ok_or_else(|| {
        let names: Vec<_> = api.app.formats.iter().map(|it| format!("`{}`", it.name())).collect();
        invalid(vec![Violation::new("format", format!("must be one of {}", names.join(", ")))])
    })
}

/// `GET /v1/events/{id}`
pub(super) async fn read(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Result<Response, Problem> {
    caller.require("deliveries:read")?;
    let tenant = tenant(&api, &caller, &query).await?;
    let event = api.app.store.event(&tenant, path_id(&id, "event")?).await?;
    let event = event.ok_or_else(|| Problem::not_found("event"))?;
    Ok(answer(StatusCode::OK, &document(&event)).into_response())
}

/// What is shown of an event.
pub(super) fn document(event: &Event) -> Value {
    let mut body = json!({
        "id": event.id,
        "format": event.format,
        "attributes": event.content.attributes,
        "alternate_ids": event.alternate_ids.iter().cloned().collect::<HashMap<_, _>>(),
        "accepted_at": clock::rfc3339(event.accepted_at_ms),
        "revision": event.revision,
    });
    match &event.content.data {
        Some(Data::Json(json)) => body["data"] = json.read().expect("JSON is a JSON value"),
        Some(Data::Text(bytes)) => body["data"] = String::from_utf8_lossy(bytes).into(),
        Some(Data::Binary(bytes)) => body["data_base64"] = BASE64_STANDARD.encode(bytes).into(),
        None => {}
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_values_are_percent_decoded() {
        for (text, decoded) in [
            ("plain", Some("plain")),
            ("Euro%20%E2%82%AC%20%F0%9F%98%80", Some("Euro € 😀")),
            ("\"quoted\"", Some("quoted")),
            ("100%", Some("100%")),
            ("%zz", Some("%zz")),
            ("%ff", None),
        ] {
            assert_eq!(percent_decoded(text).as_deref(), decoded, "{text}");
        }
    }
}
