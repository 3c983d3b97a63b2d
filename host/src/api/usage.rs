//! `/v1/tenants/{tenant}/usage`: what a tenant has of each thing that is bounded, and how much it may have.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::auth::Caller;
use super::problem::Problem;
use super::{Api, answer};

/// `GET /v1/tenants/{tenant}/usage`
pub(super) async fn read(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(tenant): Path<String>,
) -> Result<Response, Problem> {
    let (app, tenant) = (&api.app, caller.tenant(&api.app, Some(&tenant)).await?);
    let (used, max) = (app.store.usage(&tenant).await?, app.settings.quotas());
    let line =
        |used: u64, max: u64, setting: &str| json!({"used": used, "max": max, "setting": setting});
    let mut all: Map<String, Value> = used
        .all()
        .into_iter()
        .zip(max.all())
        .map(|((name, _, setting, used), (.., max))| (name.to_owned(), line(used, max, setting)))
        .collect();
    let settings = &app.settings;
    let (versions, bytes) = app.store.plugin_usage(Some(&tenant)).await?;
    let compiled = app.workshop.compiled_for(&tenant).as_secs();
    let backlog = app.backlogs.of(&tenant);
    for (name, used, max, setting) in [
        ("plugin_versions", versions, settings.plugin_versions_max, "plugin-versions-max"),
        ("plugin_bytes", bytes, settings.plugin_bytes_max, "plugin-bytes-max"),
        (
            "plugin_compile_seconds",
            compiled,
            settings.plugin_compile_hour_seconds,
            "plugin-compile-hour-seconds",
        ),
        ("backlog", backlog, settings.tenant_backlog_max, "tenant-backlog-max"),
    ] {
        all.insert(name.to_owned(), line(used, max, setting));
    }
    Ok(answer(StatusCode::OK, &json!({"tenant": tenant.as_str(), "usage": all})))
}
