//! `/v1/events`: publishing, in the three modes of the CloudEvents HTTP binding 1.0.2.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use uuid::Uuid;

use super::auth::Caller;
use super::problem::Problem;
use super::{Api, answer, path_id, read_body};
use crate::clock;
use crate::event::{Attributes, Content, Data, Tenant, Violation, is_json_type, is_standard};
use crate::formats::Refusal;
use crate::json::Json;
use crate::store::{Accepted, NewEvent};

const STRUCTURED: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";
const MEDIA_TYPES: &str = "`application/cloudevents+json`, `application/cloudevents-batch+json`, or \
     the data themselves with `ce-` headers (CloudEvents binary mode)";

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
        structured(body().await?)?
    } else if headers.contains_key("ce-specversion") {
        binary(&headers, media_type, body().await?)?
    } else {
        return Err(Refusal::WrongMediaType(MEDIA_TYPES).into());
    };
    let event = prepare(&api, &caller, sent).await?;
    let accepted = api.app.store.accept(vec![event]).await?;
    let it = accepted.first().expect("each event has an answer");
    Ok(answer(StatusCode::ACCEPTED, &json!({"id": it.id, "duplicate": it.duplicate})))
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
            Err(problem) => Err(problem),
        };
        match event {
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
    let accepted: Vec<Value> = places
        .into_iter()
        .zip(accepted)
        .map(|(index, Accepted { id, duplicate })| {
            json!({"index": index, "id": id, "duplicate": duplicate})
        })
        .collect();
    let status = if none_fits { StatusCode::BAD_REQUEST } else { StatusCode::ACCEPTED };
    Ok(answer(status, &json!({"accepted": accepted, "rejected": rejected})))
}

/// What a publisher sent, before anything of it is checked.
struct Sent {
    attributes: Vec<(String, String)>,
    data: SentData,
}

enum SentData {
    None,
    /// The member `data` of the JSON format.
    Json(Json),
    /// Bytes that are what their media type says.
    Bytes(Bytes),
}

/// CloudEvents JSON format 1.0.2, sections 2 and 3.
fn structured(body: Bytes) -> Result<Sent, Problem> {
    let json = Json::parse(body)
        .map_err(|err| Refusal::Malformed(format!("the event is not JSON: {err}")))?;
    let Some(members) = json.members() else {
        return Err(Refusal::Malformed("the event must be a JSON object".to_owned()).into());
    };
    let mut sent = Sent { attributes: Vec::new(), data: SentData::None };
    let mut violations = Vec::new();
    let mut has_data = false;
    for (name, value) in members {
        match &*name {
            // In the JSON format, null is the same as absent.
            _ if value.text() == "null" && name != "data" => {}
            "data" | "data_base64" if has_data => {
                violations.push(Violation::new("data_base64", "must not be beside `data`"));
            }
            "data" => {
                has_data = true;
                sent.data = SentData::Json(value);
            }
            "data_base64" => {
                has_data = true;
                let text: Option<String> = value.read();
                match text.and_then(|text| BASE64_STANDARD.decode(text).ok()) {
                    Some(bytes) => sent.data = SentData::Bytes(bytes.into()),
                    None => violations.push(Violation::new("data_base64", "must be base64")),
                }
            }
            _ => match attribute_text(&name, &value) {
                Ok(text) => sent.attributes.push((name.into_owned(), text)),
                Err(detail) => violations.push(Violation::new(name, detail)),
            },
        }
    }
    if violations.is_empty() { Ok(sent) } else { Err(invalid(violations)) }
}

/// The canonical string of an attribute (CloudEvents 1.0.2, "Type System").
fn attribute_text(name: &str, value: &Json) -> Result<String, &'static str> {
    match value.read().unwrap_or(Value::Null) {
        Value::String(text) => Ok(text),
        _ if is_standard(name) || name == "specversion" => Err("must be a string"),
        Value::Bool(it) => Ok(it.to_string()),
        Value::Number(it) if it.as_i64().is_some_and(|it| i32::try_from(it).is_ok()) => {
            Ok(it.to_string())
        }
        Value::Null | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            Err("must be a string, a boolean or a 32-bit integer")
        }
    }
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

fn invalid(violations: Vec<Violation>) -> Problem {
    Problem::invalid("the event is not one that we take", violations)
}

/// Checks an event, and takes out of it what is for the router alone.
async fn prepare(api: &Api, caller: &Caller, sent: Sent) -> Result<NewEvent, Problem> {
    let mut attributes = Attributes::new(sent.attributes).map_err(invalid)?;
    let mut take = |name| attributes.unset(name).ok().flatten();
    let (tenant, format, ids) = (take("tenant"), take("format"), take("alternateids"));
    let tenant: Tenant = caller.tenant(&api.app, tenant.as_deref()).await?;
    let alternate_ids = alternate_ids(ids.as_deref()).map_err(|it| invalid(vec![it]))?;
    let format = find_format(api, format.as_deref().unwrap_or("cloudevents"))?;
    if let Some(catalogue) = format.catalogue() {
        let usual = catalogue.canonical(&attributes.event_type).to_owned();
        attributes.event_type = usual;
    }
    let data = data(&attributes, sent.data).map_err(|it| invalid(vec![it]))?;
    let content = Content { attributes, data };
    if let Some(catalogue) = format.catalogue() {
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

fn data(attributes: &Attributes, sent: SentData) -> Result<Option<Data>, Violation> {
    let is_json = attributes.is_json();
    Ok(match sent {
        SentData::None => None,
        SentData::Json(json) if is_json => Some(Data::Json(json)),
        // Not JSON by its media type: then a JSON string is the text itself.
        SentData::Json(json) => match json.read() {
            Some(Value::String(text)) => Some(Data::Text(text.into())),
            _ => Some(Data::Json(json)),
        },
        SentData::Bytes(bytes) if is_json => {
            let json = Json::parse(bytes);
            let json =
                json.map_err(|err| Violation::new("/data", format!("is not JSON: {err}")))?;
            Some(Data::Json(json))
        }
        SentData::Bytes(bytes) => {
            let media_type = attributes.datacontenttype.as_deref().unwrap_or_default();
            let is_text = is_text_type(media_type) && std::str::from_utf8(&bytes).is_ok();
            Some(if is_text { Data::Text(bytes) } else { Data::Binary(bytes) })
        }
    })
}

fn is_text_type(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.starts_with("text/")
        || essence.ends_with("/xml")
        || essence.ends_with("+xml")
        || is_json_type(media_type)
}

/// The extension attribute `alternateids`: a JSON object of kinds and ids, as text.
fn alternate_ids(text: Option<&str>) -> Result<Vec<(String, String)>, Violation> {
    let Some(text) = text else { return Ok(Vec::new()) };
    let ids: Result<HashMap<String, String>, _> = serde_json::from_str(text);
    let ids = ids.map_err(|_| {
        let detail = "must be a JSON object of texts, such as `{\"LoyaltyNumber\":\"L-7\"}`";
        Violation::new("alternateids", detail)
    })?;
    let mut ids: Vec<_> = ids.into_iter().collect();
    ids.sort();
    Ok(ids)
}

/// `GET /v1/events/{id}`
pub(super) async fn read(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Result<Response, Problem> {
    caller.require("deliveries:read")?;
    let tenant = caller.tenant(&api.app, query.get("tenant").map(String::as_str)).await?;
    let event = api.app.store.event(&tenant, path_id(&id, "event")?).await?;
    let event = event.ok_or_else(|| Problem::not_found("event"))?;
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
    Ok(answer(StatusCode::OK, &body).into_response())
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
