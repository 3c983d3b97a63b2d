//! Publishers are told to wait while too much waits already.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use hookyard_nouns::event::Tenant;

use crate::app::App;
use crate::supervise::Stop;

/// How often there is a look.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What waits, as of the last look: deliveries that are not settled, and events that are not routed.
#[derive(Default)]
pub struct Backlogs(RwLock<Waiting>);

#[derive(Default)]
struct Waiting {
    of: HashMap<Tenant, u64>,
    all: u64,
}

impl Backlogs {
    /// How many events and deliveries of a tenant wait.
    pub fn of(&self, tenant: &Tenant) -> u64 {
        let waiting = self.0.read().unwrap_or_else(PoisonError::into_inner);
        waiting.of.get(tenant).copied().unwrap_or(0)
    }

    /// Whether a tenant may publish no more for now, and why in a sentence.
    pub fn refusal(&self, app: &App, tenant: &Tenant) -> Option<String> {
        let waiting = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let of_tenant = waiting.of.get(tenant).copied().unwrap_or(0);
        let (own_max, all_max) = (app.settings.tenant_backlog_max, app.settings.backlog_max);
        if of_tenant >= own_max {
            return Some(format!(
                "{of_tenant} events and deliveries of `{tenant}` wait, and at most {own_max} may \
                 (`tenant-backlog-max`)"
            ));
        }
        // Whoever has little waiting is not the one who has to wait.
        let share = all_max / u64::try_from(waiting.of.len().max(1)).unwrap_or(u64::MAX);
        (waiting.all >= all_max && of_tenant >= share)
            .then(|| format!("more than {all_max} events and deliveries wait (`backlog-max`)"))
    }
}

/// Works until it is told to stop.
pub async fn watch(app: Arc<App>, mut stop: Stop) {
    loop {
        match app.store.backlogs().await {
            Ok(backlogs) => {
                let of = backlogs.into_iter().map(|it| (it.tenant, it.deliveries + it.events));
                let of: HashMap<_, _> = of.filter(|(_, count)| *count > 0).collect();
                let waiting = Waiting { all: of.values().sum(), of };
                *app.backlogs.0.write().unwrap_or_else(PoisonError::into_inner) = waiting;
            }
            Err(err) => tracing::debug!(%err, "cannot see how much waits; trying again"),
        }
        let wait = tokio::time::timeout(LOOK_EVERY, stop.asked());
        if wait.await.is_ok() {
            return;
        }
    }
}
