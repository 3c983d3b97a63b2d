//! What was held while a subscription was paused, or while its plugin failed, goes out again: in order, at a
//! bounded rate, and before anything that comes meanwhile, which is held as well until then.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use uuid::Uuid;

use crate::app::{App, Signal};
use crate::clock;
use crate::store;

const ROUND: Duration = Duration::from_millis(100);
const ROUNDS_A_SECOND: usize = 10;

/// The subscriptions for which that goes on.
#[derive(Default)]
pub struct Releases {
    under_way: RwLock<HashSet<Uuid>>,
    begins: Notify,
}

impl Releases {
    pub fn is_under_way(&self, subscription: Uuid) -> bool {
        let under_way = self.under_way.read().unwrap_or_else(PoisonError::into_inner);
        !under_way.is_empty() && under_way.contains(&subscription)
    }

    /// To be called before a subscription becomes active or its plugin well: nothing that comes then may
    /// overtake what is held. It ends by itself when there is nothing.
    pub fn begin(&self, subscription: Uuid) {
        self.under_way.write().unwrap_or_else(PoisonError::into_inner).insert(subscription);
        self.begins.notify_one();
    }

    fn end(&self, subscription: Uuid) {
        self.under_way.write().unwrap_or_else(PoisonError::into_inner).remove(&subscription);
    }

    fn all(&self) -> Vec<Uuid> {
        let under_way = self.under_way.read().unwrap_or_else(PoisonError::into_inner);
        under_way.iter().copied().collect()
    }
}

/// Works until it is told to stop.
pub async fn run(app: Arc<App>, mut stop: watch::Receiver<bool>) {
    loop {
        let under_way = app.releases.all();
        for it in &under_way {
            if let Err(err) = release(&app, *it).await {
                tracing::warn!(subscription = %it, %err, "cannot release deliveries; trying again");
            }
        }
        let stopped = stop.wait_for(|stop| *stop);
        tokio::select! {
            _ = stopped => return,
            () = app.releases.begins.notified(), if under_way.is_empty() => {}
            () = tokio::time::sleep(ROUND), if !under_way.is_empty() => {}
        }
    }
}

async fn release(app: &Arc<App>, subscription: Uuid) -> store::Result<()> {
    let limit = (app.settings.catch_up_per_second / ROUNDS_A_SECOND).max(1);
    if app.store.release_held(subscription, limit, clock::now_ms()).await? {
        // Without a dispatcher there is nobody to tell.
        let _ = app.outgoing.send(Signal::Changed(vec![subscription])).await;
    } else {
        app.releases.end(subscription);
    }
    Ok(())
}
