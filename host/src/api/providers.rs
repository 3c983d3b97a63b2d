//! The providers' APIs, under their base paths. Each format translates; what is done is the same.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, RawPathParams, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};

use super::{Api, read_body};
use crate::event::Tenant;
use crate::formats::{self, Answer, Call, Done, Format, Operation, Refusal};
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
                                      parameters: RawPathParams,
                                      Query(query): Query<HashMap<String, String>>,
                                      headers: HeaderMap,
                                      body: Body| {
                let parameters =
                    parameters.iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
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
    let caller = api.tokens.caller(&api.app, &call.headers).await?;
    let provider = format.api().expect("only formats with an API are mounted");
    let operation = provider.operation(call)?;
    caller.require(operation.scope())?;
    // Another's account looks like one that is not there.
    let tenant = caller.tenant(&api.app, operation.tenant()).await;
    let tenant = tenant.map_err(|_| Refusal::NotFound)?;
    debug_assert!(formats::is_same_account(operation.tenant(), &tenant));
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
        Operation::Delete { id, .. } => {
            let it = find(store, &tenant, format, &id).await?;
            manage::delete(app, &tenant, it.id).await.map(Done::Deleted)
        }
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
