//! The HTTP surface: our own API under `/v1`, and the providers' under their base paths. The only
//! room that knows axum.

mod auth;
mod deliveries;
mod events;
mod identities;
mod keys;
mod oauth;
mod plugin_logs;
mod plugins;
mod problem;
mod providers;
pub mod receiver;
mod replays;
mod subscriptions;
mod test_event;
mod trials;
mod upload;

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::BodyExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpListener;

use crate::app::App;
use crate::event::{Tenant, Violation, is_json_type};
use crate::formats::{Refusal, bearer};
use crate::json::Json;
use crate::schemas::{self, Endpoints, Schema};
use auth::{Caller, Tokens};
use problem::Problem;

pub use auth::{hash_token, new_token};

/// How many things a list answers at once, and at most.
const PAGE: usize = 50;
const PAGE_MAX: usize = 500;
/// How much of a body that is too large is read all the same.
const DISCARDED_BYTES_MAX: usize = 16 << 20;

/// What every call is lent.
pub(crate) struct Api {
    app: Arc<App>,
    tokens: Tokens,
    schemas: Schemas,
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

/// Serves until `stop` ends, and then until the calls that have begun are answered.
///
/// # Errors
///
/// The listener breaks.
pub async fn serve(
    app: Arc<App>,
    listener: TcpListener,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    axum::serve(listener, router(app)).with_graceful_shutdown(stop).await
}

fn router(app: Arc<App>) -> Router {
    let schemas = Schemas::new(app.settings.endpoints());
    let api = Arc::new(Api { tokens: Tokens::default(), schemas, app });
    let own = Router::new()
        .route("/healthz", get(healthy))
        .route("/readyz", get(ready))
        .route("/v1/events", post(events::publish))
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
        .route("/v1/signing-keys", get(keys::list))
        .route("/v1/deliveries", get(deliveries::list).delete(deliveries::purge))
        .route("/v1/deliveries/export", get(deliveries::export))
        .route("/v1/counts", get(deliveries::counts))
        .route("/v1/deliveries/{id}", get(deliveries::read))
        .route("/v1/deliveries/{id}/reproduce", post(deliveries::reproduce))
        .route("/v1/replays", post(replays::create).get(replays::list))
        .route("/v1/replays/{id}", get(replays::read))
        .route("/v1/replays/{id}/cancel", post(replays::cancel))
        .merge(plugin_routes());
    let all = providers::mount(oauth::mount(own, &api), &api);
    all.fallback(async || Problem::not_found("path"))
        .method_not_allowed_fallback(async || {
            let detail = "the method is not allowed here; see the header `Allow`";
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "wrong-method", detail)
        })
        .with_state(api)
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

/// The store can be read.
async fn ready(State(api): State<Arc<Api>>) -> Result<&'static str, Problem> {
    api.app.store.token([0; 32]).await?;
    Ok("ok\n")
}

/// A caller whose token is valid, as an argument of a handler.
impl FromRequestParts<Arc<Api>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Caller, Problem> {
        Ok(api.tokens.caller(&api.app, &bearer(&parts.headers)?).await?)
    }
}

/// Reads a body of at most so many bytes. What is too large is read on for a while and thrown away:
/// who is still sending would not see our answer.
async fn read_body(
    mut body: Body,
    headers: &HeaderMap,
    bytes_max: usize,
) -> Result<Bytes, Refusal> {
    let announced =
        headers.get(header::CONTENT_LENGTH).and_then(|it| it.to_str().ok()?.parse().ok());
    let mut too_large = announced.is_some_and(|bytes: usize| bytes > bytes_max);
    let mut first = Bytes::new();
    let mut rest = Vec::new();
    let mut size = 0;
    while let Some(frame) = body.frame().await {
        let broken = || Refusal::Malformed("the body ended before its time".to_owned());
        let Ok(chunk) = frame.map_err(|_| broken())?.into_data() else { continue };
        size += chunk.len();
        too_large |= size > bytes_max;
        if too_large {
            if size > bytes_max + DISCARDED_BYTES_MAX {
                break;
            }
        } else if first.is_empty() {
            // One frame is the rule, and then nothing is copied.
            first = chunk;
        } else {
            rest.extend_from_slice(&chunk);
        }
    }
    if too_large {
        return Err(Refusal::TooLarge { bytes_max });
    }
    Ok(if rest.is_empty() { first } else { [&first[..], &rest].concat().into() })
}

/// Reads a JSON body of our own API and checks it.
async fn read_json<T: DeserializeOwned>(
    api: &Api,
    headers: &HeaderMap,
    body: Body,
    schema: &Schema,
) -> Result<T, Refusal> {
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok());
    if !media_type.is_some_and(is_json_type) {
        return Err(Refusal::WrongMediaType("application/json"));
    }
    let bytes = read_body(body, headers, api.app.settings.body_bytes_max).await?;
    let json = Json::parse(bytes)
        .map_err(|err| Refusal::Malformed(format!("the body is not JSON: {err}")))?;
    let violations = schema.violations(&json.read().expect("JSON is a JSON value"));
    if !violations.is_empty() {
        return Err(Refusal::Invalid(violations));
    }
    serde_json::from_slice(json.bytes())
        .map_err(|err| Refusal::Invalid(vec![Violation::new("", err.to_string())]))
}

fn answer(status: StatusCode, body: &impl Serialize) -> Response {
    let body = serde_json::to_string(body).expect("an answer is always JSON");
    let mut response = (status, body).into_response();
    let media_type = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    response
}

/// The tenant that a call is about: the token's, or the one that the query names.
async fn tenant(
    api: &Api,
    caller: &Caller,
    query: &HashMap<String, String>,
) -> Result<Tenant, Problem> {
    caller.tenant(&api.app, query.get("tenant").map(String::as_str)).await
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
