//! `/v1/plugins`: plugins and their versions.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};

use super::auth::Caller;
use super::problem::Problem;
use super::{Api, answer, read_body};
use crate::clock;
use crate::event::Tenant;
use crate::formats::Refusal;
use crate::manage::plugins::{UploadRefusal, upload as make};
use crate::plugin::{PluginName, PluginVersion};

type Parameters = Query<HashMap<String, String>>;

fn document(it: &PluginVersion) -> Value {
    json!({
        "name": it.name,
        "digest": it.digest,
        "shared": it.tenant.is_none(),
        "current": it.current,
        "size_bytes": it.size_bytes,
        "world": it.world,
        "manifest": it.manifest,
        "created_at": clock::rfc3339(it.created_at_ms),
    })
}

/// The tenant whose plugins a call is about; none for the operator's shared ones.
async fn owner(
    api: &Api,
    caller: &Caller,
    query: &HashMap<String, String>,
) -> Result<Option<Tenant>, Problem> {
    match (caller.bound_to(), query.get("tenant")) {
        (None, None) => Ok(None),
        (_, named) => caller.tenant(&api.app, named.map(String::as_str)).await.map(Some),
    }
}

fn name(text: String) -> Result<PluginName, Problem> {
    PluginName::try_from(text)
        .map_err(|violation| Problem::invalid("the name is wrong", vec![violation]))
}

/// `POST /v1/plugins/{name}/versions`: the body is the file. It becomes the current version.
pub(super) async fn upload(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(plugin): Path<String>,
    Query(query): Parameters,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    caller.require("plugins:write")?;
    let owner = owner(&api, &caller, &query).await?;
    let plugin = name(plugin)?;
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok());
    let known = ["application/wasm", "application/octet-stream"];
    if !media_type.is_some_and(|it| known.contains(&it)) {
        return Err(Refusal::WrongMediaType("`application/wasm`").into());
    }
    let file = read_body(body, &headers, api.app.settings.plugin_upload_bytes_max).await?;
    let (version, uploaded) =
        make(&api.app, owner.as_ref(), &plugin, file).await.map_err(refused)?;
    let mut body = document(&version);
    body["compile_ms"] = json!(millis(uploaded.compile_time.as_secs_f64() * 1e3));
    body["empty_run_us"] = json!(millis(uploaded.empty_run_time.as_secs_f64() * 1e6));
    Ok(answer(StatusCode::CREATED, &body))
}

/// One digit behind the point is as much as such a figure is worth.
fn millis(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn refused(refusal: UploadRefusal) -> Problem {
    match refusal {
        UploadRefusal::Plugin(it) => {
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, it.code, it.detail)
        }
        UploadRefusal::Followers(errors) => {
            let detail = "subscriptions follow this plugin with configurations that the new version \
                          does not take; pin them to a digest or change them first";
            Problem::new(StatusCode::CONFLICT, "breaks-subscriptions", detail).with_errors(errors)
        }
        UploadRefusal::Other(refusal) => refusal.into(),
    }
}

/// `GET /v1/plugins`: the tenant's and the shared ones, each in its current version.
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Query(query): Parameters,
) -> Result<Response, Problem> {
    caller.require("plugins:read")?;
    let owner = owner(&api, &caller, &query).await?;
    let all = api.app.store.plugins(owner.as_ref()).await?;
    let all: Vec<Value> = all.iter().map(document).collect();
    Ok(answer(StatusCode::OK, &json!({"plugins": all})))
}

/// `GET /v1/plugins/{name}/versions`, newest first.
pub(super) async fn versions(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(plugin): Path<String>,
    Query(query): Parameters,
) -> Result<Response, Problem> {
    caller.require("plugins:read")?;
    let owner = owner(&api, &caller, &query).await?;
    let all = api.app.store.plugin_versions(owner.as_ref(), &name(plugin)?).await?;
    if all.is_empty() {
        return Err(Problem::not_found("plugin"));
    }
    let all: Vec<Value> = all.iter().map(document).collect();
    Ok(answer(StatusCode::OK, &json!({"versions": all})))
}
