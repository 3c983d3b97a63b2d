//! `/v1/replays`: deliveries that are made again.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::response::Response;
use hookyard_nouns::clock;
use hookyard_nouns::delivery::DeliveryState;
use hookyard_nouns::event::Violation;
use hookyard_nouns::refusal::Refusal;
use http::{HeaderValue, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::auth::Caller;
use super::deliveries::document as delivery;
use super::exchange::Incoming;
use super::problem::Problem;
use super::{Api, answer, page_size, parameter, path_id, read_json, tenant};
use crate::store::{Replay, ReplayQuery, ReplayState, StoreError};

/// How many deliveries a dry run shows.
const SAMPLE: usize = 10;

type Parameters = Query<HashMap<String, String>>;

/// A body that fits `schemas/cloudevents/replay.json`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    delivery: Option<Uuid>,
    subscription: Option<Uuid>,
    states: Option<Vec<DeliveryState>>,
    #[serde(rename = "type")]
    event_type: Option<String>,
    from: Option<String>,
    to: Option<String>,
    #[serde(default)]
    rendering: Rendering,
    per_minute: Option<u32>,
    #[serde(default)]
    dry_run: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Rendering {
    #[default]
    Original,
    Present,
}

fn document(it: &Replay) -> Value {
    json!({
        "id": it.id,
        "state": it.state,
        "delivery": it.query.delivery,
        "subscription": it.query.subscription,
        "states": it.query.states,
        "type": it.query.event_type,
        "from": it.query.from_ms.map(clock::rfc3339),
        "to": it.query.to_ms.map(clock::rfc3339),
        "rendering": if it.present { "present" } else { "original" },
        "per_minute": it.per_minute,
        "total": it.total,
        "replayed": it.replayed,
        "skipped": it.skipped,
        "created_at": clock::rfc3339(it.created_at_ms),
        "ended_at": it.ended_at_ms.map(clock::rfc3339),
    })
}

/// `POST /v1/replays`: makes deliveries again, in the background; with `dry_run`, only says which.
pub(super) async fn create(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Query(query): Parameters,
    incoming: Incoming,
) -> Result<Response, Problem> {
    caller.require("deliveries:write")?;
    let tenant = tenant(&api, &caller, &query).await?;
    let it: Request = read_json(&api, incoming, |it| &it.replay).await?;
    let search = ReplayQuery {
        delivery: it.delivery,
        subscription: it.subscription,
        states: match it.states {
            Some(states) => states,
            // Whoever names one delivery means that one.
            None if it.delivery.is_some() => DeliveryState::SETTLED.to_vec(),
            None => vec![DeliveryState::Dead, DeliveryState::Failed],
        },
        event_type: it.event_type,
        from_ms: time("/from", it.from.as_deref())?,
        to_ms: time("/to", it.to.as_deref())?,
    };
    let total = api.app.store.replay_total(&tenant, &search).await?;
    if it.dry_run {
        let sample = api.app.store.replay_sample(&tenant, &search, SAMPLE).await?;
        let sample: Vec<Value> = sample.iter().map(delivery).collect();
        return Ok(answer(StatusCode::OK, &json!({"total": total, "sample": sample})));
    }
    let replay = Replay {
        id: Uuid::now_v7(),
        tenant,
        query: search,
        present: it.rendering == Rendering::Present,
        per_minute: it.per_minute,
        place: None,
        total,
        replayed: 0,
        skipped: 0,
        state: ReplayState::Running,
        created_at_ms: clock::now_ms(),
        ended_at_ms: None,
    };
    api.app.store.put_replay(replay.clone()).await?;
    api.app.replay_begins.notify_one();
    let mut response = answer(StatusCode::CREATED, &document(&replay));
    let location = HeaderValue::try_from(format!("/v1/replays/{}", replay.id));
    let location = location.expect("an id is visible ASCII");
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

fn time(field: &str, text: Option<&str>) -> Result<Option<i64>, Problem> {
    let Some(text) = text else { return Ok(None) };
    clock::parse_rfc3339(text).map(Some).ok_or_else(|| {
        let detail = "must be a time like `2026-01-31T12:00:00Z`";
        Refusal::Invalid(vec![Violation::new(field, detail)]).into()
    })
}

/// `GET /v1/replays`, newest first.
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Query(query): Parameters,
) -> Result<Response, Problem> {
    caller.require("deliveries:read")?;
    let tenant = tenant(&api, &caller, &query).await?;
    let limit = page_size(&query)?;
    let before: Option<Uuid> = parameter(&query, "before", "the `next` of a page before")?;
    let all = api.app.store.replays(&tenant, before, limit).await?;
    let next = all.last().filter(|_| all.len() == limit).map(|it| it.id);
    let all: Vec<Value> = all.iter().map(document).collect();
    Ok(answer(StatusCode::OK, &json!({"replays": all, "next": next})))
}

/// `GET /v1/replays/{id}`, with how far it has come.
pub(super) async fn read(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Parameters,
) -> Result<Response, Problem> {
    caller.require("deliveries:read")?;
    let tenant = tenant(&api, &caller, &query).await?;
    let found = api.app.store.replay(&tenant, path_id(&id, "replay")?).await?;
    let it = found.ok_or_else(|| Problem::not_found("replay"))?;
    Ok(answer(StatusCode::OK, &document(&it)))
}

/// `POST /v1/replays/{id}/cancel`: what is due by then is delivered, and nothing after it.
pub(super) async fn cancel(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Parameters,
) -> Result<Response, Problem> {
    caller.require("deliveries:write")?;
    let tenant = tenant(&api, &caller, &query).await?;
    let id = path_id(&id, "replay")?;
    match api.app.store.cancel_replay(&tenant, id, clock::now_ms()).await {
        Err(StoreError::NotFound) => Err(Problem::not_found("replay")),
        result => Ok(answer(StatusCode::OK, &document(&result?))),
    }
}
