//! The providers' APIs, under their base paths. Each format translates; what is done is the same.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use bytes::Bytes;
use hookyard_nouns::clock;
use hookyard_nouns::event::{Tenant, Violation};
use hookyard_nouns::refusal::Refusal;
use hookyard_nouns::subscription::Subscription;
use http::{HeaderMap, HeaderValue, Method, Uri, header};
use serde_json::json;

use super::auth::Caller;
use super::capacity::Work;
use super::exchange::{Exchange, Incoming};
use super::listen::lock;
use super::problem::Problem;
use super::subscriptions::{read_until, size};
use super::{Api, SMALL_BYTES, tree_bytes, work, work_if_large};
use crate::fair::Owner;
use crate::formats::{self, Answer, Call, Done, Format, Granted, Operation, TokenPlace};
use crate::manage::subscriptions as manage;
use crate::store::Store;

/// How many subscriptions a provider's list can hold, and how many bytes they may be: their APIs give out the
/// whole list, or count all of it for each page.
const LIST_MAX: usize = 10_000;
const LIST_BYTES_MAX: usize = 16 << 20;
/// How large a body may be that has its token in it.
const STRANGE_BODY_BYTES_MAX: usize = 64 << 10;

pub(super) fn mount(mut router: Router<Arc<Api>>, api: &Arc<Api>) -> Router<Arc<Api>> {
    for format in api.app.formats.iter() {
        let Some(provider) = format.api() else { continue };
        let name = format.name();
        for route in provider.routes() {
            let route = *route;
            let handler = async move |State(api): State<Arc<Api>>,
                                      method: Method,
                                      parameters: Result<RawPathParams, RawPathParamsRejection>,
                                      RawQuery(query): RawQuery,
                                      mut incoming: Incoming| {
                let pairs = parameters.iter().flat_map(RawPathParams::iter);
                let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
                // What is not UTF-8 names nothing that there is, like a parameter that is not there.
                let parameters = pairs.collect();
                let query = query.unwrap_or_default();
                let headers = std::mem::take(&mut incoming.headers);
                // Of an answer to `HEAD`, the connection sends the head.
                let method = if method == Method::HEAD { Method::GET } else { method };
                let base = base(&headers, api.app.settings.forwarded_headers, name);
                let body = Bytes::new();
                let call = Call { method, route, parameters, query, headers, base, body };
                respond(&api, name, call, incoming).await
            };
            // Clients join their base and their paths in more than one way.
            router = router.route(&format!("/{name}{route}"), any(handler));
            router = router.route(&format!("/{name}{route}/"), any(handler));
        }
    }
    router
}

/// How a client reaches the base path of a format, as far as the headers say so.
fn base(headers: &HeaderMap, forwarded: bool, name: &str) -> String {
    let first = |name: &str| {
        let text = headers.get(name)?.to_str().ok()?;
        text.split(',').next().map(str::trim).filter(|it| !it.is_empty())
    };
    let believed = |name: &str| if forwarded { first(name) } else { None };
    let is_https = believed("x-forwarded-proto").is_some_and(|it| it.eq_ignore_ascii_case("https"));
    let scheme = if is_https { "https" } else { "http" };
    match believed("x-forwarded-host").filter(|it| is_host(it)).or_else(|| first("host")) {
        Some(host) => format!("{scheme}://{host}/{name}"),
        None => format!("/{name}"),
    }
}

fn is_host(text: &str) -> bool {
    text.parse::<http::uri::Authority>().is_ok_and(|it| !it.as_str().contains('@'))
}

/// A path that is not there: in the words of the provider whose base it is below, or in ours.
pub(super) async fn unknown_path(State(api): State<Arc<Api>>, uri: Uri) -> Response {
    let base = uri.path().split('/').nth(1).unwrap_or_default();
    let Some(provider) = api.app.formats.get(base).and_then(Format::api) else {
        return Problem::not_found("path").into_response();
    };
    let call = Call {
        method: Method::POST,
        route: "",
        parameters: HashMap::new(),
        query: String::new(),
        headers: HeaderMap::new(),
        base: String::new(),
        body: Bytes::new(),
    };
    let mut answer = provider.answer(&call, Err(Refusal::UnknownPath));
    // Also of an API whose errors are in answers of status 200.
    answer.status = Refusal::UnknownPath.status();
    into_response(answer)
}

async fn respond(
    api: &Arc<Api>,
    format: &'static str,
    mut call: Call,
    mut incoming: Incoming,
) -> Response {
    let arrived = arrive(api, format, &mut call, &mut incoming).await;
    let call = Arc::new(call);
    let outcome = match arrived {
        Ok(caller) => perform(api, format, &call, caller).await,
        Err(refusal) => Err(refusal),
    };
    answered(api, &incoming.exchange, format, call, outcome).await
}

/// Finds out who calls, and reads the body. Where the token is in the head, nothing of the body is read
/// before it is known to be good.
async fn arrive(
    api: &Api,
    format: &'static str,
    call: &mut Call,
    incoming: &mut Incoming,
) -> Result<Caller, Refusal> {
    let provider = provider(api.app.format(format));
    incoming.exchange.check_host()?;
    let work = if call.method.is_safe() { Work::Read } else { Work::Change };
    let bytes_max = api.app.settings.body_bytes_max;
    match provider.token_place() {
        TokenPlace::Head => {
            let caller = api.tokens.caller(&api.app, &provider.token(call)?).await?;
            incoming.exchange.admit(&caller, work).await?;
            call.body = incoming.read(bytes_max).await?;
            incoming.hold(call.body.len() + tree_bytes(&call.body))?;
            Ok(caller)
        }
        TokenPlace::Body => {
            call.body = incoming.read(bytes_max.min(STRANGE_BODY_BYTES_MAX)).await?;
            // What is parsed here is no larger than what others parse at once.
            let caller = api.tokens.caller(&api.app, &provider.token(call)?).await?;
            incoming.exchange.admit(&caller, work).await?;
            Ok(caller)
        }
    }
}

/// The provider's answer, built on the threads for it where it can be large.
async fn answered(
    api: &Arc<Api>,
    exchange: &Exchange,
    format: &'static str,
    call: Arc<Call>,
    outcome: Result<Done, Refusal>,
) -> Response {
    let provider = provider(api.app.format(format));
    let mut is_unavailable = matches!(outcome, Err(Refusal::Unavailable(_) | Refusal::TooMany(_)));
    let mut answer = match outcome {
        Err(Refusal::Invalid(all)) => {
            provider.answer(&call, Err(Refusal::Invalid(Violation::first(all))))
        }
        Ok(done) if is_large(&done) || call.body.len() > SMALL_BYTES => {
            let done = Arc::new(Mutex::new(Some(done)));
            let build = {
                let (api, call, done) = (Arc::clone(api), Arc::clone(&call), Arc::clone(&done));
                move || {
                    let done = lock(&done).take().expect("it is taken once");
                    self::provider(api.app.format(format)).answer(&call, Ok(done))
                }
            };
            let answer = work(api, exchange.owner(), build).await;
            answer.unwrap_or_else(|refusal| {
                // What has been done is told, also where the threads have no room for it.
                let outcome = lock(&done).take().ok_or(refusal);
                provider.answer(&call, outcome)
            })
        }
        outcome => provider.answer(&call, outcome),
    };
    // What was only read can be read again, where there is no memory for the answer.
    if call.method.is_safe()
        && let Err(refusal) = exchange.hold_answer(answer.body.len())
    {
        is_unavailable = true;
        answer = provider.answer(&call, Err(refusal));
    }
    let mut response = into_response(answer);
    if is_unavailable {
        let soon = HeaderValue::from_static("1");
        response.headers_mut().entry(header::RETRY_AFTER).or_insert(soon);
    }
    response
}

fn is_large(done: &Done) -> bool {
    match done {
        Done::Listed(_) => true,
        Done::Created(it)
        | Done::Read(it)
        | Done::Replaced(it)
        | Done::Patched(it)
        | Done::Deleted(it) => size(it) > SMALL_BYTES,
        Done::Shown(_) | Done::Settings(_) => false,
    }
}

fn provider(format: &dyn Format) -> &dyn formats::Api {
    format.api().expect("only formats with an API are mounted")
}

async fn perform(
    api: &Arc<Api>,
    format: &'static str,
    call: &Arc<Call>,
    caller: Caller,
) -> Result<Done, Refusal> {
    let read = {
        let (api, call) = (Arc::clone(api), Arc::clone(call));
        move || provider(api.app.format(format)).operation(&call)
    };
    let owner: Owner = caller.bound_to().cloned();
    let operation = work_if_large(api, owner, call.body.len(), read).await??;
    let format = api.app.format(format);
    let provider = provider(format);
    provider.permit(&operation, &Granted(caller.scopes()))?;
    if let Operation::Show(answer) = operation {
        return Ok(Done::Shown(answer));
    }
    if caller.bound_to().is_none() && operation.tenant().is_none() {
        return Err(Refusal::NoAccount);
    }
    // Another's account is no different from one that is not there.
    let tenant = caller.tenant(&api.app, operation.tenant()).await;
    let tenant = tenant.map_err(|_| Refusal::OtherAccount)?;
    let app = &api.app;
    let store = app.store.as_ref();
    match operation {
        Operation::Create { draft, .. } => {
            manage::create(app, &tenant, format, *draft).await.map(Done::Created)
        }
        Operation::List { .. } => list(store, &tenant, format.name()).await.map(Done::Listed),
        Operation::Read { id, .. } => find(store, &tenant, format, &id).await.map(Done::Read),
        Operation::Replace { id, draft, .. } => {
            let it = find(store, &tenant, format, &id).await?;
            manage::replace(app, &tenant, format, it.id, *draft).await.map(Done::Replaced)
        }
        Operation::Patch { id, patch, .. } => {
            let it = find(store, &tenant, format, &id).await?;
            manage::patch(app, &tenant, format, it.id, patch).await.map(Done::Patched)
        }
        Operation::Delete { id, .. } => {
            let it = find(store, &tenant, format, &id).await?;
            manage::delete(app, &tenant, it.id).await.map(|()| Done::Deleted(it))
        }
        Operation::ReadSettings { .. } => {
            let settings = store.settings(&tenant, format.name()).await?;
            Ok(Done::Settings(settings.unwrap_or_else(|| provider.default_settings())))
        }
        Operation::WriteSettings { mut settings, .. } => {
            settings["Edited"] = json!({"Date": clock::rfc3339(clock::now_ms())});
            store.put_settings(&tenant, format.name(), settings.clone()).await?;
            app.set_account_rate(&tenant, format, &settings);
            Ok(Done::Settings(settings))
        }
        Operation::Show(_) => unreachable!("this was answered before"),
    }
}

/// All subscriptions of an account in a format, or a word that there are too many of them for that.
async fn list(
    store: &dyn Store,
    tenant: &Tenant,
    format: &'static str,
) -> Result<Vec<Subscription>, Refusal> {
    let format = Some(format);
    let (all, has_more) =
        read_until(store, tenant, format, None, LIST_MAX + 1, LIST_BYTES_MAX).await?;
    if has_more {
        return Err(Refusal::ListTooLong(format!(
            "there are more webhooks than a list of this API can hold ({LIST_MAX}, and {LIST_BYTES_MAX} \
             bytes); read them at `/v1/subscriptions`, page by page"
        )));
    }
    Ok(all)
}

async fn find(
    store: &dyn Store,
    tenant: &Tenant,
    format: &dyn Format,
    id: &str,
) -> Result<Subscription, Refusal> {
    let found = store.subscription_by_provider_id(tenant, format.name(), id).await?;
    found.ok_or(Refusal::NotFound)
}

fn into_response(answer: Answer) -> Response {
    let mut response = (answer.status, answer.body).into_response();
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_TYPE);
    if !answer.content_type.is_empty() {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    }
    for (name, value) in answer.headers {
        let value =
            HeaderValue::try_from(value).expect("a format's header values are visible ASCII");
        headers.insert(name, value);
    }
    response
}
