//! `/v1/plugins`: plugins and their versions.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use hookyard_nouns::clock;
use hookyard_nouns::digest::Digest;
use hookyard_nouns::event::{Tenant, Violation};
use hookyard_nouns::plugin::{PluginName, PluginVersion};
use hookyard_nouns::refusal::Refusal;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::Caller;
use super::exchange::{Exchange, Incoming};
use super::page::Page;
use super::problem::Problem;
use super::{Api, answer, built_text, read_json};
use crate::app::App;
use crate::manage::plugins::{self as manage, UploadRefusal};
use crate::store::StoreError;

type Parameters = Query<HashMap<String, String>>;

pub(super) fn document(it: &PluginVersion) -> Value {
    json!({
        "name": it.name,
        "digest": it.digest,
        "shared": it.tenant.is_none(),
        "current": it.current,
        "deprecated": it.deprecated,
        "size_bytes": it.size_bytes,
        "world": it.world,
        "manifest": it.manifest,
        "created_at": clock::rfc3339(it.created_at_ms),
    })
}

/// What a run may take.
pub(super) fn budget(app: &App) -> Value {
    let it = &app.settings;
    json!({
        "filter_ms": it.plugin_filter_ms,
        "transform_ms": it.plugin_transform_ms,
        "configure_ms": it.plugin_configure_ms,
        "memory_bytes": it.plugin_memory_bytes_max,
        "output_bytes": it.plugin_output_bytes_max,
    })
}

/// The tenant whose plugins a call is about; none for the operator's shared ones.
pub(super) async fn owner(
    api: &Api,
    caller: &Caller,
    query: &HashMap<String, String>,
) -> Result<Option<Tenant>, Problem> {
    match (caller.bound_to(), query.get("tenant")) {
        (None, None) => Ok(None),
        (_, named) => caller.tenant(&api.app, named.map(String::as_str)).await.map(Some),
    }
}

pub(super) fn name(text: String) -> Result<PluginName, Problem> {
    PluginName::try_from(text)
        .map_err(|violation| Problem::invalid("the name is wrong", vec![violation]))
}

pub(super) fn refused(refusal: UploadRefusal) -> Problem {
    match refusal {
        UploadRefusal::Plugin(it) => {
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, it.code, it.detail)
        }
        UploadRefusal::Followers(errors) => {
            let detail = "subscriptions follow this plugin with configurations that the new version \
                          does not take; pin them to a digest or change them first";
            Problem::new(StatusCode::CONFLICT, "breaks-subscriptions", detail).with_errors(errors)
        }
        UploadRefusal::NotCurrent(present) => {
            let present = present.map_or("none".to_owned(), |it| it.to_string());
            let detail =
                format!("the current version is not the one of `If-Match`; it is {present}");
            Problem::new(StatusCode::PRECONDITION_FAILED, "not-current", detail)
        }
        UploadRefusal::Quota(detail) => {
            Problem::new(StatusCode::CONFLICT, "quota-exceeded", detail)
        }
        UploadRefusal::Other(Refusal::NotFound) => Problem::not_found("version of this plugin"),
        UploadRefusal::Other(refusal) => refusal.into(),
    }
}

/// `GET /v1/plugins`: the tenant's and the shared ones, each in its current version. Those behind `after`,
/// where there are more than one answer can hold.
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Query(query): Parameters,
) -> Result<Response, Problem> {
    caller.require("plugins:read")?;
    let owner = owner(&api, &caller, &query).await?;
    let after = query.get("after").cloned().map(name).transpose()?;
    let mut all = api.app.store.plugins(owner.as_ref()).await?;
    all.retain(|it| after.as_ref().is_none_or(|after| *after < it.name));
    let shown = move || {
        let page = Page::of("plugins", &all, document);
        let next = (page.count() < all.len()).then(|| all[page.count() - 1].name.clone());
        page.into_text(next)
    };
    Ok(built_text(&api, &caller, StatusCode::OK, shown).await?)
}

/// `GET /v1/plugins/{name}/versions`, newest first. Those older than `before`, where there are more than one
/// answer can hold.
pub(super) async fn versions(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(plugin): Path<String>,
    Query(query): Parameters,
) -> Result<Response, Problem> {
    caller.require("plugins:read")?;
    let owner = owner(&api, &caller, &query).await?;
    let before = query.get("before").map(|text| digest(text)).transpose()?;
    let mut all = api.app.store.plugin_versions(owner.as_ref(), &name(plugin)?).await?;
    if all.is_empty() {
        return Err(Problem::not_found("plugin"));
    }
    if let Some(before) = before {
        let at = all.iter().position(|it| it.digest == before);
        let at = at.ok_or_else(|| Problem::not_found("version of this plugin"))?;
        all.drain(..=at);
    }
    let shown = move || {
        let page = Page::of("versions", &all, document);
        let next = (page.count() < all.len()).then(|| all[page.count() - 1].digest);
        page.into_text(next)
    };
    Ok(built_text(&api, &caller, StatusCode::OK, shown).await?)
}

/// The version that a path is about: an owner's own, or else a shared one.
async fn seen(
    api: &Api,
    caller: &Caller,
    query: &HashMap<String, String>,
    (plugin, version): (String, String),
) -> Result<PluginVersion, Problem> {
    let owner = owner(api, caller, query).await?;
    let digest = digest(&version)?;
    let all = api.app.store.plugin_versions(owner.as_ref(), &name(plugin)?).await?;
    let found = all.into_iter().find(|it| it.digest == digest);
    found.ok_or_else(|| Problem::not_found("version of this plugin"))
}

fn digest(text: &str) -> Result<Digest, Problem> {
    text.parse().map_err(|violation| Problem::invalid("the digest is wrong", vec![violation]))
}

/// `GET /v1/plugins/{name}`: the current version.
pub(super) async fn read(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(plugin): Path<String>,
    Query(query): Parameters,
) -> Result<Response, Problem> {
    caller.require("plugins:read")?;
    let owner = owner(&api, &caller, &query).await?;
    let all = api.app.store.plugin_versions(owner.as_ref(), &name(plugin)?).await?;
    let current = all.into_iter().find(|it| it.current);
    let current = current.ok_or_else(|| Problem::not_found("plugin"))?;
    Ok(tagged(&current))
}

/// `GET /v1/plugins/{name}/versions/{digest}`
pub(super) async fn version(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(path): Path<(String, String)>,
    Query(query): Parameters,
) -> Result<Response, Problem> {
    caller.require("plugins:read")?;
    Ok(tagged(&seen(&api, &caller, &query, path).await?))
}

/// `GET /v1/plugins/{name}/versions/{digest}/file`: the file as it was uploaded.
pub(super) async fn file(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Extension(exchange): Extension<Arc<Exchange>>,
    Path(path): Path<(String, String)>,
    Query(query): Parameters,
) -> Result<Response, Problem> {
    caller.require("plugins:read")?;
    let version = seen(&api, &caller, &query, path).await?;
    // Before it is read.
    exchange.stream(&caller)?;
    exchange.hold_answer(usize::try_from(version.size_bytes).unwrap_or(usize::MAX))?;
    let digest = version.digest;
    let file = api.app.store.plugin_file(digest).await?;
    let file = file.ok_or_else(|| Problem::not_found("version of this plugin"))?;
    let is_wasm = file.starts_with(b"\0asm");
    let media_type = if is_wasm { "application/wasm" } else { "text/javascript" };
    let mut response = file.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::ETAG, etag(digest));
    let value = format!("sha-256=:{}:", BASE64_STANDARD.encode(digest.0));
    let value = HeaderValue::try_from(value).expect("base64 is visible ASCII");
    headers.insert(CONTENT_DIGEST, value);
    Ok(response)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Current {
    digest: Digest,
}

/// `PUT /v1/plugins/{name}/current`: steps that follow the name run this version from now on.
pub(super) async fn make_current(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(plugin): Path<String>,
    Query(query): Parameters,
    incoming: Incoming,
) -> Result<Response, Problem> {
    caller.require("plugins:write")?;
    let owner = owner(&api, &caller, &query).await?;
    let expected = if_match(&incoming.headers)?;
    let it: Current = read_json(&api, incoming, |it| &it.current).await?;
    let made =
        manage::make_current(&api.app, owner.as_ref(), &name(plugin)?, it.digest, expected).await;
    Ok(tagged(&made.map_err(refused)?))
}

/// `POST /v1/plugins/{name}/rollback`: the version that was current before is so again.
pub(super) async fn roll_back(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(plugin): Path<String>,
    Query(query): Parameters,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.require("plugins:write")?;
    let owner = owner(&api, &caller, &query).await?;
    let expected = if_match(&headers)?;
    let made = manage::roll_back(&api.app, owner.as_ref(), &name(plugin)?, expected).await;
    Ok(tagged(&made.map_err(refused)?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AutomaticRollback {
    allowed: bool,
}

/// `PUT /v1/plugins/{name}/automatic-rollback`: whether a version that fails again and again is replaced
/// by the one before it.
pub(super) async fn allow_rollback(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(plugin): Path<String>,
    Query(query): Parameters,
    incoming: Incoming,
) -> Result<Response, Problem> {
    caller.require("plugins:write")?;
    let owner = owner(&api, &caller, &query).await?;
    let it: AutomaticRollback = read_json(&api, incoming, |it| &it.automatic_rollback).await?;
    match api.app.store.allow_rollback(owner.as_ref(), &name(plugin)?, it.allowed).await {
        Err(StoreError::NotFound) => Err(Problem::not_found("plugin")),
        result => {
            result?;
            Ok(answer(StatusCode::OK, &json!({"allowed": it.allowed})))
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Deprecation {
    reason: String,
}

/// `PUT /v1/plugins/{name}/versions/{digest}/deprecation`: no new step may name this version.
pub(super) async fn deprecate(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(path): Path<(String, String)>,
    Query(query): Parameters,
    incoming: Incoming,
) -> Result<Response, Problem> {
    caller.require("plugins:write")?;
    let it: Deprecation = read_json(&api, incoming, |it| &it.deprecation).await?;
    set_deprecation(&api, &caller, path, &query, Some(it.reason)).await
}

/// `DELETE /v1/plugins/{name}/versions/{digest}/deprecation`
pub(super) async fn take_back_deprecation(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(path): Path<(String, String)>,
    Query(query): Parameters,
) -> Result<Response, Problem> {
    set_deprecation(&api, &caller, path, &query, None).await
}

async fn set_deprecation(
    api: &Api,
    caller: &Caller,
    (plugin, version): (String, String),
    query: &HashMap<String, String>,
    reason: Option<String>,
) -> Result<Response, Problem> {
    caller.require("plugins:write")?;
    let owner = owner(api, caller, query).await?;
    let (plugin, digest) = (name(plugin)?, digest(&version)?);
    let mut it = manage::version(&api.app, owner.as_ref(), &plugin, digest)
        .await
        .map_err(|refusal| refused(refusal.into()))?;
    if it.current && reason.is_some() {
        let detail = "it is the current version; make another one current first";
        return Err(Problem::new(StatusCode::CONFLICT, "current-version", detail));
    }
    api.app.store.deprecate_plugin(owner.as_ref(), &plugin, digest, reason.clone()).await?;
    it.deprecated = reason;
    Ok(tagged(&it))
}

/// `DELETE /v1/plugins/{name}/versions/{digest}`: what nothing uses.
pub(super) async fn delete(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path((plugin, version)): Path<(String, String)>,
    Query(query): Parameters,
) -> Result<Response, Problem> {
    caller.require("plugins:write")?;
    let owner = owner(&api, &caller, &query).await?;
    match api.app.store.delete_plugin(owner.as_ref(), &name(plugin)?, digest(&version)?).await {
        Err(StoreError::NotFound) => Err(Problem::not_found("version of this plugin")),
        Err(StoreError::Conflict(why)) => {
            let detail = format!("the version cannot be deleted: {why}");
            Err(Problem::new(StatusCode::CONFLICT, "in-use", detail))
        }
        result => {
            result?;
            Ok(StatusCode::NO_CONTENT.into_response())
        }
    }
}

pub(super) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");

fn tagged(it: &PluginVersion) -> Response {
    let mut response = answer(StatusCode::OK, &document(it));
    response.headers_mut().insert(header::ETAG, etag(it.digest));
    response
}

fn etag(digest: Digest) -> HeaderValue {
    HeaderValue::try_from(format!("\"{digest}\"")).expect("a digest is visible ASCII")
}

/// The version that has to be current (RFC 9110, section 13.1.1).
pub(super) fn if_match(headers: &HeaderMap) -> Result<Option<Digest>, Problem> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim_matches('"');
    let wrong = |it: Violation| {
        let violation = Violation::new("If-Match", it.detail);
        Problem::invalid("a header is wrong", vec![violation])
    };
    text.parse().map(Some).map_err(wrong)
}
