//! Makes and changes subscriptions and plugins: checks what no schema can, pins every plugin, stores
//! the change, and brings the index up to date.

pub mod keys;
pub mod plugins;
mod proof;
pub mod quarantines;
pub mod subscriptions;

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

/// Finds the plugin of each step and checks its configuration. Violations point below `field`. Without
/// a tenant, the plugins are shared ones: a format's own steps are not to be hidden by a tenant's plugin.
async fn pin(
    app: &App,
    tenant: Option<&Tenant>,
    field: &str,
    steps: &[StepRef],
) -> Result<Vec<Step>, Refusal> {
    if steps.len() > STEPS_MAX {
        let detail = format!("must have at most {STEPS_MAX} steps");
        return Err(Refusal::Invalid(vec![Violation::new(field, detail)]));
    }
    let mut pinned = Vec::with_capacity(steps.len());
    let mut violations = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        let field = format!("{field}/{at}");
        let Some(version) = app.store.find_plugin(tenant, &step.plugin).await? else {
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
        match check_configuration(app, &version, &field, &step.config).await? {
            Ok(step) => pinned.push(step),
            Err(wrong) => violations.extend(wrong),
        }
    }
    if violations.is_empty() { Ok(pinned) } else { Err(Refusal::Invalid(violations)) }
}

/// Checks a configuration by the plugin's schema, and then by the plugin itself. Violations point below
/// `field`.
///
/// # Errors
///
/// It could not be checked.
pub async fn check_configuration(
    app: &App,
    version: &PluginVersion,
    field: &str,
    config: &Value,
) -> Result<Result<Step, Vec<Violation>>, Refusal> {
    let field = format!("{field}/config");
    if let Some(schema) = &version.manifest.config_schema {
        let schema = Schema::strange(schema)
            .map_err(|err| Refusal::Unavailable(format!("the plugin's schema is broken: {err}")))?;
        let violations = schema.violations(config);
        if !violations.is_empty() {
            let below = |it: Violation| Violation::new(format!("{field}{}", it.field), it.detail);
            return Ok(Err(violations.into_iter().map(below).collect()));
        }
    }
    let step = Step { plugin: version.digest, config: config.to_string() };
    let tried = {
        let (runtime, step) = (Arc::clone(&app.runtime), step.clone());
        tokio::task::spawn_blocking(move || runtime.try_configuration(step.plugin, &step.config))
    };
    match tried.await {
        Ok(Ok(())) => Ok(Ok(step)),
        Ok(Err(fault)) => Ok(Err(vec![Violation::new(field, fault.to_string())])),
        Err(_) => Err(Refusal::Unavailable("the plugin could not be tried".to_owned())),
    }
}
