//! Makes and changes subscriptions and plugins: checks what no schema can, pins every plugin, stores
//! the change, and brings the index up to date.

mod announce;
pub mod backlogs;
pub mod keys;
pub mod plugins;
mod proof;
pub mod quarantines;
pub mod releases;
pub mod replays;
pub mod subscriptions;
mod uploads;

use std::sync::Arc;

use serde_json::Value;

use crate::app::App;
use crate::event::{Tenant, Violation};
use crate::formats::Refusal;
use crate::plugin::{PluginRef, PluginVersion};
use crate::schemas::Schema;
use crate::store::StoreError;
use crate::subscription::StepRef;
use crate::wasm::Step;

pub use announce::{announce, announce_if_wanted};
pub use backlogs::Backlogs;
pub use releases::Releases;
pub use uploads::{Busy, Uploads};

/// How many steps of its own a subscription may have.
const STEPS_MAX: usize = 16;

impl From<StoreError> for Refusal {
    fn from(err: StoreError) -> Refusal {
        match err {
            StoreError::NotFound => Refusal::NotFound,
            StoreError::Conflict(what) => Refusal::Conflict(what),
            StoreError::Changed => Refusal::Unavailable(
                "it was changed by somebody else at the same time; try again".to_owned(),
            ),
            StoreError::Unavailable(why) => {
                tracing::debug!(%why, "a call is answered that the store is not available");
                Refusal::Unavailable("the store is not available; try again".to_owned())
            }
        }
    }
}

/// Which plugins steps can name.
#[derive(Clone, Copy, Debug)]
enum Seen {
    /// The tenant's own and the shared ones.
    ByTenant,
    /// The shared ones: a format's own steps are not to be hidden by a tenant's plugin.
    Shared,
}

/// Finds the plugin of each step of a tenant's subscription and checks its configuration. Violations
/// point below `field`.
async fn pin(
    app: &App,
    tenant: &Tenant,
    seen: Seen,
    field: &str,
    steps: &[StepRef],
) -> Result<Vec<Step>, Refusal> {
    if steps.len() > STEPS_MAX {
        let detail = format!("must have at most {STEPS_MAX} steps");
        return Err(Refusal::Invalid(vec![Violation::new(field, detail)]));
    }
    let owner = matches!(seen, Seen::ByTenant).then_some(tenant);
    let mut pinned = Vec::with_capacity(steps.len());
    let mut violations = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        let field = format!("{field}/{at}");
        let Some(version) = app.store.find_plugin(owner, &step.plugin).await? else {
            let detail = match &step.plugin {
                PluginRef::Name(name) => format!("there is no plugin `{name}`; upload it first"),
                PluginRef::Digest(digest) => format!("there is no plugin with the digest {digest}"),
            };
            violations.push(Violation::new(format!("{field}/plugin"), detail));
            continue;
        };
        if let (Some(reason), PluginRef::Digest(_)) = (&version.deprecated, &step.plugin) {
            let detail = format!("names a version that is deprecated: {reason}");
            violations.push(Violation::new(format!("{field}/plugin"), detail));
            continue;
        }
        match check_configuration(app, tenant, &version, &field, &step.config).await? {
            Ok(step) => pinned.push(step),
            Err(wrong) => violations.extend(wrong),
        }
    }
    if violations.is_empty() { Ok(pinned) } else { Err(Refusal::Invalid(violations)) }
}

/// Checks a configuration by the plugin's schema, and then by the plugin itself, in the turn of the
/// tenant who wants it. Violations point below `field`.
///
/// # Errors
///
/// It could not be checked.
pub async fn check_configuration(
    app: &App,
    tenant: &Tenant,
    version: &PluginVersion,
    field: &str,
    config: &Value,
) -> Result<Result<Step, Vec<Violation>>, Refusal> {
    let field = format!("{field}/config");
    let violations = violations(app, tenant, version, config).await?;
    if !violations.is_empty() {
        let below = |it: Violation| Violation::new(format!("{field}{}", it.field), it.detail);
        return Ok(Err(violations.into_iter().map(below).collect()));
    }
    let step = Step { plugin: version.digest, config: config.to_string() };
    let tried = {
        let (runtime, step) = (Arc::clone(&app.runtime), step.clone());
        let work = move || runtime.try_configuration(step.plugin, &step.config);
        app.workers.ask(tenant, 0, work).await
    };
    match tried {
        Some(Ok(())) => Ok(Ok(step)),
        Some(Err(fault)) => Ok(Err(vec![Violation::new(field, fault.to_string())])),
        None => Err(Refusal::Unavailable("the plugin could not be tried; try again".to_owned())),
    }
}

/// What a plugin's schema says against a configuration.
async fn violations(
    app: &App,
    tenant: &Tenant,
    version: &PluginVersion,
    config: &Value,
) -> Result<Vec<Violation>, Refusal> {
    let Some(schema) = version.manifest.config_schema.clone() else { return Ok(Vec::new()) };
    let unavailable = |why: &str| Refusal::Unavailable(format!("{why}; try again"));
    let config = config.clone();
    if version.tenant.is_none() {
        // The operator's schemas are as good as ours.
        let work = move || Schema::strange(&schema).map(|schema| schema.violations(&config));
        let checked = app.workers.ask(tenant, 0, work).await;
        let checked = checked.ok_or_else(|| unavailable("the configuration was not checked"))?;
        return checked.map_err(|why| unavailable(&format!("the plugin's schema {why}")));
    }
    let _turn = app.uploads.check_turn().await;
    let runtime = Arc::clone(&app.runtime);
    let work = move || runtime.violations(schema, &config.to_string());
    let checked = tokio::task::spawn_blocking(work).await;
    match checked.map_err(|_| unavailable("the configuration was not checked"))? {
        Ok(violations) => Ok(violations),
        Err(why) if why.is_ours() => Err(unavailable(&why.detail)),
        Err(why) => Ok(vec![Violation::new("", why.detail)]),
    }
}
