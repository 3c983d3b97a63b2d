//! `/v1/events`: publishing, in the three modes of the CloudEvents HTTP binding 1.0.2.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use bytes::Bytes;
use hookyard_nouns::clock;
use hookyard_nouns::cloudevent::{Publication, Sent, SentData, structured};
use hookyard_nouns::event::{
    AttributeValue, Content, OPERATIONAL_PREFIX, Tenant, Violation, essence,
};
use hookyard_nouns::json::without_mark;
use hookyard_nouns::refusal::Refusal;
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use uuid::Uuid;

use super::auth::Caller;
use super::exchange::{Exchange, Incoming};
use super::problem::Problem;
use super::view::EventText;
use super::{Api, answer, binary_mode, json_response, path_id, tenant, work, work_if_large};
use crate::app::App;
use crate::formats::{Format, Formats};
use crate::store::{Accepted, NewEvent};

const STRUCTURED: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";
const MEDIA_TYPES: &str = "`application/cloudevents+json`, `application/cloudevents-batch+json`, or \
     the data themselves with `ce-` headers (CloudEvents binary mode)";

/// How much an answer tells of what is wrong with the events of a batch.
const TOLD_BYTES_MAX: usize = 256 << 10;
const TOO_MUCH: StatusCode = StatusCode::TOO_MANY_REQUESTS;

/// How one event, or several, are sent.
enum Mode {
    Structured,
    Batch,
    /// The attributes are headers.
    Binary(Vec<(String, AttributeValue)>),
}

/// `POST /v1/events`
pub(super) async fn publish(
    State(api): State<Arc<Api>>,
    caller: Caller,
    mut incoming: Incoming,
) -> Result<Response, Problem> {
    caller.require("events:write")?;
    let mode = mode(&incoming.headers)?;
    let body = incoming.read(api.app.settings.body_bytes_max).await?;
    let (size, owner, app) = (body.len(), caller.bound_to().cloned(), Arc::clone(&api.app));
    let mut accounts = Accounts { api: &api, caller: &caller, known: HashMap::new() };
    if let Mode::Batch = mode {
        let read = work(&api, owner, move || batch(&app, &body)).await??;
        return accept_batch(&api, &mut accounts, read).await;
    }
    let read = move || match mode {
        Mode::Binary(attributes) => {
            let data = if body.is_empty() { SentData::None } else { SentData::Body(body) };
            checked(&app, Sent { attributes, data })
        }
        Mode::Structured | Mode::Batch => checked(&app, structured(body).map_err(refused)?),
    };
    let event = work_if_large(&api, owner, size, read).await??;
    let event = accounts.take(event).await?;
    let accepted = api.app.store.accept(vec![event]).await?;
    let it = accepted.first().expect("each event has an answer");
    Ok(answer(StatusCode::ACCEPTED, it))
}

fn mode(headers: &HeaderMap) -> Result<Mode, Problem> {
    let media_type = binary_mode::media_type(headers).map_err(|it| invalid(vec![it]))?;
    let named = media_type.map(essence).unwrap_or_default();
    if named == BATCH {
        Ok(Mode::Batch)
    } else if named == STRUCTURED {
        Ok(Mode::Structured)
    } else if headers.contains_key("ce-specversion") {
        binary_mode::attributes(headers, media_type).map(Mode::Binary).map_err(invalid)
    } else {
        Err(Refusal::WrongMediaType(MEDIA_TYPES).into())
    }
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

/// The events of a batch, each checked by itself.
fn batch(app: &App, body: &Bytes) -> Result<Vec<Result<Checked, Problem>>, Problem> {
    let body = &without_mark(body);
    let items: Vec<&RawValue> = serde_json::from_slice(body)
        .map_err(|err| Refusal::Malformed(format!("the body is not a JSON array: {err}")))?;
    let events_max = app.settings.batch_events_max;
    if items.len() > events_max {
        let detail =
            format!("a batch has at most {events_max} events, and this one {}", items.len());
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-many-events", detail));
    }
    let mut told = 0;
    let read = items.into_iter().map(|item| {
        let sent = structured(body.slice_ref(item.get().as_bytes())).map_err(refused);
        let problem = match sent.and_then(|sent| checked(app, sent)) {
            Ok(event) => return Ok(event),
            Err(problem) => problem,
        };
        told += problem.errors_bytes();
        Err(if told > TOLD_BYTES_MAX { problem.without_errors() } else { problem })
    });
    Ok(read.collect())
}

async fn accept_batch(
    api: &Api,
    accounts: &mut Accounts<'_>,
    read: Vec<Result<Checked, Problem>>,
) -> Result<Response, Problem> {
    let mut events = Vec::with_capacity(read.len());
    let mut places = Vec::with_capacity(read.len());
    let mut rejected = Vec::new();
    for (index, event) in read.into_iter().enumerate() {
        let event = match event {
            Ok(event) => accounts.take(event).await,
            Err(problem) => Err(problem),
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

fn refused(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::Invalid(violations) => invalid(violations),
        other => other.into(),
    }
}

fn invalid(violations: Vec<Violation>) -> Problem {
    Problem::invalid("the event is not one that we take", violations)
}

/// An event that has been checked by itself.
struct Checked {
    /// The account that it names, where it names one.
    tenant: Option<String>,
    format: &'static str,
    profile: Option<String>,
    content: Content,
    alternate_ids: Vec<(String, String)>,
}

/// Checks an event, and takes out of it what is for the router alone.
fn checked(app: &App, sent: Sent) -> Result<Checked, Problem> {
    let Publication { tenant, format, alternate_ids, mut content } =
        sent.read().map_err(invalid)?;
    let format = find_format(&app.formats, format.as_deref().unwrap_or("cloudevents"))?;
    let event_type = &mut content.attributes.event_type;
    if event_type.starts_with(OPERATIONAL_PREFIX) {
        let rule = "must not begin with `hookyard.`: those are the router's own events";
        return Err(invalid(vec![Violation::new("type", rule)]));
    }
    if let Some(catalogue) = format.catalogue() {
        *event_type = catalogue.canonical(event_type).to_owned();
        catalogue.complete(&mut content).map_err(|it| invalid(vec![it]))?;
        catalogue.check(&content).map_err(invalid)?;
    }
    let profile = format.profile(&content);
    Ok(Checked { tenant, format: format.name(), profile, content, alternate_ids })
}

fn find_format<'a>(formats: &'a Formats, name: &str) -> Result<&'a dyn Format, Problem> {
    formats.get(name).ok_or_else(|| {
        let names: Vec<_> = formats.iter().map(|it| format!("`{}`", it.name())).collect();
        invalid(vec![Violation::new("format", format!("must be one of {}", names.join(", ")))])
    })
}

/// The accounts that the events of a call are for. Each is looked for once a call, and not for each event.
struct Accounts<'a> {
    api: &'a Api,
    caller: &'a Caller,
    known: HashMap<Option<String>, Result<Tenant, Problem>>,
}

impl Accounts<'_> {
    /// Takes an event for the account that it names.
    async fn take(&mut self, it: Checked) -> Result<NewEvent, Problem> {
        if !self.known.contains_key(&it.tenant) {
            let found = self.find(it.tenant.as_deref()).await;
            self.known.insert(it.tenant.clone(), found);
        }
        Ok(NewEvent {
            id: Uuid::now_v7(),
            tenant: self.known[&it.tenant].clone()?,
            format: it.format,
            profile: it.profile,
            content: Arc::new(it.content),
            alternate_ids: it.alternate_ids,
            accepted_at_ms: clock::now_ms(),
        })
    }

    /// An account, where it may publish more.
    async fn find(&self, named: Option<&str>) -> Result<Tenant, Problem> {
        let app = &self.api.app;
        let tenant = self.caller.tenant(app, named).await?;
        match app.backlogs.refusal(app, &tenant) {
            Some(why) => Err(Problem::new(TOO_MUCH, "too-much-waits", why).with_retry()),
            None => Ok(tenant),
        }
    }
}

/// `GET /v1/events/{id}`
pub(super) async fn read(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Extension(exchange): Extension<Arc<Exchange>>,
    Path(id): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Result<Response, Problem> {
    caller.require("deliveries:read")?;
    let tenant = tenant(&api, &caller, &query).await?;
    let event = api.app.store.event(&tenant, path_id(&id, "event")?).await?;
    let event = event.ok_or_else(|| Problem::not_found("event"))?;
    exchange.hold_answer(event.content.data_bytes())?;
    Ok(json_response(StatusCode::OK, EventText::new(event).into_body()))
}
