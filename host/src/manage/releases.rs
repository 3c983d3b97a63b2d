//! What was held while a subscription was paused, or while its plugin failed, goes out again: one at a time, in order,
//! at a bounded rate, and before anything that comes meanwhile. That is held as well until then, and goes out side by
//! side: otherwise an endpoint that gets more than it takes one by one would never catch up.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use hookyard_nouns::clock;
use hookyard_nouns::event::Tenant;
use tokio::sync::Notify;
use tokio::task::{self, JoinSet};
use tokio::time::Instant;
use uuid::Uuid;

use crate::app::App;
use crate::store;
use crate::supervise::Stop;

const ROUND: Duration = Duration::from_millis(100);
const ROUNDS_A_SECOND: usize = 10;
/// How long an endpoint that does not take what is due is let alone, at most.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// How many subscriptions of a tenant are looked at in one round, and how many tenants have theirs at once.
const OWN_LOOKS_MAX: usize = 32;
const TENANTS_AT_ONCE: usize = 16;

/// The subscriptions for which that goes on.
#[derive(Default)]
pub struct Releases {
    under_way: RwLock<HashMap<Uuid, Next>>,
    begins: Notify,
}

/// When more of what is held goes out.
#[derive(Clone)]
struct Next {
    tenant: Tenant,
    /// When it began: events that were accepted before then are a part of what was held.
    began_at_ms: i64,
    at: Instant,
    wait: Duration,
}

impl Releases {
    /// Whether there is still something that goes first.
    pub fn is_under_way(&self, subscription: Uuid) -> bool {
        self.began_at_ms(subscription).is_some()
    }

    /// Since when there is something that goes first; none where there is nothing.
    pub fn began_at_ms(&self, subscription: Uuid) -> Option<i64> {
        let under_way = self.under_way.read().unwrap_or_else(PoisonError::into_inner);
        if under_way.is_empty() {
            return None;
        }
        under_way.get(&subscription).map(|it| it.began_at_ms)
    }

    /// To be called when a subscription has become active or its plugin well, before anybody is told: nothing
    /// that comes then may overtake what is held. It ends by itself when there is nothing.
    pub fn begin(&self, tenant: &Tenant, subscription: Uuid) {
        let (tenant, began_at_ms) = (tenant.clone(), clock::now_ms());
        let next = Next { tenant, began_at_ms, at: Instant::now(), wait: ROUND };
        self.under_way.write().unwrap_or_else(PoisonError::into_inner).insert(subscription, next);
        self.begins.notify_one();
    }

    /// What comes after a look, unless it has begun anew meanwhile.
    fn put(&self, subscription: Uuid, looked: Instant, next: Option<Next>) {
        let mut under_way = self.under_way.write().unwrap_or_else(PoisonError::into_inner);
        match next {
            _ if under_way.get(&subscription).is_none_or(|it| it.at != looked) => {}
            Some(next) => _ = under_way.insert(subscription, next),
            None => _ = under_way.remove(&subscription),
        }
    }

    /// Of each tenant those whose time has come, the ones that have waited longest first; none where nothing
    /// is under way.
    fn next(&self) -> Option<HashMap<Tenant, Vec<(Uuid, Next)>>> {
        let under_way = self.under_way.read().unwrap_or_else(PoisonError::into_inner);
        if under_way.is_empty() {
            return None;
        }
        let now = Instant::now();
        let mut of: HashMap<Tenant, Vec<(Uuid, Next)>> = HashMap::new();
        for (id, next) in under_way.iter().filter(|(_, next)| next.at <= now) {
            of.entry(next.tenant.clone()).or_default().push((*id, next.clone()));
        }
        for own in of.values_mut() {
            own.sort_unstable_by_key(|(_, next)| next.at);
            own.truncate(OWN_LOOKS_MAX);
        }
        Some(of)
    }
}

/// Works until it is told to stop.
pub async fn run(app: Arc<App>, mut stop: Stop) {
    // Tenants have rounds of their own: whoever releases much waits for the store alone.
    let mut rounds = JoinSet::new();
    let mut in_round: HashMap<Tenant, task::Id> = HashMap::new();
    loop {
        let next = app.releases.next();
        let is_idle = next.is_none();
        for (tenant, own) in next.into_iter().flatten() {
            if rounds.len() < TENANTS_AT_ONCE && !in_round.contains_key(&tenant) {
                let round = rounds.spawn(release_all(Arc::clone(&app), own));
                in_round.insert(tenant, round.id());
            }
        }
        tokio::select! {
            _ = stop.asked() => return,
            Some(ended) = rounds.join_next_with_id() => {
                let ended = ended.map_or_else(|err| err.id(), |(id, ())| id);
                in_round.retain(|_, id| *id != ended);
            }
            () = app.releases.begins.notified(), if is_idle => {}
            () = tokio::time::sleep(ROUND), if !is_idle => {}
        }
    }
}

async fn release_all(app: Arc<App>, own: Vec<(Uuid, Next)>) {
    for (subscription, next) in own {
        if let Err(err) = release(&app, subscription, next).await {
            tracing::warn!(%subscription, %err, "cannot release deliveries; trying again");
        }
    }
}

async fn release(app: &App, subscription: Uuid, looked: Next) -> store::Result<()> {
    let limit = (app.settings.catch_up_per_second / ROUNDS_A_SECOND).max(1);
    let Next { tenant, began_at_ms, at, wait } = looked;
    let released = app.store.release_held(&tenant, subscription, limit, clock::now_ms()).await?;
    let wait = match released {
        None => {
            app.releases.put(subscription, at, None);
            return Ok(());
        }
        Some(0) => (wait * 2).min(WAIT_MAX),
        Some(_) => {
            app.outgoing.changed(&tenant, [subscription]);
            ROUND
        }
    };
    let next = Next { tenant, began_at_ms, at: Instant::now() + wait, wait };
    app.releases.put(subscription, at, Some(next));
    Ok(())
}
