//! `/v1/plugins/{name}/logs` and `/usage`: what plugins write, and what their runs take.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::response::Response;
use hookyard_nouns::clock;
use hookyard_nouns::digest::Digest;
use hookyard_nouns::event::{Tenant, Violation};
use hookyard_nouns::plugin::LogLevel;
use http::StatusCode;
use serde_json::{Value, json};

use super::auth::Caller;
use super::page::Page;
use super::plugins::{budget, name};
use super::problem::Problem;
use super::{Api, built, built_text, check_names, page_size, parameter, tenant};
use crate::store::{LogEntry, LogQuery};

type Parameters = Query<HashMap<String, String>>;

/// A line as it is shown.
pub(super) fn line(seq: u64, it: &LogEntry) -> Value {
    json!({
        "seq": seq.to_string(),
        "at": clock::rfc3339(it.at_ms),
        "level": it.line.level,
        "message": it.line.message,
        "digest": it.plugin,
        "subscription": it.subscription,
        "event": it.event,
    })
}

/// `GET /v1/plugins/{name}/logs`: newest first, and with `before` those that are older than that line; or, with
/// `after`, what came after that line, oldest first. `subscription`, `event` and `level` narrow the search.
pub(super) async fn logs(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(plugin): Path<String>,
    Query(query): Parameters,
) -> Result<Response, Problem> {
    caller.require("plugins:read")?;
    let names = ["tenant", "event", "subscription", "level", "after", "before", "limit"];
    check_names(&query, &names)?;
    let (tenant, plugins) = versions(&api, &caller, plugin, &query).await?;
    let search = LogQuery {
        plugins,
        event: parameter(&query, "event", "the id of an event")?,
        subscription: parameter(&query, "subscription", "the id of a subscription")?,
        level: query.get("level").map(|text| level(text)).transpose()?,
        after: parameter(&query, "after", "the `seq` of a line")?,
        before: parameter(&query, "before", "the `next` of lines before")?,
        limit: page_size(&query)?,
    };
    let limit = search.limit;
    let found = api.app.store.plugin_log(&tenant, search).await?;
    let shown = move || {
        let page = Page::of("lines", &found, |(seq, it)| line(*seq, it));
        let has_more = page.count() < found.len() || found.len() == limit;
        let next = has_more.then(|| found[page.count() - 1].0);
        page.into_text(next)
    };
    Ok(built_text(&api, &caller, StatusCode::OK, shown).await?)
}

/// `GET /v1/plugins/{name}/usage`: for each version and subscription, what its runs have taken since
/// this process began to count.
pub(super) async fn usage(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(plugin): Path<String>,
    Query(query): Parameters,
) -> Result<Response, Problem> {
    caller.require("plugins:read")?;
    check_names(&query, &["tenant"])?;
    let (tenant, plugins) = versions(&api, &caller, plugin, &query).await?;
    let usage = api.app.health.usage(&tenant, &plugins);
    let budget = budget(&api.app);
    Ok(built(&api, &caller, move || json!({"budget": budget, "usage": usage})).await?)
}

/// The tenant whose runs are asked for, and the versions of a plugin that it sees.
async fn versions(
    api: &Api,
    caller: &Caller,
    plugin: String,
    query: &HashMap<String, String>,
) -> Result<(Tenant, Vec<Digest>), Problem> {
    let tenant = tenant(api, caller, query).await?;
    let versions = api.app.store.plugin_versions(Some(&tenant), &name(plugin)?).await?;
    if versions.is_empty() {
        return Err(Problem::not_found("plugin"));
    }
    Ok((tenant, versions.into_iter().map(|it| it.digest).collect()))
}

fn level(text: &str) -> Result<LogLevel, Problem> {
    LogLevel::parse(text).ok_or_else(|| {
        let names = LogLevel::ALL.map(LogLevel::as_str).join(", ");
        let violation = Violation::new("level", format!("must be one of {names}"));
        Problem::invalid("a parameter of the query is wrong", vec![violation])
    })
}
