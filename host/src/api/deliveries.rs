//! `/v1/deliveries`: the delivery log.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::response::Response;
use hookyard_nouns::clock;
use hookyard_nouns::delivery::{Attempt, Delivery, DeliveryState};
use hookyard_nouns::digest::Digest;
use hookyard_nouns::event::{Tenant, Violation};
use hookyard_nouns::plugin::PluginRef;
use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::auth::Caller;
use super::page::Page;
use super::plugin_logs::line;
use super::problem::Problem;
use super::{Api, PAGE_MAX, answer, built, check_names, page_size, parameter, path_id, tenant};
use crate::store::{self, Counts, CountsQuery, DeliveryQuery, LogQuery, Place};
use crate::trial::Reproduction;

/// How many deliveries are read or purged at a time.
const PART: usize = 200;
/// How many steps of counts are answered at most: those of a day.
const STEPS_MAX: i64 = 1_440;
/// The parameters of a search.
const SEARCHED_BY: [&str; 13] = [
    "tenant",
    "subscription",
    "endpoint",
    "event",
    "type",
    "subject",
    "state",
    "reason",
    "status",
    "from",
    "to",
    "before",
    "limit",
];
const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;

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
        "passed_over": it.passed_over,
        "created_at": clock::rfc3339(it.created_at_ms),
    })
}

fn attempt(it: &Attempt, plugins: &HashMap<Digest, Vec<Digest>>) -> Value {
    let headers = it.detail.headers.iter();
    json!({
        "number": it.number,
        "at": clock::rfc3339(it.at_ms),
        "duration_ms": it.duration_ms,
        "dns_us": it.detail.dns_us,
        "connect_us": it.detail.connect_us,
        "tls_us": it.detail.tls_us,
        "first_byte_us": it.detail.first_byte_us,
        "plugins_us": it.detail.plugins_us,
        "request_headers": headers.map(|(name, value)| json!([name, value])).collect::<Value>(),
        "body_digest": it.body,
        "rendering": it.rendering,
        "plugins": plugins.get(&it.rendering),
        "status": it.status,
        "answer": String::from_utf8_lossy(&it.answer),
        "error": it.error,
    })
}

/// `GET /v1/deliveries`, newest events first. See [`search`] for what narrows it.
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Query(query): Query<HashMap<String, String>>,
) -> Result<Response, Problem> {
    caller.require("deliveries:read")?;
    let tenant = tenant(&api, &caller, &query).await?;
    let page = api.app.store.deliveries(&tenant, search(&query)?).await?;
    let shown = move || {
        let found: Vec<Value> = page.deliveries.iter().map(document).collect();
        json!({"deliveries": found, "next": page.next.map(|it| it.to_string())})
    };
    Ok(built(&api, &caller, shown).await?)
}

/// What the parameters of a query look for.
pub(super) fn search(query: &HashMap<String, String>) -> Result<DeliveryQuery, Problem> {
    check_names(query, &SEARCHED_BY)?;
    let subscription = parameter(query, "subscription", "the id of a subscription")?;
    Ok(DeliveryQuery {
        subscriptions: subscription.map(|id| vec![id]),
        endpoint: query.get("endpoint").cloned(),
        event: parameter(query, "event", "the id of an event")?,
        event_type: query.get("type").cloned(),
        subject: query.get("subject").cloned(),
        states: query.get("state").map(|text| states(text)).transpose()?.unwrap_or_default(),
        reason: query.get("reason").cloned(),
        status: parameter(query, "status", "the status of an answer, such as `503`")?,
        from_ms: time(query, "from")?,
        to_ms: time(query, "to")?,
        after: place(query)?,
        limit: page_size(query)?,
        ..DeliveryQuery::default()
    })
}

fn place(query: &HashMap<String, String>) -> Result<Option<Place>, Problem> {
    let rule = "the `next` of a page before";
    let place: Option<Place> = parameter(query, "before", rule)?;
    // What is larger is no number of a row.
    let is_there = |it: u64| i64::try_from(it).is_ok();
    match place {
        Some(it) if !is_there(it.event_seq) || !is_there(it.seq) => {
            Err(wrong("before", format!("must be {rule}")))
        }
        place => Ok(place),
    }
}

fn time(query: &HashMap<String, String>, name: &str) -> Result<Option<i64>, Problem> {
    let Some(text) = query.get(name) else { return Ok(None) };
    let ms = clock::parse_rfc3339(text);
    ms.map(Some).ok_or_else(|| {
        // In a query, a bare `+` is a space.
        let hint = match clock::parse_rfc3339(&text.replace(' ', "+")) {
            Some(_) => "; in a query, `+` is written as `%2B`",
            None => "",
        };
        wrong(name, format!("must be a time such as `2026-01-31T12:00:00Z`{hint}"))
    })
}

fn wrong(name: &str, rule: impl Into<String>) -> Problem {
    Problem::invalid("a parameter of the query is wrong", vec![Violation::new(name, rule)])
}

/// Each once, however often it is named.
fn states(text: &str) -> Result<Vec<DeliveryState>, Problem> {
    let mut states = Vec::new();
    for name in text.split(',') {
        let state = DeliveryState::parse(name).ok_or_else(|| {
            let names = DeliveryState::ALL.map(DeliveryState::as_str).join(", ");
            wrong("state", format!("must be one of {names}, or several with commas between them"))
        })?;
        if !states.contains(&state) {
            states.push(state);
        }
    }
    Ok(states)
}

/// A delivery with all that is known of it.
pub(super) struct Whole {
    delivery: Delivery,
    attempts: Vec<Attempt>,
    /// The plugins of each rendering.
    plugins: HashMap<Digest, Vec<Digest>>,
}

/// A delivery with its attempts.
pub(super) async fn whole(
    api: &Api,
    tenant: &Tenant,
    delivery: Delivery,
    attempts: Vec<Attempt>,
) -> store::Result<Whole> {
    let mut plugins = HashMap::new();
    for attempt in &attempts {
        if !plugins.contains_key(&attempt.rendering)
            && let Some(rendering) = api.app.store.rendering(tenant, attempt.rendering).await?
        {
            let steps = rendering.steps.iter().map(|step| step.plugin).collect();
            plugins.insert(attempt.rendering, steps);
        }
    }
    Ok(Whole { delivery, attempts, plugins })
}

impl Whole {
    pub(super) fn show(&self) -> Value {
        let mut body = document(&self.delivery);
        body["attempts"] = self.attempts.iter().map(|it| attempt(it, &self.plugins)).collect();
        body
    }
}

/// `DELETE /v1/deliveries`: forgets the dead, failed, filtered and cancelled ones that a search finds, and
/// those alone: without `state`, the dead and the failed ones.
pub(super) async fn purge(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Query(query): Query<HashMap<String, String>>,
) -> Result<Response, Problem> {
    caller.require("deliveries:write")?;
    let tenant = tenant(&api, &caller, &query).await?;
    let mut search = DeliveryQuery { limit: PART, ..search(&query)? };
    if search.states.is_empty() {
        search.states = vec![DeliveryState::Dead, DeliveryState::Failed];
    }
    let is_dead = |it: &DeliveryState| it.is_settled() && *it != DeliveryState::Delivered;
    if !search.states.iter().all(is_dead) {
        return Err(wrong("state", "must be some of `dead`, `failed`, `filtered`, `cancelled`"));
    }
    let mut purged = 0;
    loop {
        let page = api.app.store.deliveries(&tenant, search.clone()).await?;
        let ids: Vec<Uuid> = page.deliveries.iter().map(|it| it.id).collect();
        if !ids.is_empty() {
            purged += api.app.store.purge(&tenant, ids).await?;
        }
        match page.next {
            Some(next) => search.after = Some(next),
            None => return Ok(answer(StatusCode::OK, &json!({"purged": purged}))),
        }
    }
}

/// `GET /v1/counts`: what happened from one time to another, in steps of so many minutes.
pub(super) async fn counts(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Query(query): Query<HashMap<String, String>>,
) -> Result<Response, Problem> {
    caller.require("deliveries:read")?;
    check_names(&query, &["tenant", "subscription", "from", "to", "step_minutes"])?;
    let tenant = tenant(&api, &caller, &query).await?;
    let to_ms = time(&query, "to")?.unwrap_or_else(|| clock::now_ms() + MINUTE_MS);
    let from_ms = time(&query, "from")?.unwrap_or(to_ms - HOUR_MS);
    let step = parameter(&query, "step_minutes", "a number of minutes")?.unwrap_or(1);
    let wanted = (to_ms - from_ms) / MINUTE_MS / i64::from(step.max(1));
    if step == 0 || wanted > STEPS_MAX {
        let rule = format!("must leave at most {STEPS_MAX} steps between `from` and `to`");
        return Err(wrong("step_minutes", rule));
    }
    let subscription = parameter(&query, "subscription", "the id of a subscription")?;
    let search = CountsQuery { subscription, from_ms, to_ms, step_minutes: step };
    let counts = api.app.store.counts(&tenant, search).await?;
    let step_shown = |(at_ms, it): &(i64, Counts)| {
        json!({
            "at": clock::rfc3339(*at_ms),
            "events": it.events,
            "duplicates": it.duplicates,
            "attempts": it.attempts,
            "attempts_failed": it.attempts_failed,
            "delivered": it.delivered,
            "dead": it.dead,
            "failed": it.failed,
            "filtered": it.filtered,
            "duration_ms_mean": it.duration_ms.checked_div(it.attempts),
            "duration_ms_max": it.duration_max_ms,
        })
    };
    let shown = move || {
        let counts: Vec<Value> = counts.iter().map(step_shown).collect();
        json!({"step_minutes": step, "counts": counts})
    };
    Ok(built(&api, &caller, shown).await?)
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
    let lines = LogQuery {
        event: Some(delivery.event_id),
        subscription: Some(delivery.subscription_id),
        after: Some(0),
        limit: PAGE_MAX,
        ..LogQuery::default()
    };
    let lines = api.app.store.plugin_log(&tenant, lines).await?;
    let whole = whole(&api, &tenant, delivery, attempts).await?;
    let shown = move || {
        let mut body = whole.show();
        let page = Page::of("log", &lines, |(seq, it)| line(*seq, it));
        // The others are found by the log of the plugin.
        body["log_cut"] = (page.count() < lines.len()).into();
        body["log"] = page.into_list();
        body
    };
    Ok(built(&api, &caller, shown).await?)
}

#[derive(Serialize)]
struct Reproducible {
    #[serde(flatten)]
    reproduction: Reproduction,
    /// Where to get the files of the plugins.
    plugins: Vec<Value>,
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
    let rendering = store.rendering(&tenant, delivery.rendering).await?;
    let rendering = rendering.ok_or_else(|| Problem::not_found("rendering"))?;
    let mut plugins = Vec::new();
    for step in &rendering.steps {
        let version = store.find_plugin(Some(&tenant), &PluginRef::Digest(step.plugin)).await?;
        let name = version.map(|it| it.name);
        let href =
            name.as_ref().map(|it| format!("/v1/plugins/{it}/versions/{}/file", step.plugin));
        plugins.push(json!({"digest": step.plugin, "name": name, "href": href}));
    }
    let shown = move || Reproducible {
        reproduction: Reproduction::new(&delivery, &event, rendering),
        plugins,
    };
    Ok(built(&api, &caller, shown).await?)
}
