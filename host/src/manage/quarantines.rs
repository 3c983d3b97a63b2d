//! Plugins that fail: their owner is told, they are replaced where that was allowed, and one held
//! delivery is tried now and then, until the plugin is well again.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use hookyard_nouns::clock;
use hookyard_nouns::digest::Digest;
use hookyard_nouns::event::Tenant;
use hookyard_nouns::plugin::{PluginName, PluginRef};
use hookyard_nouns::subscription::Subscription;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::announce::announce_once;
use super::plugins::roll_back;
use crate::app::App;
use crate::health::Who;
use crate::marks::{Slot, Work};
use crate::render::render;
use crate::store::{self, Due, Quarantine};
use crate::supervise::Stop;

/// How often there is a look at quarantines, where there are any.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How far apart trials are at most.
const PROBE_WAIT_MAX_MS: i64 = 15 * 60_000;
/// How many of one tenant are looked at each time: a trial of each may take some of the CPU time of a pipeline.
const LOOKS_MAX: usize = 32;
/// For how many tenants there is a look at the same time.
const TENANTS_MAX: usize = 16;

/// Looks at the quarantines of each tenant by itself: a tenant whose plugins or whose calls of the store take long
/// keeps nobody waiting but itself.
struct Mender {
    app: Arc<App>,
    desks: HashMap<Tenant, Desk>,
    /// Those of the tenants for which there is a look now.
    under_way: JoinSet<(Tenant, Desk)>,
    busy: HashSet<Tenant>,
    rounds: u64,
}

/// What is known of the quarantines of one tenant while this process lives.
#[derive(Default)]
struct Desk {
    /// The number of the last round, and that of the round in which each quarantine was looked at last.
    round: u64,
    looked: HashMap<Uuid, u64>,
    /// Quarantines of which the owner has been told, or is about to be.
    told: HashSet<Uuid>,
    /// It has been seen whether another version can take the place of the one that fails.
    replaced: HashSet<Uuid>,
    /// What is still to be told. It goes away when it has been told, and not before.
    owed: VecDeque<Owed>,
}

/// An event of our own that is to be published.
struct Owed {
    what: &'static str,
    /// Tells the fact apart from all others: whoever tells it again, tells the same event again.
    fact: String,
    data: Value,
}

/// Works until it is told to stop.
pub async fn mend(app: Arc<App>, mut stop: Stop) {
    let mut mender = Mender {
        app: Arc::clone(&app),
        desks: HashMap::new(),
        under_way: JoinSet::new(),
        busy: HashSet::new(),
        rounds: 0,
    };
    loop {
        mender.take_back();
        mender.start(app.health.quarantines());
        let is_idle = mender.desks.is_empty() && mender.busy.is_empty();
        let wait = if is_idle { Duration::MAX } else { LOOK_EVERY };
        tokio::select! {
            _ = stop.asked() => return,
            () = app.health.changed.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

impl Mender {
    /// Takes back the desks of the tenants for which there has been a look.
    fn take_back(&mut self) {
        while let Some(ended) = self.under_way.try_join_next() {
            let (tenant, desk) = ended.expect("a look catches its panics");
            self.busy.remove(&tenant);
            self.desks.insert(tenant, desk);
        }
    }

    /// Begins to look, first for the tenants that have waited longest.
    fn start(&mut self, all: Vec<Quarantine>) {
        let mut of: HashMap<Tenant, Vec<Quarantine>> = HashMap::new();
        for it in all {
            of.entry(it.tenant.clone()).or_default().push(it);
        }
        self.desks.retain(|tenant, desk| of.contains_key(tenant) || !desk.owed.is_empty());
        for tenant in of.keys().filter(|it| !self.busy.contains(*it)) {
            self.desks.entry(tenant.clone()).or_default();
        }
        let mut waiting: Vec<_> =
            self.desks.iter().map(|(tenant, desk)| (desk.round, tenant.clone())).collect();
        waiting.sort_unstable();
        let free = TENANTS_MAX.saturating_sub(self.under_way.len());
        for (_, tenant) in waiting.into_iter().take(free) {
            let Some(mut desk) = self.desks.remove(&tenant) else { continue };
            self.rounds += 1;
            desk.round = self.rounds;
            self.busy.insert(tenant.clone());
            let (app, its) = (Arc::clone(&self.app), of.remove(&tenant).unwrap_or_default());
            self.under_way.spawn(async move {
                let of = tenant.clone();
                let looked = tokio::spawn(async move { desk.look(&app, &of, its).await });
                let desk = looked.await.unwrap_or_else(|err| {
                    tracing::error!(%tenant, %err, "mending panicked; beginning anew");
                    Desk::default()
                });
                (tenant, desk)
            });
        }
    }
}

impl Desk {
    async fn look(mut self, app: &Arc<App>, tenant: &Tenant, all: Vec<Quarantine>) -> Desk {
        let present: HashSet<Uuid> = all.iter().map(|it| it.subscription).collect();
        self.looked.retain(|id, _| present.contains(id));
        self.told.retain(|id| present.contains(id));
        self.replaced.retain(|id| present.contains(id));
        let now_ms = clock::now_ms();
        let wanted = all.into_iter().filter(|it| self.has_work(app, it, now_ms)).collect();
        for it in self.next_looks(wanted) {
            self.looked.insert(it.subscription, self.round);
            if let Err(err) = self.look_at(app, &it).await {
                tracing::warn!(subscription = %it.subscription, %err, "cannot mend; trying again");
            }
        }
        self.tell(app, tenant).await;
        self
    }

    /// Whether there is more to do for a quarantine than to wait.
    fn has_work(&self, app: &App, it: &Quarantine, now_ms: i64) -> bool {
        let id = it.subscription;
        !self.told.contains(&id)
            || !self.replaced.contains(&id)
            || now_ms >= it.probe_at_ms
            || !app.subscription(id).is_some_and(|subscription| runs(&subscription, it.plugin))
    }

    /// Those that were not looked at for longest.
    fn next_looks(&self, mut all: Vec<Quarantine>) -> Vec<Quarantine> {
        all.sort_by_key(|it| self.looked.get(&it.subscription).copied().unwrap_or(0));
        all.truncate(LOOKS_MAX);
        all
    }

    /// Tells what is still to be told, in order.
    async fn tell(&mut self, app: &App, tenant: &Tenant) {
        while let Some(Owed { what, fact, data }) = self.owed.front() {
            if let Err(err) = announce_once(app, tenant, what, fact, data.clone()).await {
                tracing::warn!(%tenant, %err, "cannot announce `{what}`; trying again");
                return;
            }
            self.owed.pop_front();
        }
    }

    fn owe(&mut self, what: &'static str, fact: String, data: Value) {
        self.owed.push_back(Owed { what, fact, data });
    }

    async fn look_at(&mut self, app: &Arc<App>, it: &Quarantine) -> store::Result<()> {
        let Some(subscription) = app.subscription(it.subscription) else {
            app.health.lift(it.subscription);
            return Ok(());
        };
        if self.told.insert(it.subscription) {
            self.owe("plugin.quarantined", fact(it), about(it, &subscription));
        }
        if !self.replaced.contains(&it.subscription) {
            self.replace(app, it, &subscription).await?;
            self.replaced.insert(it.subscription);
            return Ok(());
        }
        if !runs(&subscription, it.plugin) {
            return self
                .lift(app, it, &subscription, "the subscription runs another version")
                .await;
        }
        if clock::now_ms() < it.probe_at_ms {
            return Ok(());
        }
        let Some(due) = app.store.oldest_held(&it.tenant, it.subscription).await? else {
            let why = "nothing was held that it could be tried on";
            return self.lift(app, it, &subscription, why).await;
        };
        match probe(app, &subscription, due).await {
            Some(None) => {
                self.lift(app, it, &subscription, "it has run on what it failed on").await
            }
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
            // There is no room for it now, or its code is being made.
            None => Ok(()),
        }
    }

    /// The owner may have allowed that a version that fails makes way for the one before it.
    async fn replace(
        &mut self,
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
                self.roll_back_to_the_last(app, it, owner, name).await;
            }
        }
        Ok(())
    }

    async fn roll_back_to_the_last(
        &mut self,
        app: &Arc<App>,
        it: &Quarantine,
        owner: Option<&Tenant>,
        name: &PluginName,
    ) {
        match roll_back(app, owner, name, Some(it.plugin)).await {
            Ok(version) => {
                let data = json!({"plugin": name, "from": it.plugin, "to": version.digest});
                self.owe("plugin.rolledback", format!("{}-{name}", fact(it)), data);
            }
            Err(refusal) => {
                tracing::info!(%name, ?refusal, "a plugin that fails cannot be rolled back");
            }
        }
    }

    async fn lift(
        &mut self,
        app: &Arc<App>,
        it: &Quarantine,
        subscription: &Subscription,
        why: &str,
    ) -> store::Result<()> {
        app.store.lift_quarantine(&it.tenant, it.subscription).await?;
        app.releases.begin(&it.tenant, it.subscription);
        app.health.lift(it.subscription);
        let mut data = about(it, subscription);
        data["why"] = json!(why);
        self.owe("plugin.recovered", fact(it), data);
        Ok(())
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
    if app.set_aside.has(event.id, subscription.rendering_hash) {
        // It is not run any more: its delivery fails as soon as it is released.
        return Some(None);
    }
    let bytes = event.content.bytes();
    let work = {
        let (app, subscription, event) =
            (Arc::clone(app), Arc::clone(subscription), Arc::clone(&event));
        move |slot: &mut Slot| {
            // What ends the process here would do so again at each start.
            slot.mark(Work { event: event.id, rendering: Some(subscription.rendering_hash) });
            let (format, bytes_max) =
                (app.format(subscription.format), app.settings.delivery_bytes_max);
            let rendered = render(&app.runtime, format, &event, &subscription.rendering, bytes_max);
            slot.clear();
            rendered
        }
    };
    let (_, runs) = app.trials.ask(&Some(due.tenant.clone()), bytes, work).await?.ok()?;
    let fault = runs.iter().find_map(|run| run.fault);
    let who = Who { tenant: &due.tenant, subscription: subscription.id, event: event.id };
    app.health.count(who, runs, clock::now_ms());
    Some(fault)
}

fn runs(subscription: &Subscription, plugin: Digest) -> bool {
    subscription.rendering.steps.iter().any(|step| step.plugin == plugin)
}

/// Tells this quarantine apart from all others, also from another one of the same subscription.
fn fact(it: &Quarantine) -> String {
    format!("{}-{}", it.subscription, it.since_ms)
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

#[cfg(test)]
mod tests {
    use hookyard_nouns::delivery::Reason;

    use super::*;

    fn quarantine() -> Quarantine {
        Quarantine {
            subscription: Uuid::now_v7(),
            tenant: Tenant::new("t").unwrap(),
            plugin: Digest::of(b"p"),
            reason: Reason::new("plugin-trap", ""),
            since_ms: 0,
            probes: 0,
            probe_at_ms: 0,
        }
    }

    #[test]
    fn of_many_quarantines_each_has_its_turn() {
        let all: Vec<_> = (0..3 * LOOKS_MAX).map(|_| quarantine()).collect();
        let mut desk = Desk::default();
        let mut seen = HashSet::new();
        for round in 1..=3 {
            let next = desk.next_looks(all.clone());
            assert_eq!(next.len(), LOOKS_MAX);
            for it in next {
                desk.looked.insert(it.subscription, round);
                seen.insert(it.subscription);
            }
        }
        assert_eq!(seen.len(), all.len());
    }
}
