//! The providers' APIs, under their base paths. Each format translates; what is done is the same.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use serde_json::json;

use super::{Api, read_body};
use crate::clock;
use crate::event::Tenant;
use crate::formats::{Answer, Call, Done, Format, Granted, Operation, Refusal};
use crate::manage::subscriptions as manage;
use crate::store::Store;
use crate::subscription::Subscription;

/// How many subscriptions a provider's list can hold: their APIs know no pages.
const LIST_MAX: usize = 10_000;

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
                                      headers: HeaderMap,
                                      body: Body| {
                let pairs = parameters.iter().flat_map(RawPathParams::iter);
                let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
                // What is not UTF-8 names nothing that there is, like a parameter that is not there.
                let parameters = pairs.collect();
                let query = query.unwrap_or_default();
                let call = Call { method, route, parameters, query, headers, body: Bytes::new() };
                respond(&api, name, call, body).await
            };
            router = router.route(&format!("/{name}{route}"), any(handler));
        }
    }
    router
}

async fn respond(api: &Api, format: &'static str, mut call: Call, body: Body) -> Response {
    let format = api.app.format(format);
    let provider = format.api().expect("only formats with an API are mounted");
    let outcome = match read_body(body, &call.headers, api.app.settings.body_bytes_max).await {
        Ok(body) => {
            call.body = body;
            perform(api, format, &call).await
        }
        Err(refusal) => Err(refusal),
    };
    into_response(provider.answer(&call, outcome))
}

async fn perform(api: &Api, format: &dyn Format, call: &Call) -> Result<Done, Refusal> {
    let provider = format.api().expect("only formats with an API are mounted");
    let caller = api.tokens.caller(&api.app, &provider.token(call)?).await?;
    let operation = provider.operation(call)?;
    provider.permit(&operation, &Granted(caller.scopes()))?;
    if let Operation::Show(answer) = operation {
        return Ok(Done::Shown(answer));
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
        Operation::List { .. } => {
            let all = store.subscriptions(&tenant, Some(format.name()), None, LIST_MAX).await?;
            Ok(Done::Listed(all))
        }
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
            manage::delete(app, &tenant, it.id).await.map(Done::Deleted)
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
