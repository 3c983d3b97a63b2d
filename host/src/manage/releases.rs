//! What was held while a subscription was paused, or while its plugin failed, goes out again: in order, at a
//! bounded rate, and before anything that comes meanwhile, which is held as well until then.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use uuid::Uuid;

use crate::app::{App, Signal};
use crate::clock;
use crate::store;

const ROUND: Duration = Duration::from_millis(100);
const ROUNDS_A_SECOND: usize = 10;
/// How long an endpoint that does not take what is due is let alone, at most.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// The subscriptions for which that goes on.
#[derive(Default)]
pub struct Releases {
    under_way: RwLock<HashMap<Uuid, Next>>,
    begins: Notify,
}

/// When more of what is held goes out.
#[derive(Clone, Copy)]
struct Next {
    at: Instant,
    wait: Duration,
}

impl Releases {
    /// Whether there is still something that goes first.
    pub fn is_under_way(&self, subscription: Uuid) -> bool {
        let under_way = self.under_way.read().unwrap_or_else(PoisonError::into_inner);
        !under_way.is_empty() && under_way.contains_key(&subscription)
    }

    /// To be called when a subscription has become active or its plugin well, before anybody is told: nothing
    /// that comes then may overtake what is held. It ends by itself when there is nothing.
    pub fn begin(&self, subscription: Uuid) {
        let next = Next { at: Instant::now(), wait: ROUND };
        self.under_way.write().unwrap_or_else(PoisonError::into_inner).insert(subscription, next);
        self.begins.notify_one();
    }

    /// What comes after a look, unless it has begun anew meanwhile.
    fn put(&self, subscription: Uuid, looked: Next, next: Option<Next>) {
        let mut under_way = self.under_way.write().unwrap_or_else(PoisonError::into_inner);
        match next {
            _ if under_way.get(&subscription).is_none_or(|it| it.at != looked.at) => {}
            Some(next) => _ = under_way.insert(subscription, next),
            None => _ = under_way.remove(&subscription),
        }
    }

    fn all(&self) -> Vec<(Uuid, Next)> {
        let under_way = self.under_way.read().unwrap_or_else(PoisonError::into_inner);
        under_way.iter().map(|(id, next)| (*id, *next)).collect()
    }
}

/// Works until it is told to stop.
pub async fn run(app: Arc<App>, mut stop: watch::Receiver<bool>) {
    loop {
        let under_way = app.releases.all();
        for (subscription, next) in &under_way {
            if next.at <= Instant::now()
                && let Err(err) = release(&app, *subscription, *next).await
            {
                tracing::warn!(%subscription, %err, "cannot release deliveries; trying again");
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

async fn release(app: &Arc<App>, subscription: Uuid, looked: Next) -> store::Result<()> {
    let limit = (app.settings.catch_up_per_second / ROUNDS_A_SECOND).max(1);
    let wait = match app.store.release_held(subscription, limit, clock::now_ms()).await? {
        None => {
            app.releases.put(subscription, looked, None);
            return Ok(());
        }
        Some(0) => (looked.wait * 2).min(WAIT_MAX),
        Some(_) => {
            // Without a dispatcher there is nobody to tell.
            let _ = app.outgoing.send(Signal::Changed(vec![subscription])).await;
            ROUND
        }
    };
    app.releases.put(subscription, looked, Some(Next { at: Instant::now() + wait, wait }));
    Ok(())
}
