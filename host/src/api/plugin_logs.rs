//! `/v1/plugins/{name}/logs` and `/usage`: what plugins write, and what their runs take.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use super::auth::Caller;
use super::plugins::{budget, name};
use super::problem::Problem;
use super::{Api, answer, page_size, parameter, tenant};
use crate::clock;
use crate::event::{Tenant, Violation};
use crate::plugin::{Digest, LogLevel};
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

/// `GET /v1/plugins/{name}/logs`: newest first; or, with `after`, what came after that line, oldest first.
/// `subscription`, `event` and `level` narrow the search.
pub(super) async fn logs(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(plugin): Path<String>,
    Query(query): Parameters,
) -> Result<Response, Problem> {
    caller.require("plugins:read")?;
    let (tenant, plugins) = versions(&api, &caller, plugin, &query).await?;
    let search = LogQuery {
        plugins,
        event: parameter(&query, "event", "the id of an event")?,
        subscription: parameter(&query, "subscription", "the id of a subscription")?,
        level: query.get("level").map(|text| level(text)).transpose()?,
        after: parameter(&query, "after", "the `seq` of a line")?,
        limit: page_size(&query)?,
    };
    let found = api.app.store.plugin_log(&tenant, search).await?;
    let lines: Vec<Value> = found.iter().map(|(seq, it)| line(*seq, it)).collect();
    Ok(answer(StatusCode::OK, &json!({"lines": lines})))
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
    let (tenant, plugins) = versions(&api, &caller, plugin, &query).await?;
    let usage = api.app.health.usage(&tenant, &plugins);
    Ok(answer(StatusCode::OK, &json!({"budget": budget(&api.app), "usage": usage})))
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
