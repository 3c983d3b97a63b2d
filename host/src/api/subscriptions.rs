//! `/v1/subscriptions`: our own format, and what subscriptions of every format have in common.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;
use uuid::Uuid;

use super::auth::Caller;
use super::problem::Problem;
use super::{Api, answer, page_size, parameter, path_id, read_json, tenant};
use crate::clock;
use crate::formats::{Format, Refusal};
use crate::manage::subscriptions as manage;
use crate::schemas::Schema;
use crate::sign;
use crate::store::CountsQuery;
use crate::subscription::{
    Draft, Filter, NewSecret, Pace, State as Delivering, StepRef, Subscription,
};

type Parameters = Query<HashMap<String, String>>;

/// A body that fits `schemas/cloudevents/create.json` or `replace.json`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    name: String,
    url: Url,
    filters: Vec<Filter>,
    #[serde(default)]
    steps: Vec<StepRef>,
    #[serde(default = "active")]
    state: Delivering,
    #[serde(default)]
    catch_up: bool,
    secret: Option<String>,
    #[serde(default)]
    handshake: bool,
}

fn active() -> Delivering {
    Delivering::Active
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StepsRequest {
    steps: Vec<StepRef>,
}

fn own_format(api: &Api) -> &dyn Format {
    api.app.format("cloudevents")
}

async fn draft(
    api: &Api,
    headers: &HeaderMap,
    body: Body,
    schema: &Schema,
) -> Result<Draft, Problem> {
    let it: Request = read_json(api, headers, body, schema).await?;
    let secret = it.secret.as_deref().map(sign::parse_secret).transpose();
    let secret = secret.map_err(|it| Refusal::Invalid(vec![it]))?;
    Ok(Draft {
        name: it.name,
        url: it.url,
        url_field: "/url",
        state: it.state,
        catch_up: it.catch_up,
        locale: None,
        filters: it.filters,
        format_steps: Vec::new(),
        steps: Some(it.steps),
        secret: secret.map_or(NewSecret::Made, NewSecret::Given),
        document: json!({"handshake": it.handshake}),
        unique: Vec::new(),
    })
}

/// What is shown of a subscription in any format. Never its secret.
fn document(it: &Subscription) -> Value {
    let steps = it.format_steps.iter().map(|step| ("format", step));
    let steps = steps.chain(it.steps.iter().map(|step| ("subscriber", step)));
    let steps = steps.zip(&it.rendering.steps).map(|((of, asked), pinned)| {
        json!({
            "plugin": asked.plugin,
            "config": asked.config,
            "digest": pinned.plugin,
            "of": of,
        })
    });
    json!({
        "id": it.id,
        "format": it.format,
        "provider_id": it.provider_id,
        "name": it.name,
        "url": it.url.as_str(),
        "state": it.state,
        "catch_up": it.catch_up,
        "handshake": it.document["handshake"] == true,
        "rate_per_minute": it.rate_per_minute,
        "pace": it.pace,
        "filters": it.filters,
        "steps": steps.collect::<Vec<_>>(),
        "rendering": it.rendering_hash,
        "revision": it.revision,
        "created_at": clock::rfc3339(it.created_at_ms),
        "updated_at": clock::rfc3339(it.updated_at_ms),
    })
}

/// `POST /v1/subscriptions`. The answer shows the secret, this once.
pub(super) async fn create(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Query(query): Parameters,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    caller.require("subscriptions:write")?;
    let tenant = tenant(&api, &caller, &query).await?;
    let draft = draft(&api, &headers, body, &api.schemas.create).await?;
    let it = manage::create(&api.app, &tenant, own_format(&api), draft).await?;
    let mut body = document(&it);
    body["secret"] = sign::secret_text(&it.secrets[0].key).into();
    let mut response = answer(StatusCode::CREATED, &body);
    let location = format!("/v1/subscriptions/{}", it.id);
    let location = HeaderValue::try_from(location).expect("an id is visible ASCII");
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

/// `GET /v1/subscriptions`: the tenant's, in every format.
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Query(query): Parameters,
) -> Result<Response, Problem> {
    caller.require("subscriptions:read")?;
    let tenant = tenant(&api, &caller, &query).await?;
    let after: Option<Uuid> = parameter(&query, "after", "the `next` of a page before")?;
    let limit = page_size(&query)?;
    let all = api.app.store.subscriptions(&tenant, None, after, limit).await?;
    let next = all.last().filter(|_| all.len() == limit).map(|it| it.id);
    let all: Vec<Value> = all.iter().map(document).collect();
    Ok(answer(StatusCode::OK, &json!({"subscriptions": all, "next": next})))
}

/// `GET /v1/subscriptions/{id}`
pub(super) async fn read(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Parameters,
) -> Result<Response, Problem> {
    caller.require("subscriptions:read")?;
    let tenant = tenant(&api, &caller, &query).await?;
    let it = api.app.store.subscription(&tenant, path_id(&id, "subscription")?).await?;
    let it = it.ok_or_else(|| Problem::not_found("subscription"))?;
    let mut body = document(&it);
    let (subscription, from_ms, to_ms) = (Some(it.id), 0, i64::MAX);
    let ever = CountsQuery { subscription, from_ms, to_ms, step_minutes: u32::MAX };
    let counts = api.app.store.counts(&tenant, ever).await?;
    body["filtered"] = counts.first().map_or(0, |(_, it)| it.filtered).into();
    body["quarantine"] = match api.app.health.quarantine_of(it.id) {
        Some(quarantine) => {
            let mut shown = json!(quarantine);
            shown["since"] = clock::rfc3339(quarantine.since_ms).into();
            shown["next_probe_at"] = clock::rfc3339(quarantine.probe_at_ms).into();
            shown
        }
        None => Value::Null,
    };
    Ok(answer(StatusCode::OK, &body))
}

/// `PUT /v1/subscriptions/{id}`: of our own format alone.
pub(super) async fn replace(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Parameters,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    caller.require("subscriptions:write")?;
    let tenant = tenant(&api, &caller, &query).await?;
    let id = path_id(&id, "subscription")?;
    let draft = draft(&api, &headers, body, &api.schemas.replace).await?;
    let present = api.app.store.subscription(&tenant, id).await?;
    let format = present.ok_or_else(|| Problem::not_found("subscription"))?.format;
    if format != own_format(&api).name() {
        let detail = format!("the subscription is in the format `{format}`; change it by that API");
        return Err(Problem::new(StatusCode::CONFLICT, "other-format", detail));
    }
    let it = manage::replace(&api.app, &tenant, own_format(&api), id, draft).await?;
    Ok(answer(StatusCode::OK, &document(&it)))
}

/// `DELETE /v1/subscriptions/{id}`
pub(super) async fn delete(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Parameters,
) -> Result<Response, Problem> {
    caller.require("subscriptions:write")?;
    let tenant = tenant(&api, &caller, &query).await?;
    manage::delete(&api.app, &tenant, path_id(&id, "subscription")?).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `POST /v1/subscriptions/{id}/pause`
pub(super) async fn pause(
    api: State<Arc<Api>>,
    caller: Caller,
    id: Path<String>,
    query: Parameters,
) -> Result<Response, Problem> {
    set_state(&api, &caller, &id, &query, Delivering::Paused).await
}

/// `POST /v1/subscriptions/{id}/resume`
pub(super) async fn resume(
    api: State<Arc<Api>>,
    caller: Caller,
    id: Path<String>,
    query: Parameters,
) -> Result<Response, Problem> {
    set_state(&api, &caller, &id, &query, Delivering::Active).await
}

async fn set_state(
    api: &Api,
    caller: &Caller,
    id: &str,
    query: &HashMap<String, String>,
    state: Delivering,
) -> Result<Response, Problem> {
    caller.require("subscriptions:write")?;
    let tenant = tenant(api, caller, query).await?;
    let id = path_id(id, "subscription")?;
    let it = manage::set_state(&api.app, &tenant, id, state).await?;
    Ok(answer(StatusCode::OK, &document(&it)))
}

/// `PUT /v1/subscriptions/{id}/steps`: the subscriber's own pipeline, in any format.
pub(super) async fn set_steps(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Parameters,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    caller.require("subscriptions:write")?;
    let tenant = tenant(&api, &caller, &query).await?;
    let id = path_id(&id, "subscription")?;
    let it: StepsRequest = read_json(&api, &headers, body, &api.schemas.steps).await?;
    let it = manage::set_steps(&api.app, &tenant, id, it.steps).await?;
    Ok(answer(StatusCode::OK, &document(&it)))
}

/// `PUT /v1/subscriptions/{id}/pace`: how deliveries are made, in any format.
pub(super) async fn set_pace(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Parameters,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    caller.require("subscriptions:write")?;
    let tenant = tenant(&api, &caller, &query).await?;
    let id = path_id(&id, "subscription")?;
    let pace: Pace = read_json(&api, &headers, body, &api.schemas.pace).await?;
    let it = manage::set_pace(&api.app, &tenant, id, pace).await?;
    Ok(answer(StatusCode::OK, &document(&it)))
}

/// `POST /v1/subscriptions/{id}/secret`: a new secret, shown this once. The old one signs beside it for
/// a day.
pub(super) async fn rotate_secret(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Parameters,
) -> Result<Response, Problem> {
    caller.require("subscriptions:write")?;
    let tenant = tenant(&api, &caller, &query).await?;
    let id = path_id(&id, "subscription")?;
    let secret = manage::rotate_secret(&api.app, &tenant, id).await?;
    Ok(answer(StatusCode::CREATED, &json!({"secret": sign::secret_text(&secret.key)})))
}
