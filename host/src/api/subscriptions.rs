//! `/v1/subscriptions`: our own format, and what subscriptions of every format have in common.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use hookyard_nouns::clock;
use hookyard_nouns::event::Tenant;
use hookyard_nouns::refusal::Refusal;
use hookyard_nouns::subscription::{
    Draft, Filter, NewSecret, Pace, State as Delivering, StepRef, Subscription,
};
use http::{HeaderValue, StatusCode, header};
use serde::Deserialize;
use serde_json::json;
use url::Url;
use uuid::Uuid;

use super::auth::Caller;
use super::exchange::Incoming;
use super::page::Page;
use super::problem::Problem;
use super::shown::{Shown, Standing};
use super::{
    Api, Schemas, answer, built_text, json_response, page_size, parameter, path_id, read_json,
    tenant,
};
use crate::formats::Format;
use crate::manage::subscriptions as manage;
use crate::schemas::Schema;
use crate::sign;
use crate::store::{self, CountsQuery, Store};

/// How many subscriptions are read at a time, and how many bytes of them for a page.
const READ: usize = 16;
const PAGE_BYTES_MAX: usize = 2 << 20;

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
    api: &Arc<Api>,
    incoming: Incoming,
    schema: fn(&Schemas) -> &Schema,
) -> Result<Draft, Problem> {
    let it: Request = read_json(api, incoming, schema).await?;
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

/// What is answered when a subscription is other than before. It is told in any case: where the threads for
/// large answers have no room for it, it is built here.
async fn changed(
    api: &Api,
    caller: &Caller,
    status: StatusCode,
    it: Subscription,
    secret: Option<String>,
) -> Response {
    let it = Arc::new(it);
    let show = move || {
        let mut shown = Shown::new(&it);
        shown.secret = secret.clone();
        serde_json::to_string(&shown).expect("an answer is always JSON")
    };
    match built_text(api, caller, status, show.clone()).await {
        Ok(response) => response,
        Err(_) => json_response(status, show()),
    }
}

/// `POST /v1/subscriptions`. The answer shows the secret, this once.
pub(super) async fn create(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Query(query): Parameters,
    incoming: Incoming,
) -> Result<Response, Problem> {
    caller.require("subscriptions:write")?;
    let tenant = tenant(&api, &caller, &query).await?;
    let draft = draft(&api, incoming, |it| &it.create).await?;
    let it = manage::create(&api.app, &tenant, own_format(&api), draft).await?;
    let location = format!("/v1/subscriptions/{}", it.id);
    let secret = sign::secret_text(&it.secrets[0].key);
    let mut response = changed(&api, &caller, StatusCode::CREATED, it, Some(secret)).await;
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
    let store = api.app.store.as_ref();
    let (all, has_more) = read_until(store, &tenant, None, after, limit, PAGE_BYTES_MAX).await?;
    let shown = move || {
        let page = Page::of("subscriptions", &all, Shown::new);
        let next = (has_more || page.count() < all.len()).then(|| all[page.count() - 1].id);
        page.into_text(next)
    };
    Ok(built_text(&api, &caller, StatusCode::OK, shown).await?)
}

/// Reads subscriptions until there are so many, or so many bytes of them. Answers whether there may be more.
pub(super) async fn read_until(
    store: &dyn Store,
    tenant: &Tenant,
    format: Option<&'static str>,
    after: Option<Uuid>,
    count_max: usize,
    bytes_max: usize,
) -> store::Result<(Vec<Subscription>, bool)> {
    let mut all: Vec<Subscription> = Vec::new();
    let mut bytes = 0;
    while all.len() < count_max && bytes < bytes_max {
        let limit = READ.min(count_max - all.len());
        let after = all.last().map(|it| it.id).or(after);
        let some = store.subscriptions(tenant, format, after, limit).await?;
        if some.is_empty() {
            return Ok((all, false));
        }
        bytes += some.iter().map(size).sum::<usize>();
        all.extend(some);
    }
    Ok((all, true))
}

/// About how many bytes a subscription has. What a format keeps of it is little beside what it selects by.
pub(super) fn size(it: &Subscription) -> usize {
    const REST: usize = 512;
    let values = it.filters.iter().flat_map(|it| &it.attributes).flat_map(|(_, values)| values);
    let values: usize = values.map(|it| it.len() + size_of::<String>()).sum();
    let configs: usize = it.rendering.steps.iter().map(|it| it.config.len()).sum();
    REST + 2 * (values + configs)
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
    let (subscription, from_ms, to_ms) = (Some(it.id), 0, i64::MAX);
    let ever = CountsQuery { subscription, from_ms, to_ms, step_minutes: u32::MAX };
    let counts = api.app.store.counts(&tenant, ever).await?;
    let filtered = counts.first().map_or(0, |(_, it)| it.filtered);
    let quarantine = api.app.health.quarantine_of(it.id);
    let text = move || {
        let quarantine = quarantine.map(|quarantine| {
            let mut shown = json!(quarantine);
            shown["since"] = clock::rfc3339(quarantine.since_ms).into();
            shown["next_probe_at"] = clock::rfc3339(quarantine.probe_at_ms).into();
            shown
        });
        let mut shown = Shown::new(&it);
        shown.standing = Some(Standing { filtered, quarantine });
        serde_json::to_string(&shown).expect("an answer is always JSON")
    };
    Ok(built_text(&api, &caller, StatusCode::OK, text).await?)
}

/// `PUT /v1/subscriptions/{id}`: of our own format alone.
pub(super) async fn replace(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Parameters,
    incoming: Incoming,
) -> Result<Response, Problem> {
    caller.require("subscriptions:write")?;
    let tenant = tenant(&api, &caller, &query).await?;
    let id = path_id(&id, "subscription")?;
    let draft = draft(&api, incoming, |it| &it.replace).await?;
    let present = api.app.store.subscription(&tenant, id).await?;
    let format = present.ok_or_else(|| Problem::not_found("subscription"))?.format;
    if format != own_format(&api).name() {
        let detail = format!("the subscription is in the format `{format}`; change it by that API");
        return Err(Problem::new(StatusCode::CONFLICT, "other-format", detail));
    }
    let it = manage::replace(&api.app, &tenant, own_format(&api), id, draft).await?;
    Ok(changed(&api, &caller, StatusCode::OK, it, None).await)
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
    Ok(changed(api, caller, StatusCode::OK, it, None).await)
}

/// `PUT /v1/subscriptions/{id}/steps`: the subscriber's own pipeline, in any format.
pub(super) async fn set_steps(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Parameters,
    incoming: Incoming,
) -> Result<Response, Problem> {
    caller.require("subscriptions:write")?;
    let tenant = tenant(&api, &caller, &query).await?;
    let id = path_id(&id, "subscription")?;
    let it: StepsRequest = read_json(&api, incoming, |it| &it.steps).await?;
    let it = manage::set_steps(&api.app, &tenant, id, it.steps).await?;
    Ok(changed(&api, &caller, StatusCode::OK, it, None).await)
}

/// `PUT /v1/subscriptions/{id}/pace`: how deliveries are made, in any format.
pub(super) async fn set_pace(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Parameters,
    incoming: Incoming,
) -> Result<Response, Problem> {
    caller.require("subscriptions:write")?;
    let tenant = tenant(&api, &caller, &query).await?;
    let id = path_id(&id, "subscription")?;
    let pace: Pace = read_json(&api, incoming, |it| &it.pace).await?;
    let it = manage::set_pace(&api.app, &tenant, id, pace).await?;
    Ok(changed(&api, &caller, StatusCode::OK, it, None).await)
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
