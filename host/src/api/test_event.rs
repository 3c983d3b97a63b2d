//! `POST /v1/subscriptions/{id}/test`: an event that goes all the way at once, and everything that
//! happens to it. Nothing of it is recorded, and nothing is tried again.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::response::Response;
use hookyard_nouns::delivery::{Reason, delivery_id};
use hookyard_nouns::event::Event;
use hookyard_nouns::json::Json;
use hookyard_nouns::refusal::Refusal;
use hookyard_nouns::rendering::{Body, Rendered};
use hookyard_nouns::subscription::Subscription;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::auth::Caller;
use super::exchange::Incoming;
use super::problem::Problem;
use super::trials::{Sample, given, sample_event};
use super::{Api, built, path_id, read_json, tenant};
use crate::dispatch;
use crate::formats::Format;
use crate::manage::try_out;
use crate::render::render;
use crate::schemas;
use crate::send::{Outcome, Phases, Sent};
use crate::trial;
use crate::wasm::StepRun;

/// A body that fits `schemas/cloudevents/test.json`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TestRequest {
    event: Option<Box<RawValue>>,
    #[serde(rename = "type")]
    event_type: Option<String>,
}

/// `POST /v1/subscriptions/{id}/test`: with the given event, or a sample of the format's.
pub(super) async fn send(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    incoming: Incoming,
) -> Result<Response, Problem> {
    caller.require("subscriptions:write")?;
    let tenant = tenant(&api, &caller, &query).await?;
    let id = path_id(&id, "subscription")?;
    let it: TestRequest = read_json(&api, incoming, |it| &it.test).await?;
    let found = api.app.store.subscription(&tenant, id).await?;
    let subscription = Arc::new(found.ok_or_else(|| Problem::not_found("subscription"))?);
    let event = match (it.event, it.event_type) {
        (Some(event), _) => event,
        (None, event_type) => sample(&subscription, event_type)?,
    };
    let event = given(&api, Some(&tenant), event).await?;
    let (rendered, runs) = rendered(&api, &subscription, &event).await?;
    let outcome = match rendered {
        Rendered::Filtered(reason) => Tested::Filtered(reason),
        Rendered::Failed(reason) => Tested::Failed(reason),
        Rendered::Bodies(bodies) => {
            let mut requests = Vec::new();
            for (part, body) in bodies.into_iter().enumerate() {
                requests.push(request(&api, &subscription, &event, part, body).await);
            }
            Tested::Requests(requests)
        }
    };
    let shown = move || TestAnswer {
        event: trial::structured(&event, &event.content),
        runs: runs.iter().map(run).collect(),
        outcome,
    };
    Ok(built(&api, &caller, shown).await?)
}

#[derive(Serialize)]
struct TestAnswer {
    event: Json,
    runs: Vec<Value>,
    #[serde(flatten)]
    outcome: Tested,
}

/// What has become of the event.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Tested {
    Filtered(Reason),
    Failed(Reason),
    Requests(Vec<Value>),
}

/// The sample of a type, or of the first type that the subscription wants and that has one.
fn sample(
    subscription: &Subscription,
    event_type: Option<String>,
) -> Result<Box<RawValue>, Problem> {
    let format = subscription.format.to_owned();
    if let Some(event_type) = event_type {
        return sample_event(&Sample { format, event_type });
    }
    let folder = format!("{format}/samples");
    let wanted = subscription.filters.iter().map(|it| it.types.as_str());
    for event_type in wanted {
        if schemas::folder(&folder).any(|(name, _)| name == event_type) {
            return sample_event(&Sample { format, event_type: event_type.to_owned() });
        }
    }
    if let Some((name, _)) = schemas::folder(&folder).next() {
        return sample_event(&Sample { format, event_type: name.to_owned() });
    }
    // Our own format has events of any kind.
    let event_type = subscription.filters.iter().find(|it| it.types.is_exact());
    let event = json!({
        "specversion": "1.0",
        "id": uuid::Uuid::now_v7(),
        "source": "/hookyard/test",
        "type": event_type.map_or("hookyard-test", |it| it.types.as_str()),
        "data": {"test": true},
    });
    Ok(serde_json::value::to_raw_value(&event).expect("an event is JSON"))
}

async fn rendered(
    api: &Api,
    subscription: &Arc<Subscription>,
    event: &Arc<Event>,
) -> Result<(Rendered, Vec<StepRun>), Problem> {
    let work = {
        let (app, subscription, event) =
            (Arc::clone(&api.app), Arc::clone(subscription), Arc::clone(event));
        move || {
            let format = app.format(subscription.format);
            let bytes_max = app.settings.delivery_bytes_max;
            render(&app.runtime, format, &event, &subscription.rendering, bytes_max)
        }
    };
    let rendered = try_out(&api.app, &subscription.tenant, event.content.bytes(), work).await?;
    Ok(rendered.map_err(|fault| Refusal::Unavailable(fault.to_string()))?)
}

fn run(it: &StepRun) -> Value {
    json!({
        "step": it.step,
        "plugin": it.plugin,
        "time_us": it.time.as_micros(),
        "memory_bytes": it.memory_bytes,
        "output_bytes": it.output_bytes,
        "log": it.log,
        "fault": it.fault,
    })
}

/// Makes one request, and says all of it.
async fn request(
    api: &Api,
    subscription: &Subscription,
    event: &Event,
    part: usize,
    body: Body,
) -> Value {
    let app = &api.app;
    let format = app.format(subscription.format);
    let part = u16::try_from(part).expect("an event has few parts");
    let delivery = delivery_id(event, subscription.id, part);
    let text = String::from_utf8_lossy(&body.bytes).into_owned();
    match dispatch::request(app, subscription, delivery, event.id, body).await {
        Ok(request) => {
            let url = request.url.clone();
            let sent = app.sender.send(request).await;
            let mut shown = json!({
                "url": url.as_str(),
                "headers": headers(&sent),
                "body": text,
                "duration_ms": sent.took.as_millis(),
                "phases": phases(&sent.phases),
            });
            add_outcome(&mut shown, format, sent.outcome);
            shown
        }
        Err(reason) => json!({"body": text, "success": false, "error": reason}),
    }
}

fn headers(sent: &Sent) -> Map<String, Value> {
    sent.headers.iter().map(|(name, value)| (name.to_string(), json!(value))).collect()
}

/// In microseconds; what was not needed or not come to is left out.
fn phases(it: &Phases) -> Map<String, Value> {
    let all = [
        ("dns_us", it.dns),
        ("connect_us", it.connect),
        ("tls_us", it.tls),
        ("first_byte_us", it.first_byte),
    ];
    let taken = all.into_iter().filter_map(|(name, it)| Some((name, it?.as_micros())));
    taken.map(|(name, us)| (name.to_owned(), json!(us))).collect()
}

fn add_outcome(shown: &mut Value, format: &dyn Format, outcome: Outcome) {
    match outcome {
        Outcome::Answered { status, answer, .. } => {
            shown["success"] = json!(format.is_success(status));
            shown["status"] = json!(status);
            shown["answer"] = json!(String::from_utf8_lossy(&answer));
        }
        Outcome::Unreachable(reason) | Outcome::NotSent(reason) | Outcome::Broken(reason) => {
            shown["success"] = json!(false);
            shown["error"] = json!(reason);
        }
    }
}
