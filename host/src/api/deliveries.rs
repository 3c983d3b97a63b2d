//! `/v1/deliveries`: the delivery log.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use super::auth::Caller;
use super::plugin_logs::line;
use super::problem::Problem;
use super::{Api, PAGE_MAX, answer, page_size, parameter, path_id, tenant};
use crate::clock;
use crate::delivery::{Attempt, Delivery, DeliveryState};
use crate::event::Violation;
use crate::plugin::PluginRef;
use crate::store::{DeliveryQuery, LogQuery};
use crate::trial::Reproduction;

/// What is shown of a delivery in a list.
pub(super) fn document(it: &Delivery) -> Value {
    json!({
        "id": it.id,
        "event": it.event_id,
        "subscription": it.subscription_id,
        "part": it.part,
        "state": it.state,
        "reason": it.reason,
        "rendering": it.rendering,
        "body_digest": it.body,
        "attempts": it.attempts,
        "next_attempt_at": it.due_at_ms.map(clock::rfc3339),
        "created_at": clock::rfc3339(it.created_at_ms),
    })
}

fn attempt(it: &Attempt) -> Value {
    json!({
        "number": it.number,
        "at": clock::rfc3339(it.at_ms),
        "duration_ms": it.duration_ms,
        "status": it.status,
        "answer": String::from_utf8_lossy(&it.answer),
        "error": it.error,
    })
}

/// `GET /v1/deliveries`, newest first. `event`, `subscription`, `state` and `reason`
/// (the code, of those that are held, filtered, failed or dead) narrow the search.
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Query(query): Query<HashMap<String, String>>,
) -> Result<Response, Problem> {
    caller.require("deliveries:read")?;
    let tenant = tenant(&api, &caller, &query).await?;
    let limit = page_size(&query)?;
    let search = DeliveryQuery {
        subscription: parameter(&query, "subscription", "the id of a subscription")?,
        event: parameter(&query, "event", "the id of an event")?,
        reason: query.get("reason").cloned(),
        state: query.get("state").map(|text| state(text)).transpose()?,
        before: parameter(&query, "before", "the `next` of a page before")?,
        limit,
    };
    let found = api.app.store.deliveries(&tenant, search).await?;
    let next = found.last().filter(|_| found.len() == limit).map(|(seq, _)| seq.to_string());
    let found: Vec<Value> = found.iter().map(|(_, it)| document(it)).collect();
    Ok(answer(StatusCode::OK, &json!({"deliveries": found, "next": next})))
}

fn state(text: &str) -> Result<DeliveryState, Problem> {
    DeliveryState::parse(text).ok_or_else(|| {
        let names = DeliveryState::ALL.map(DeliveryState::as_str).join(", ");
        let violation = Violation::new("state", format!("must be one of {names}"));
        Problem::invalid("a parameter of the query is wrong", vec![violation])
    })
}

/// `GET /v1/deliveries/{id}`, with every attempt.
pub(super) async fn read(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Result<Response, Problem> {
    caller.require("deliveries:read")?;
    let tenant = tenant(&api, &caller, &query).await?;
    let found = api.app.store.delivery(&tenant, path_id(&id, "delivery")?).await?;
    let (delivery, attempts) = found.ok_or_else(|| Problem::not_found("delivery"))?;
    let mut body = document(&delivery);
    let lines = LogQuery {
        event: Some(delivery.event_id),
        subscription: Some(delivery.subscription_id),
        after: Some(0),
        limit: PAGE_MAX,
        ..LogQuery::default()
    };
    let lines = api.app.store.plugin_log(&tenant, lines).await?;
    body["log"] = lines.iter().map(|(seq, it)| line(*seq, it)).collect();
    body["attempts"] = attempts.iter().map(attempt).collect();
    Ok(answer(StatusCode::OK, &body))
}

/// `POST /v1/deliveries/{id}/reproduce`: everything that the body was made of. With the files of the
/// plugins, which are to be had at `href`, it can be made anywhere.
pub(super) async fn reproduce(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Result<Response, Problem> {
    caller.require("deliveries:read")?;
    caller.require("plugins:read")?;
    let store = &api.app.store;
    let tenant = tenant(&api, &caller, &query).await?;
    let found = store.delivery(&tenant, path_id(&id, "delivery")?).await?;
    let (delivery, _) = found.ok_or_else(|| Problem::not_found("delivery"))?;
    let event = store.event(&tenant, delivery.event_id).await?;
    let event = event.ok_or_else(|| {
        let detail = "the data of the event are no longer kept";
        Problem::new(StatusCode::GONE, "data-expired", detail)
    })?;
    let rendering = store.rendering(delivery.rendering).await?;
    let rendering = rendering.ok_or_else(|| Problem::not_found("rendering"))?;
    let mut plugins = Vec::new();
    for step in &rendering.steps {
        let version = store.find_plugin(Some(&tenant), &PluginRef::Digest(step.plugin)).await?;
        let name = version.map(|it| it.name);
        let href =
            name.as_ref().map(|it| format!("/v1/plugins/{it}/versions/{}/file", step.plugin));
        plugins.push(json!({"digest": step.plugin, "name": name, "href": href}));
    }
    let mut body = json!(Reproduction::new(&delivery, &event, rendering));
    body["plugins"] = json!(plugins);
    Ok(answer(StatusCode::OK, &body))
}
