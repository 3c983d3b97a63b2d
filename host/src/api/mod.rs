//! The HTTP surface: our own API under `/v1`, and the providers' under their base paths. The only
//! room that knows axum.

mod auth;
mod binary_mode;
mod budget;
mod capacity;
mod deliveries;
mod events;
mod exchange;
mod export;
mod identities;
mod keys;
mod lines;
mod listen;
mod oauth;
mod page;
mod plugin_logs;
mod plugins;
mod problem;
mod providers;
pub mod receiver;
mod replays;
mod shown;
mod subscriptions;
mod test_event;
mod trials;
mod tried;
mod upload;
mod usage;
mod view;

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Extension, Router};
use hookyard_nouns::event::{Tenant, Violation, is_json_type};
use hookyard_nouns::json::Json;
use hookyard_nouns::refusal::Refusal;
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpListener;

use crate::app::App;
use crate::fair::Owner;
use crate::formats::bearer;
use crate::schemas::{self, Endpoints, Schema};
use crate::supervise::Stop;
use auth::{Caller, Tokens};
use capacity::{Capacity, Work};
use exchange::{Exchange, Incoming};
use problem::Problem;

pub use auth::{hash_token, new_hex_token, new_token};

/// How many things a list answers at once, and at most.
const PAGE: usize = 50;
const PAGE_MAX: usize = 500;
const EVENTS: &str = "/v1/events";
const REPRODUCE: &str = "/v1/deliveries/{id}/reproduce";
/// What says how the router is. Anybody may ask, however much there is to do.
const HEALTH: [&str; 2] = ["/healthz", "/readyz"];
/// What is larger is read, checked and built on threads for it: it takes longer than a call may keep others
/// from being answered.
const SMALL_BYTES: usize = 16 << 10;

/// What every call is lent.
pub(crate) struct Api {
    app: Arc<App>,
    tokens: Tokens,
    schemas: Schemas,
    capacity: Capacity,
}

/// What bodies of our own API have to fit.
struct Schemas {
    create: Schema,
    replace: Schema,
    steps: Schema,
    pace: Schema,
    test: Schema,
    replay: Schema,
    current: Schema,
    deprecation: Schema,
    automatic_rollback: Schema,
    try_plugin: Schema,
    compare: Schema,
    shadow: Schema,
}

impl Schemas {
    fn new(endpoints: Endpoints) -> Schemas {
        let schema = |name: &str| Schema::ours(schemas::file(name), endpoints);
        Schemas {
            create: schema("cloudevents/create.json"),
            replace: schema("cloudevents/replace.json"),
            steps: schema("cloudevents/steps.json"),
            pace: schema("cloudevents/pace.json"),
            test: schema("cloudevents/test.json"),
            replay: schema("cloudevents/replay.json"),
            current: schema("plugins/current.json"),
            deprecation: schema("plugins/deprecation.json"),
            automatic_rollback: schema("plugins/automatic-rollback.json"),
            try_plugin: schema("plugins/try.json"),
            compare: schema("plugins/compare.json"),
            shadow: schema("plugins/shadow.json"),
        }
    }
}

/// Serves until it is to stop, and then until the calls that have begun are answered or the time for it is over.
/// Whoever drops this future ends all connections.
pub async fn serve(app: Arc<App>, listener: TcpListener, stop: Stop) {
    let schemas = Schemas::new(app.settings.endpoints());
    let capacity = Capacity::new(app.settings.api_bytes_max);
    let api = Arc::new(Api { tokens: Tokens::default(), schemas, capacity, app });
    let router = router(&api);
    listen::serve(api, router, listener, stop).await;
}

fn router(api: &Arc<Api>) -> Router {
    let own = Router::new()
        .route(HEALTH[0], get(healthy))
        .route(HEALTH[1], get(ready))
        .route(EVENTS, post(events::publish))
        .route("/v1/events/{id}", get(events::read))
        .route("/v1/identities/{profile}", put(identities::put).get(identities::read))
        .route("/v1/subscriptions", post(subscriptions::create).get(subscriptions::list))
        .route(
            "/v1/subscriptions/{id}",
            get(subscriptions::read).put(subscriptions::replace).delete(subscriptions::delete),
        )
        .route("/v1/subscriptions/{id}/pause", post(subscriptions::pause))
        .route("/v1/subscriptions/{id}/resume", post(subscriptions::resume))
        .route("/v1/subscriptions/{id}/steps", put(subscriptions::set_steps))
        .route("/v1/subscriptions/{id}/pace", put(subscriptions::set_pace))
        .route("/v1/subscriptions/{id}/secret", post(subscriptions::rotate_secret))
        .route("/v1/subscriptions/{id}/test", post(test_event::send))
        .route("/v1/subscriptions/{id}/compare", post(trials::compare))
        .route(
            "/v1/subscriptions/{id}/shadow",
            post(trials::begin_shadow).get(trials::read_shadow).delete(trials::end_shadow),
        )
        .route("/v1/tenants/{tenant}/usage", get(usage::read))
        .route("/v1/signing-keys", get(keys::list))
        .route("/v1/deliveries", get(deliveries::list).delete(deliveries::purge))
        .route("/v1/deliveries/export", get(export::export))
        .route("/v1/counts", get(deliveries::counts))
        .route("/v1/deliveries/{id}", get(deliveries::read))
        .route(REPRODUCE, post(deliveries::reproduce))
        .route("/v1/replays", post(replays::create).get(replays::list))
        .route("/v1/replays/{id}", get(replays::read))
        .route("/v1/replays/{id}/cancel", post(replays::cancel))
        .merge(plugin_routes());
    let own = own
        .fallback(providers::unknown_path)
        .method_not_allowed_fallback(async || {
            let detail = "the method is not allowed here; see the header `Allow`";
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "wrong-method", detail)
        })
        .layer(from_fn(with_host));
    providers::mount(oauth::mount(own, api), api).with_state(Arc::clone(api))
}

/// Refuses what does not say to which host it is sent. Providers have words of their own for it.
async fn with_host(
    Extension(exchange): Extension<Arc<Exchange>>,
    request: Request,
    next: Next,
) -> Response {
    match exchange.check_host() {
        Ok(()) => next.run(request).await,
        Err(refusal) => Problem::from(refusal).into_response(),
    }
}

fn plugin_routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/v1/plugins", get(plugins::list))
        .route("/v1/plugins/{name}", get(plugins::read))
        .route("/v1/plugins/{name}/versions", post(upload::upload).get(plugins::versions))
        .route(
            "/v1/plugins/{name}/versions/{digest}",
            get(plugins::version).delete(plugins::delete),
        )
        .route("/v1/plugins/{name}/versions/{digest}/file", get(plugins::file))
        .route(
            "/v1/plugins/{name}/versions/{digest}/deprecation",
            put(plugins::deprecate).delete(plugins::take_back_deprecation),
        )
        .route("/v1/plugins/{name}/current", put(plugins::make_current))
        .route("/v1/plugins/{name}/rollback", post(plugins::roll_back))
        .route("/v1/plugins/{name}/automatic-rollback", put(plugins::allow_rollback))
        .route("/v1/plugins/{name}/try", post(trials::try_plugin))
        .route("/v1/plugins/{name}/logs", get(plugin_logs::logs))
        .route("/v1/plugins/{name}/usage", get(plugin_logs::usage))
}

/// The process runs.
async fn healthy() -> &'static str {
    "ok\n"
}

/// Every stage works, and the store can be written and read.
async fn ready(State(api): State<Arc<Api>>) -> Result<&'static str, Problem> {
    let not_ready = |why| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not-ready", why);
    if let Some(stage) = api.app.stages.failed() {
        return Err(not_ready(format!("the stage `{stage}` of the router has ended")));
    }
    if let Some(why) = api.app.store.trouble() {
        return Err(not_ready(why));
    }
    api.app.store.token([0; 32]).await?;
    Ok("ok\n")
}

/// A caller whose token is valid, as an argument of a handler. The call waits until it may be worked on.
impl FromRequestParts<Arc<Api>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Caller, Problem> {
        let caller = api.tokens.caller(&api.app, &bearer(&parts.headers)?).await?;
        Exchange::of(&parts.extensions).admit(&caller, work_of(parts)).await?;
        Ok(caller)
    }
}

fn work_of(parts: &Parts) -> Work {
    let route = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
    match route {
        EVENTS => Work::Publish,
        REPRODUCE => Work::Read,
        _ if parts.method.is_safe() => Work::Read,
        _ => Work::Change,
    }
}

/// Does something that may take long on the threads for it, when it is its owner's turn.
async fn work<T: Send + 'static>(
    api: &Api,
    owner: Owner,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refusal> {
    // The bytes have been counted already.
    let done = api.app.parsers.ask(&owner, 0, |()| work()).await;
    done.ok_or_else(|| {
        let text = "too much of yours is being worked on, or it went wrong; try again";
        Refusal::Unavailable(text.to_owned())
    })
}

/// The same, and at once where it is about few bytes.
async fn work_if_large<T: Send + 'static>(
    api: &Api,
    owner: Owner,
    bytes: usize,
    it: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refusal> {
    if bytes <= SMALL_BYTES { Ok(it()) } else { work(api, owner, it).await }
}

/// Reads a JSON body of our own API and checks it.
async fn read_json<T: DeserializeOwned + Send + 'static>(
    api: &Arc<Api>,
    mut incoming: Incoming,
    schema: fn(&Schemas) -> &Schema,
) -> Result<T, Refusal> {
    let media_type = incoming.headers.get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok());
    if !media_type.is_some_and(is_json_type) {
        return Err(Refusal::WrongMediaType("application/json"));
    }
    let bytes = incoming.read(api.app.settings.body_bytes_max).await?;
    incoming.hold(bytes.len() + tree_bytes(&bytes))?;
    let (size, of) = (bytes.len(), Arc::clone(api));
    let read = move || {
        let json = Json::parse(bytes)
            .map_err(|err| Refusal::Malformed(format!("the body is not JSON: {err}")))?;
        let violations =
            schema(&of.schemas).violations(&json.read().expect("JSON is a JSON value"));
        if !violations.is_empty() {
            return Err(Refusal::Invalid(violations));
        }
        serde_json::from_slice(json.bytes())
            .map_err(|err| Refusal::Invalid(vec![Violation::new("", err.to_string())]))
    };
    work_if_large(api, incoming.exchange.owner(), size, read).await?
}

/// About how large a tree of a JSON text can be: an item of an array takes 32 bytes, and a member of an object
/// four times as many.
fn tree_bytes(text: &[u8]) -> usize {
    let count = |byte: u8| memchr::memchr_iter(byte, text).count();
    32 * (count(b',') + count(b'[')) + 128 * count(b':')
}

fn answer(status: StatusCode, body: &impl Serialize) -> Response {
    json_response(status, serde_json::to_string(body).expect("an answer is always JSON"))
}

fn json_response(status: StatusCode, body: impl IntoResponse) -> Response {
    let mut response = (status, body).into_response();
    let media_type = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    response
}

/// Builds an answer that may be large.
async fn built<T: Serialize>(
    api: &Api,
    caller: &Caller,
    build: impl FnOnce() -> T + Send + 'static,
) -> Result<Response, Refusal> {
    let text = move || serde_json::to_string(&build()).expect("an answer is always JSON");
    built_text(api, caller, StatusCode::OK, text).await
}

/// The same, as the text of a JSON document.
async fn built_text(
    api: &Api,
    caller: &Caller,
    status: StatusCode,
    build: impl FnOnce() -> String + Send + 'static,
) -> Result<Response, Refusal> {
    let body = work(api, caller.bound_to().cloned(), build).await?;
    Ok(json_response(status, body))
}

/// The tenant that a call is about: the token's, or the one that the query names.
async fn tenant(
    api: &Api,
    caller: &Caller,
    query: &HashMap<String, String>,
) -> Result<Tenant, Problem> {
    caller.tenant(&api.app, query.get("tenant").map(String::as_str)).await
}

/// Refuses parameters that a route does not have: one with a typing mistake would narrow nothing.
fn check_names(query: &HashMap<String, String>, names: &[&str]) -> Result<(), Problem> {
    let unknown = query.keys().filter(|it| !names.contains(&it.as_str()));
    let violations = Violation::first(unknown.map(|it| {
        let detail = format!("is not a parameter; these are: {}", names.join(", "));
        Violation::new(it.as_str(), detail)
    }));
    match violations.is_empty() {
        true => Ok(()),
        false => Err(Problem::invalid("a parameter of the query is unknown", violations)),
    }
}

/// A parameter of the query, read as a `T`.
fn parameter<T: std::str::FromStr>(
    query: &HashMap<String, String>,
    name: &str,
    what: &str,
) -> Result<Option<T>, Problem> {
    let parse = |text: &String| {
        text.parse().map_err(|_| {
            let violation = Violation::new(name, format!("must be {what}"));
            Problem::invalid("a parameter of the query is wrong", vec![violation])
        })
    };
    query.get(name).map(parse).transpose()
}

/// How many things a list is to answer.
fn page_size(query: &HashMap<String, String>) -> Result<usize, Problem> {
    let limit = parameter(query, "limit", "a number")?.unwrap_or(PAGE);
    Ok(limit.clamp(1, PAGE_MAX))
}

/// An id in a path.
fn path_id(text: &str, what: &str) -> Result<uuid::Uuid, Problem> {
    text.parse().map_err(|_| Problem::not_found(what))
}
