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
pub mod switch;
mod uploads;

use std::sync::Arc;
use std::time::Duration;

use hookyard_nouns::event::{Tenant, Violation};
use hookyard_nouns::json::Json;
use hookyard_nouns::plugin::{PluginRef, PluginVersion};
use hookyard_nouns::refusal::Refusal;
use hookyard_nouns::rendering::Step;
use hookyard_nouns::subscription::StepRef;
use tokio::time::{Instant, timeout_at};

use crate::app::App;
use crate::marks::Slot;
use crate::schemas::Schema;
use crate::store::StoreError;
use crate::wasm::{Fault, Slow};

pub use announce::{announce, announce_if_wanted};
pub use backlogs::Backlogs;
pub use releases::Releases;
pub use uploads::Uploads;

/// How many steps of its own a subscription may have.
const STEPS_MAX: usize = 16;
/// How long a caller waits for the code of a plugin.
const CODE_PATIENCE: Duration = Duration::from_secs(10);

impl From<StoreError> for Refusal {
    fn from(err: StoreError) -> Refusal {
        match err {
            StoreError::NotFound => Refusal::NotFound,
            StoreError::Conflict(what) => Refusal::Conflict(what),
            StoreError::Quota(why) => Refusal::Quota(why),
            StoreError::Changed => Refusal::Unavailable(
                "it was changed by somebody else at the same time; try again".to_owned(),
            ),
            StoreError::Broken(why) => {
                tracing::error!(why, "a call cannot be answered: a row of the store is broken");
                Refusal::Unavailable(
                    "this is damaged in the store; the operator finds it with `hookyard store check`"
                        .to_owned(),
                )
            }
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
        match attach(app, tenant, &version, &field, &step.config).await? {
            Ok(step) => pinned.push(step),
            Err(wrong) => violations.extend(wrong),
        }
    }
    if violations.is_empty() { Ok(pinned) } else { Err(Refusal::Invalid(violations)) }
}

/// A configuration that its plugin takes.
#[derive(Debug)]
pub struct Checked {
    pub step: Step,
    /// It takes it so slowly that runs need an image.
    slow: Option<Slow>,
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
    config: &Json,
) -> Result<Result<Checked, Vec<Violation>>, Refusal> {
    let field = format!("{field}/config");
    let violations = violations(app, tenant, version, config).await?;
    if !violations.is_empty() {
        let below = |it: Violation| Violation::new(format!("{field}{}", it.field), it.detail);
        return Ok(Err(violations.into_iter().map(below).collect()));
    }
    let step = Step::new(version.digest, config.to_string());
    let tried = {
        let (runtime, step, owner) = (Arc::clone(&app.runtime), step.clone(), Some(tenant.clone()));
        let bytes = step.config.len();
        try_out(app, tenant, bytes, move || runtime.try_configuration(&step, &owner)).await?
    };
    match tried {
        Ok(slow) => Ok(Ok(Checked { step, slow })),
        Err(fault) => Ok(Err(vec![Violation::new(field, fault.to_string())])),
    }
}

/// The same for a step that is going to run. What is too slow for each run gets its image now.
///
/// # Errors
///
/// As [`check_configuration`].
async fn attach(
    app: &App,
    tenant: &Tenant,
    version: &PluginVersion,
    field: &str,
    config: &Json,
) -> Result<Result<Step, Vec<Violation>>, Refusal> {
    let checked = check_configuration(app, tenant, version, field, config).await?;
    let (step, slow) = match checked {
        Ok(Checked { step, slow: None }) => return Ok(Ok(step)),
        Ok(Checked { step, slow: Some(slow) }) => (step, slow),
        Err(violations) => return Ok(Err(violations)),
    };
    let refused = |why: &str| {
        let Slow { took, budget, configure_max } = slow;
        let detail = format!(
            "takes the plugin {} ms of CPU time, the making of its instance included. A run has {} ms \
             for everything (`plugin-filter-ms`, `plugin-transform-ms`). What takes more than {} ms of that \
             needs an image of the configured plugin, and {why}",
            millis(took),
            millis(budget),
            millis(configure_max)
        );
        Ok(Err(vec![Violation::new(format!("{field}/config"), detail)]))
    };
    let owner = Some(tenant.clone());
    if let Some(why) = app.workshop.hour_is_over(&owner) {
        return refused(&why);
    }
    let make = {
        let (runtime, step, owner) = (Arc::clone(&app.runtime), step.clone(), owner.clone());
        move || runtime.make_image(&step, &owner)
    };
    match app.workshop.ask(&owner, step.config.len(), make).await {
        Some(Ok(empty_run)) if empty_run <= slow.configure_max => Ok(Ok(step)),
        Some(Ok(empty_run)) => {
            refused(&format!("even an instance of that takes {} ms", millis(empty_run)))
        }
        Some(Err(refusal)) if !refusal.is_ours() => {
            refused(&format!("none can be made: {}", refusal.detail))
        }
        Some(Err(_)) | None => {
            Err(Refusal::Unavailable("the plugin's image could not be made; try again".to_owned()))
        }
    }
}

fn millis(it: Duration) -> String {
    format!("{:.1}", it.as_secs_f64() * 1e3).trim_end_matches(".0").to_owned()
}

/// Does something in the tenant's turn of the threads for trials, and holds on to so many bytes until then.
/// Where code is missing, waits a while for that, and not on these threads.
///
/// # Errors
///
/// There is too much to do, or the code takes long; what is wrong with a plugin is part of the answer.
pub async fn try_out<T: Send + 'static>(
    app: &App,
    tenant: &Tenant,
    bytes: usize,
    work: impl Fn() -> Result<T, Fault> + Clone + Send + 'static,
) -> Result<Result<T, Fault>, Refusal> {
    let unavailable = |why: &str| Err(Refusal::Unavailable(format!("{why}; try again")));
    let until = Instant::now() + CODE_PATIENCE;
    let owner = Some(tenant.clone());
    loop {
        let work = work.clone();
        match app.trials.ask(&owner, bytes, move |_| work()).await {
            Some(Err(Fault::NotReady(making))) => {
                if timeout_at(until, making.ended()).await.is_err() {
                    return unavailable("the plugin's code is being made, which takes a while");
                }
            }
            Some(Err(fault)) if fault.is_ours() => {
                tracing::warn!(%tenant, %fault, "a plugin cannot be tried");
                return unavailable("the plugin could not be run");
            }
            Some(done) => return Ok(done),
            None => return unavailable("the plugin could not be tried"),
        }
    }
}

/// What a plugin's schema says against a configuration.
async fn violations(
    app: &App,
    tenant: &Tenant,
    version: &PluginVersion,
    config: &Json,
) -> Result<Vec<Violation>, Refusal> {
    let Some(schema) = version.manifest.config_schema.clone() else { return Ok(Vec::new()) };
    let unavailable = |why: &str| Refusal::Unavailable(format!("{why}; try again"));
    let config = config.clone();
    if version.tenant.is_none() {
        // The operator's schemas are as good as ours.
        let bytes = config.bytes().len();
        let work = move |_: &mut Slot| {
            let config = config.read().expect("JSON is a JSON value");
            Schema::strange(&schema).map(|schema| schema.violations(&config))
        };
        let checked = app.trials.ask(&Some(tenant.clone()), bytes, work).await;
        let checked = checked.ok_or_else(|| unavailable("the configuration was not checked"))?;
        return checked.map_err(|why| unavailable(&format!("the plugin's schema {why}")));
    }
    let _turn = app.uploads.check_turn(&Some(tenant.clone())).await.map_err(|_| {
        unavailable("as many of your configurations wait to be checked as may wait")
    })?;
    let workshop = Arc::clone(&app.workshop);
    let work = move || workshop.violations(schema, config.text());
    let checked = tokio::task::spawn_blocking(work).await;
    match checked.map_err(|_| unavailable("the configuration was not checked"))? {
        Ok(violations) => Ok(violations),
        Err(why) if why.is_ours() => Err(unavailable(&why.detail)),
        Err(why) => Ok(vec![Violation::new("", why.detail)]),
    }
}
