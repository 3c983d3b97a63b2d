//! What plugins would do: one plugin on one event, another pipeline on events that were, and another
//! pipeline beside the present one.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hookyard_nouns::clock;
use hookyard_nouns::cloudevent::{Publication, structured};
use hookyard_nouns::digest::Digest;
use hookyard_nouns::event::{Event, Tenant, Violation};
use hookyard_nouns::json::Json;
use hookyard_nouns::refusal::Refusal;
use hookyard_nouns::rendering::{Rendering, Step};
use hookyard_nouns::subscription::{State as Delivering, StepRef, Subscription};
use http::{HeaderValue, StatusCode, header};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::auth::Caller;
use super::exchange::Incoming;
use super::lines::{self, Lines};
use super::problem::Problem;
use super::tried::Tried;
use super::{Api, answer, built, path_id, plugins, read_json, tenant, work};
use crate::app::App;
use crate::fair::Busy;
use crate::index::Index;
use crate::manage;
use crate::schemas;
use crate::trial::{self, Shadow, Totals};

type Parameters = Query<HashMap<String, String>>;

/// How many stored events are looked through for some that a subscription wants.
const SCANNED_MAX: usize = 50_000;
/// How many of them at a time: each may be a megabyte.
const PAGE: usize = 16;
const LINE_PART_BYTES: usize = 64 << 10;
/// How many comparisons are made unless the call says so.
const COMPARED: usize = 100;
const MINUTE_MS: i64 = 60_000;

/// A body that fits `schemas/plugins/try.json`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TryRequest {
    digest: Option<Digest>,
    #[serde(default = "Json::empty_object")]
    config: Json,
    event: Option<Box<RawValue>>,
    event_id: Option<Uuid>,
    sample: Option<Sample>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sample {
    pub(super) format: String,
    #[serde(rename = "type")]
    pub(super) event_type: String,
}

/// `POST /v1/plugins/{name}/try`: a version on a sample, a given event, or one that was accepted.
pub(super) async fn try_plugin(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(plugin): Path<String>,
    Query(query): Parameters,
    incoming: Incoming,
) -> Result<Response, Problem> {
    caller.require("plugins:read")?;
    let it: TryRequest = read_json(&api, incoming, |it| &it.try_plugin).await?;
    let owner = plugins::owner(&api, &caller, &query).await?;
    let name = plugins::name(plugin)?;
    let versions = api.app.store.plugin_versions(owner.as_ref(), &name).await?;
    let version = versions
        .into_iter()
        .find(|version| it.digest.map_or(version.current, |digest| version.digest == digest))
        .ok_or_else(|| Problem::not_found("version of this plugin"))?;
    let event = match (it.event, it.event_id, it.sample) {
        (Some(event), None, None) => given(&api, owner.as_ref(), event).await?,
        (None, Some(id), None) => {
            caller.require("deliveries:read")?;
            let tenant = owner.as_ref().ok_or_else(|| Problem::not_found("event"))?;
            let event = api.app.store.event(tenant, id).await?;
            event.ok_or_else(|| Problem::not_found("event, or its data are no longer kept"))?
        }
        (None, None, Some(sample)) => given(&api, owner.as_ref(), sample_event(&sample)?).await?,
        _ => {
            let detail = "must have one of `event`, `event_id` and `sample`, and not more";
            return Err(Refusal::Invalid(vec![Violation::new("", detail)]).into());
        }
    };
    let payer = &event.tenant;
    let step = manage::check_configuration(&api.app, payer, &version, "", &it.config).await?;
    let step = step.map_err(Refusal::Invalid)?.step;
    let trial = {
        let (runtime, event) = (Arc::clone(&api.app.measuring), Arc::clone(&event));
        let bytes = event.content.bytes() + step.config.len();
        let work = move || trial::try_step(&runtime, &event, &step);
        manage::try_out(&api.app, payer, bytes, work).await?
    };
    let trial = trial.map_err(|fault| Refusal::Unavailable(fault.to_string()))?;
    let budget = plugins::budget(&api.app);
    let digest = version.digest;
    Ok(built(&api, &caller, move || Tried::new(&event, trial, digest, budget)).await?)
}

/// An event that is only tried: it is in the form in which it would be published.
pub(super) async fn given(
    api: &Arc<Api>,
    tenant: Option<&Tenant>,
    event: Box<RawValue>,
) -> Result<Arc<Event>, Problem> {
    let (app, owner) = (Arc::clone(&api.app), tenant.cloned());
    let read = {
        let tenant = owner.clone();
        move || read_given(&app, tenant, event.get())
    };
    work(api, owner, read).await?
}

fn read_given(app: &App, tenant: Option<Tenant>, event: &str) -> Result<Arc<Event>, Problem> {
    let below = |it: Violation| Violation::new(format!("/event/{}", it.field), it.detail);
    let wrong =
        |violations: Vec<Violation>| Refusal::Invalid(violations.into_iter().map(below).collect());
    let sent = structured(Bytes::copy_from_slice(event.as_bytes()));
    let sent = sent.map_err(|refusal| match refusal {
        Refusal::Invalid(violations) => wrong(violations),
        other => other,
    })?;
    let Publication { format, alternate_ids, content, .. } = sent.read().map_err(wrong)?;
    let format = app.formats.get(format.as_deref().unwrap_or("cloudevents")).ok_or_else(|| {
        Refusal::Invalid(vec![Violation::new("/event/format", "is not a format of this router")])
    })?;
    let nobody = || Tenant::new("nobody").expect("it is a name");
    Ok(Arc::new(Event {
        id: Uuid::now_v7(),
        tenant: tenant.unwrap_or_else(nobody),
        format: format.name(),
        content: Arc::new(content),
        alternate_ids,
        accepted_at_ms: clock::now_ms(),
        revision: 0,
    }))
}

/// The sample of a type, as it would be published.
pub(super) fn sample_event(sample: &Sample) -> Result<Box<RawValue>, Problem> {
    let folder = format!("{}/samples", sample.format);
    let found = schemas::folder(&folder).find(|(name, _)| *name == sample.event_type);
    let (_, text) = found.ok_or_else(|| Problem::not_found("sample"))?;
    Ok(RawValue::from_string(text.to_owned()).expect("a sample is JSON"))
}

/// A body that fits `schemas/plugins/compare.json`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CompareRequest {
    steps: Vec<StepRef>,
    events: Option<usize>,
}

/// `POST /v1/subscriptions/{id}/compare`: the present pipeline and a proposed one over the newest events
/// that the subscription wanted. Answers line by line, as it goes on: one for each event, then the totals.
pub(super) async fn compare(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Parameters,
    incoming: Incoming,
) -> Result<Response, Problem> {
    caller.require("subscriptions:read")?;
    caller.require("deliveries:read")?;
    let exchange = Arc::clone(&incoming.exchange);
    let it: CompareRequest = read_json(&api, incoming, |it| &it.compare).await?;
    let subscription = subscription(&api, &caller, &id, &query).await?;
    exchange.stream(&caller)?;
    let proposed = manage::subscriptions::proposed(&api.app, &subscription, it.steps).await?;
    wait_for_code(&api.app, &subscription, &proposed).await?;
    let (app, wanted) = (Arc::clone(&api.app), it.events.unwrap_or(COMPARED));
    let (subscription, proposed) = (Arc::new(subscription), Arc::new(proposed));
    // Ends with its last event, or when nobody reads its lines any more.
    let body = lines::read(|lines| async move {
        Comparing { app, subscription, proposed, wanted, lines }.run().await;
        Ok(())
    });
    let mut response = body.into_response();
    let media_type = HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    Ok(response)
}

/// Whoever compares gets lines or a refusal, and not a refusal as the first line.
async fn wait_for_code(
    app: &App,
    subscription: &Subscription,
    proposed: &Rendering,
) -> Result<(), Refusal> {
    let (runtime, tenant) = (Arc::clone(&app.measuring), Some(subscription.tenant.clone()));
    let steps: Arc<[Step]> =
        subscription.rendering.steps.iter().chain(&proposed.steps).cloned().collect();
    let work = move || runtime.ready(&steps, &tenant);
    // What is wrong with a plugin is a part of the comparison.
    let _ = manage::try_out(app, &subscription.tenant, 0, work).await?;
    Ok(())
}

struct Comparing {
    app: Arc<App>,
    subscription: Arc<Subscription>,
    proposed: Arc<Rendering>,
    wanted: usize,
    lines: Lines,
}

impl Comparing {
    async fn run(self) {
        let last = match self.events().await {
            Ok(totals) => json!({"totals": totals}),
            Err(why) => json!({"error": why}),
        };
        self.line(last.to_string()).await;
    }

    async fn events(&self) -> Result<Totals, String> {
        let mut index = Index::default();
        // As if it had always been as it is now.
        let always =
            Subscription { revision: 0, state: Delivering::Active, ..(*self.subscription).clone() };
        index.put(Arc::new(always));
        let mut totals = Totals::default();
        let (mut before, mut scanned, mut left) = (u64::MAX, 0, self.wanted);
        while left > 0 && scanned < SCANNED_MAX {
            let tenant = &self.subscription.tenant;
            let page = self.app.store.events(tenant, before, PAGE).await;
            let page = page.map_err(|_| "the store cannot be read".to_owned())?;
            let Some(last) = page.last() else { break };
            (before, scanned) = (last.seq, scanned + page.len());
            for it in page {
                if left == 0 || index.matching(&it.event).is_empty() {
                    continue;
                }
                left -= 1;
                let (change, line) = self.compare(it.event).await?;
                totals.count(change);
                self.line(line).await;
            }
        }
        Ok(totals)
    }

    async fn compare(&self, event: Arc<Event>) -> Result<(trial::Change, String), String> {
        let app = Arc::clone(&self.app);
        let (subscription, proposed) = (Arc::clone(&self.subscription), Arc::clone(&self.proposed));
        let bytes = event.content.bytes();
        let work = move || {
            let format = app.format(subscription.format);
            let present = &subscription.rendering;
            let bytes_max = app.settings.delivery_bytes_max;
            let found =
                trial::compare(&app.measuring, format, &event, present, &proposed, bytes_max);
            found.map(|it| (it.change, serde_json::to_string(&it).expect("it is JSON")))
        };
        let compared = manage::try_out(&self.app, &self.subscription.tenant, bytes, work).await;
        let compared = compared.map_err(|refusal| refusal.to_string())?;
        compared.map_err(|fault| fault.to_string())
    }

    /// A long line goes in pieces of itself, which are not copied.
    async fn line(&self, mut line: String) {
        line.push('\n');
        let line = Bytes::from(line);
        for at in (0..line.len()).step_by(LINE_PART_BYTES) {
            self.lines.send(line.slice(at..line.len().min(at + LINE_PART_BYTES))).await;
        }
    }
}

/// A body that fits `schemas/plugins/shadow.json`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ShadowRequest {
    steps: Vec<StepRef>,
    percent: Option<u8>,
    minutes: Option<i64>,
}

/// `POST /v1/subscriptions/{id}/shadow`: a proposed pipeline runs beside the real one for a share of the
/// events, and delivers nothing.
pub(super) async fn begin_shadow(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Parameters,
    incoming: Incoming,
) -> Result<Response, Problem> {
    caller.require("subscriptions:write")?;
    let it: ShadowRequest = read_json(&api, incoming, |it| &it.shadow).await?;
    let subscription = subscription(&api, &caller, &id, &query).await?;
    let steps = it.steps.clone();
    let proposed = manage::subscriptions::proposed(&api.app, &subscription, it.steps).await?;
    let now_ms = clock::now_ms();
    let ends_at_ms = now_ms + it.minutes.unwrap_or(60) * MINUTE_MS;
    let percent = it.percent.unwrap_or(10);
    let tenant = subscription.tenant.clone();
    let shadow = Shadow::new(tenant, steps, proposed, percent, now_ms, ends_at_ms);
    let report = shadow.report();
    api.app.shadows.begin(subscription.id, shadow).map_err(|busy| {
        let detail = match busy {
            Busy::Own => "you have as many shadows as one tenant may have; end one of them",
            Busy::All => "there are as many shadows as there can be; try again later",
        };
        Problem::new(StatusCode::CONFLICT, "too-many-shadows", detail)
    })?;
    Ok(answer(StatusCode::CREATED, &report))
}

/// `GET /v1/subscriptions/{id}/shadow`
pub(super) async fn read_shadow(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Parameters,
) -> Result<Response, Problem> {
    caller.require("subscriptions:read")?;
    let subscription = subscription(&api, &caller, &id, &query).await?;
    let shadow = api.app.shadows.get(subscription.id);
    let shadow = shadow.ok_or_else(|| Problem::not_found("shadow"))?;
    Ok(built(&api, &caller, move || shadow.report()).await?)
}

/// `DELETE /v1/subscriptions/{id}/shadow`
pub(super) async fn end_shadow(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Parameters,
) -> Result<Response, Problem> {
    caller.require("subscriptions:write")?;
    let subscription = subscription(&api, &caller, &id, &query).await?;
    if !api.app.shadows.end(subscription.id) {
        return Err(Problem::not_found("shadow"));
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn subscription(
    api: &Api,
    caller: &Caller,
    id: &str,
    query: &HashMap<String, String>,
) -> Result<Subscription, Problem> {
    let tenant = tenant(api, caller, query).await?;
    let it = api.app.store.subscription(&tenant, path_id(id, "subscription")?).await?;
    it.ok_or_else(|| Problem::not_found("subscription"))
}
