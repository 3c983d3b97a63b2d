//! Brings the subscriptions that follow a plugin's name to the version that has become current: a few at a time, so
//! that nobody else waits for a tenant that has very many of them. What a process leaves undone, the next one does.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use hookyard_nouns::digest::Digest;
use hookyard_nouns::event::{Tenant, Violation};
use hookyard_nouns::plugin::{PluginName, PluginRef, PluginVersion};
use hookyard_nouns::refusal::Refusal;
use hookyard_nouns::rendering::Step;
use hookyard_nouns::subscription::{StepRef, Subscription};
use tokio::time::sleep;
use uuid::Uuid;

use super::attach;
use super::plugins::UploadRefusal;
use crate::app::App;
use crate::fair::Owner;
use crate::store::StoreError;
use crate::supervise::Stop;

/// How many subscriptions are read, and written in one transaction.
const SLICE: usize = 64;
/// How often all are gone through, where some of them were changed by others meanwhile.
const PASSES_MAX: usize = 3;
/// How many violations are told.
const VIOLATIONS_MAX: usize = 100;
/// Of how many tenants and configurations is remembered what was found out: most subscriptions have the same ones.
const KNOWN_MAX: usize = 256;
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// Whether all that follow the name can follow it to this version.
///
/// # Errors
///
/// Some have configurations that it does not take.
pub(super) async fn check(app: &App, version: &PluginVersion) -> Result<(), UploadRefusal> {
    let mut followers = Followers::new(app, version);
    let mut violations = Vec::new();
    while let Some(slice) = followers.next().await? {
        for it in slice {
            violations.extend(followers.moved(it).await?.err().into_iter().flatten());
        }
        if violations.len() >= VIOLATIONS_MAX {
            break;
        }
    }
    if violations.is_empty() { Ok(()) } else { Err(UploadRefusal::Followers(violations)) }
}

/// Brings all that follow the name to this version, which is the current one. Goes on where nobody waits for it any
/// more.
///
/// # Errors
///
/// The store cannot be used now. The rest follows when the same version is made current again, or at the next start.
pub(super) async fn switch(app: &Arc<App>, version: &PluginVersion) -> Result<(), Refusal> {
    let (of_task, version) = (Arc::clone(app), version.clone());
    let switched = tokio::spawn(async move { switch_all(&of_task, &version).await });
    switched.await.unwrap_or_else(|_| Err(panicked()))
}

fn panicked() -> Refusal {
    Refusal::Unavailable("a bug of the router; its log says more".to_owned())
}

async fn switch_all(app: &App, version: &PluginVersion) -> Result<(), Refusal> {
    for _ in 0..PASSES_MAX {
        let mut followers = Followers::new(app, version);
        let mut left = 0;
        while let Some(slice) = followers.next().await? {
            let mut changed = Vec::new();
            for it in slice {
                let id = it.id;
                match followers.moved(it).await? {
                    Ok(moved) => changed.extend(moved),
                    // It came after the check.
                    Err(why) => tracing::warn!(subscription = %id, plugin = %version.name, ?why,
                        "a subscription stays with the version that its plugin had before"),
                }
            }
            if changed.is_empty() {
                continue;
            }
            left += match app.store.follow_plugin(version.clone(), changed).await {
                Ok(left) => left,
                // Another version is current by now, and whoever made it so goes on.
                Err(StoreError::Changed) => return Ok(()),
                Err(err) => return Err(err.into()),
            };
            app.catch_up().await?;
        }
        if left == 0 {
            break;
        }
    }
    Ok(())
}

/// Brings those to the current versions that the last process has not, and waits for the end.
pub async fn run(app: Arc<App>, mut stop: Stop) {
    loop {
        let ended = tokio::select! {
            _ = stop.asked() => return,
            ended = resume(&app) => ended,
        };
        let Err(why) = ended else { break };
        tracing::warn!(
            ?why,
            "subscriptions cannot be brought to the current plugins; trying again"
        );
        tokio::select! {
            _ = stop.asked() => return,
            () = sleep(TRY_AGAIN) => {}
        }
    }
    stop.asked().await;
}

async fn resume(app: &Arc<App>) -> Result<(), Refusal> {
    let of_task = Arc::clone(app);
    // It looks at all subscriptions.
    let pinned = tokio::task::spawn_blocking(move || pinned(&of_task)).await;
    let mut behind = HashMap::new();
    for ((owner, name), digests) in pinned.map_err(|_| panicked())? {
        let followed = PluginRef::Name(name.clone());
        let Some(version) = app.store.find_plugin(owner.as_ref(), &followed).await? else {
            continue;
        };
        if digests.iter().any(|it| *it != version.digest) {
            behind.insert((version.tenant.clone(), name), version);
        }
    }
    for version in behind.into_values() {
        tracing::info!(plugin = %version.name, "brings subscriptions to the current version");
        switch(app, &version).await?;
    }
    Ok(())
}

/// With which versions those run that follow a name, by who sees the plugin of that name.
fn pinned(app: &App) -> HashMap<(Owner, PluginName), HashSet<Digest>> {
    let mut pinned: HashMap<_, HashSet<Digest>> = HashMap::new();
    for it in app.index().all() {
        let of_format = it.format_steps.iter().map(|step| (None, step));
        let own = it.steps.iter().map(|step| (Some(it.tenant.clone()), step));
        for ((owner, step), made) in of_format.chain(own).zip(&it.rendering.steps) {
            if let PluginRef::Name(name) = &step.plugin {
                pinned.entry((owner, name.clone())).or_default().insert(made.plugin);
            }
        }
    }
    pinned
}

/// The subscriptions that follow the name of a version, slice by slice.
struct Followers<'a> {
    app: &'a App,
    version: &'a PluginVersion,
    name: PluginRef,
    after: Option<Uuid>,
    /// Whether a tenant means this plugin by its name: its own one hides a shared one.
    sees: HashMap<Tenant, bool>,
    /// Steps of the version, by whose they are and their configurations.
    steps: HashMap<(Tenant, Digest), Step>,
}

impl<'a> Followers<'a> {
    fn new(app: &'a App, version: &'a PluginVersion) -> Followers<'a> {
        let name = PluginRef::Name(version.name.clone());
        let (sees, steps) = (HashMap::new(), HashMap::new());
        Followers { app, version, name, after: None, sees, steps }
    }

    /// None at the end.
    async fn next(&mut self) -> Result<Option<Vec<Subscription>>, Refusal> {
        let (owner, name) = (self.version.tenant.as_ref(), &self.version.name);
        let slice = self.app.store.followers(owner, name, self.after, SLICE).await?;
        self.after = slice.last().map(|it| it.id);
        Ok(self.after.map(|_| slice))
    }

    /// A subscription with the version in its rendering; none where it is in it already, and violations where the
    /// version does not take a configuration.
    async fn moved(
        &mut self,
        mut it: Subscription,
    ) -> Result<Result<Option<Subscription>, Vec<Violation>>, Refusal> {
        let mut rendering = (*it.rendering).clone();
        if rendering.steps.len() != it.format_steps.len() + it.steps.len() {
            tracing::error!(subscription = %it.id, "a subscription is broken: not each of its steps is pinned");
            return Ok(Ok(None));
        }
        // A format's own steps follow shared plugins, and the subscriber's follow what its tenant sees.
        let follows_of_format = self.version.tenant.is_none();
        let follows_own = self.is_seen_by(&it.tenant).await?;
        let of_format = it.format_steps.iter().map(|step| (step, follows_of_format));
        let own = it.steps.iter().map(|step| (step, follows_own));
        let mut violations = Vec::new();
        for (at, (step, follows)) in of_format.chain(own).enumerate() {
            if !follows || step.plugin != self.name {
                continue;
            }
            match self.step(&it.tenant, it.id, step).await? {
                Ok(step) => rendering.steps[at] = step,
                Err(wrong) => violations.extend(wrong),
            }
        }
        if !violations.is_empty() {
            return Ok(Err(violations));
        }
        if rendering == *it.rendering {
            return Ok(Ok(None));
        }
        it.rendering_hash = rendering.hash();
        it.rendering = Arc::new(rendering);
        it.updated_at_ms = self.version.created_at_ms;
        Ok(Ok(Some(it)))
    }

    async fn is_seen_by(&mut self, tenant: &Tenant) -> Result<bool, Refusal> {
        if self.version.tenant.is_some() {
            return Ok(true);
        }
        if let Some(sees) = self.sees.get(tenant) {
            return Ok(*sees);
        }
        let seen = self.app.store.find_plugin(Some(tenant), &self.name).await?;
        let sees = seen.is_none_or(|it| it.tenant.is_none());
        if self.sees.len() >= KNOWN_MAX {
            self.sees.clear();
        }
        self.sees.insert(tenant.clone(), sees);
        Ok(sees)
    }

    async fn step(
        &mut self,
        tenant: &Tenant,
        subscription: Uuid,
        step: &StepRef,
    ) -> Result<Result<Step, Vec<Violation>>, Refusal> {
        let key = (tenant.clone(), Digest::of(step.config.bytes()));
        if let Some(step) = self.steps.get(&key) {
            return Ok(Ok(step.clone()));
        }
        let made =
            attach(self.app, tenant, self.version, &subscription.to_string(), &step.config).await?;
        if let Ok(step) = &made {
            if self.steps.len() >= KNOWN_MAX {
                self.steps.clear();
            }
            self.steps.insert(key, step.clone());
        }
        Ok(made)
    }
}
