//! Plugins that fail: their owner is told, they are replaced where that was allowed, and one held
//! delivery is tried now and then, until the plugin is well again.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use uuid::Uuid;

use super::announce;
use super::plugins::roll_back;
use crate::app::App;
use crate::clock;
use crate::event::Tenant;
use crate::health::Who;
use crate::plugin::{PluginName, PluginRef};
use crate::render::render;
use crate::store::{self, Due, Quarantine};
use crate::subscription::Subscription;

/// How often there is a look at quarantines, where there are any.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How far apart trials are at most.
const PROBE_WAIT_MAX_MS: i64 = 15 * 60_000;

/// Works until it is told to stop.
pub async fn mend(app: Arc<App>, mut stop: watch::Receiver<bool>) {
    let mut told = Vec::new();
    loop {
        let quarantines = app.health.quarantines();
        told.retain(|id| quarantines.iter().any(|it| it.subscription == *id));
        for it in &quarantines {
            if let Err(err) = look_at(&app, it, &mut told).await {
                tracing::warn!(subscription = %it.subscription, %err, "cannot mend; trying again");
            }
        }
        let wait = if quarantines.is_empty() { Duration::MAX } else { LOOK_EVERY };
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = app.health.changed.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

async fn look_at(app: &Arc<App>, it: &Quarantine, told: &mut Vec<Uuid>) -> store::Result<()> {
    let Some(subscription) = app.subscription(it.subscription) else {
        app.health.lift(it.subscription);
        return Ok(());
    };
    if !told.contains(&it.subscription) {
        told.push(it.subscription);
        announce(app, &it.tenant, "plugin.quarantined", about(it, &subscription)).await?;
        replace(app, it, &subscription).await?;
        return Ok(());
    }
    if !subscription.rendering.steps.iter().any(|step| step.plugin == it.plugin) {
        return lift(app, it, &subscription, "the subscription runs another version").await;
    }
    if clock::now_ms() < it.probe_at_ms {
        return Ok(());
    }
    let Some(due) = app.store.oldest_held(it.subscription).await? else {
        return lift(app, it, &subscription, "nothing was held that it could be tried on").await;
    };
    match probe(app, &subscription, due).await {
        Some(None) => lift(app, it, &subscription, "it has run on what it failed on").await,
        Some(Some(fault)) => {
            let mut again = it.clone();
            again.probes += 1;
            again.reason.code = fault.to_owned();
            let wait = app.settings.plugin_probe_ms << again.probes.min(10);
            again.probe_at_ms = clock::now_ms() + wait.min(PROBE_WAIT_MAX_MS);
            app.store.put_quarantine(again.clone()).await?;
            app.health.quarantine(again);
            Ok(())
        }
        // There is no room on the workers now.
        None => Ok(()),
    }
}

/// The owner may have allowed that a version that fails makes way for the one before it.
async fn replace(
    app: &Arc<App>,
    it: &Quarantine,
    subscription: &Subscription,
) -> store::Result<()> {
    for step in subscription.format_steps.iter().chain(&subscription.steps) {
        let PluginRef::Name(name) = &step.plugin else { continue };
        let tenant = Some(&subscription.tenant);
        let version = app.store.find_plugin(tenant, &step.plugin).await?;
        let Some(version) = version.filter(|found| found.digest == it.plugin) else { continue };
        let owner = version.tenant.as_ref();
        let previous = app.store.previous_plugin(owner, name).await?;
        let is_better = previous.is_some_and(|it| !app.health.has_failed(it));
        if is_better && app.store.rollback_allowed(owner, name).await? {
            roll_back_to_the_last(app, it, owner, name).await?;
        }
    }
    Ok(())
}

async fn roll_back_to_the_last(
    app: &Arc<App>,
    it: &Quarantine,
    owner: Option<&Tenant>,
    name: &PluginName,
) -> store::Result<()> {
    match roll_back(app, owner, name, Some(it.plugin)).await {
        Ok(version) => {
            let data = json!({"name": name, "plugin": version.digest, "replaces": it.plugin});
            announce(app, &it.tenant, "plugin.rolledback", data).await
        }
        Err(refusal) => {
            tracing::info!(%name, ?refusal, "a plugin that fails cannot be rolled back");
            Ok(())
        }
    }
}

/// Runs the pipeline on a delivery that is held. Answers what went wrong, if something did; none when
/// there was no room to run it.
async fn probe(
    app: &Arc<App>,
    subscription: &Arc<Subscription>,
    due: Due,
) -> Option<Option<&'static str>> {
    let Some(event) = due.event else { return Some(None) };
    let work = {
        let (app, subscription, event) =
            (Arc::clone(app), Arc::clone(subscription), Arc::clone(&event));
        move || {
            let format = app.format(subscription.format);
            render(&app.runtime, format, &event, &subscription.rendering)
        }
    };
    let (_, runs) = app.workers.ask(&due.tenant, 0, work).await?.ok()?;
    let fault = runs.iter().find_map(|run| run.fault);
    let who = Who { tenant: &due.tenant, subscription: subscription.id, event: event.id };
    app.health.count(who, runs, clock::now_ms());
    Some(fault)
}

async fn lift(
    app: &Arc<App>,
    it: &Quarantine,
    subscription: &Subscription,
    why: &str,
) -> store::Result<()> {
    app.store.lift_quarantine(it.subscription).await?;
    app.releases.begin(it.subscription);
    app.health.lift(it.subscription);
    let mut data = about(it, subscription);
    data["why"] = json!(why);
    announce(app, &it.tenant, "plugin.recovered", data).await
}

fn about(it: &Quarantine, subscription: &Subscription) -> Value {
    json!({
        "subscription": subscription.id,
        "name": subscription.name,
        "plugin": it.plugin,
        "reason": it.reason,
        "since": clock::rfc3339(it.since_ms),
    })
}
