//! What an event has to wait for, away from the workers: others go on meanwhile.

use std::time::{Duration, Instant};

use hookyard_nouns::subscription::Subscription;
use tokio::time::timeout_at;

use super::READ_AGAIN;
use super::deliveries::Out;
use super::routing::Routing;
use crate::store::Quarantine;
use crate::wasm::{Fault, Making};

/// How often a plugin that could not be run is tried again, and how long after.
const RUN_AGAIN: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_millis(400), Duration::from_millis(1_600)];
/// How long an event waits in memory for the code of its plugins. After that its deliveries wait in the store,
/// where people see them.
const CODE_PATIENCE: Duration = Duration::from_secs(5);

/// Something without which an event cannot go on. It is waited for away from the workers.
pub(super) enum Need {
    /// What other processes, or other calls, have done with subscriptions.
    Subscriptions,
    /// What was recorded of the event before.
    Recorded,
    /// Room for the tenant's records in the store, and for its deliveries at the dispatcher.
    Room,
    /// A quarantine, on disk: a crash would leave deliveries held for no reason that is known.
    Quarantine(Box<Quarantine>),
    /// The code of a plugin, which is being made.
    Code(Making),
    Pause(Duration),
}

impl Routing {
    /// What has to be waited for before anything is done.
    pub(super) fn need(&self) -> Option<Need> {
        let (app, tenant) = (&self.app, &self.event.tenant);
        if !self.caught_up && !app.knows(self.event.revision) {
            Some(Need::Subscriptions)
        } else if self.recorded.is_none() {
            Some(Need::Recorded)
        } else if !app.store.has_room(tenant) || !app.outgoing.has_room(tenant) {
            Some(Need::Room)
        } else {
            None
        }
    }

    pub(super) async fn wait_for(&mut self, need: Need) {
        let (app, tenant) = (&self.app, &self.event.tenant);
        match need {
            Need::Subscriptions => {
                while let Err(err) = app.catch_up().await {
                    tracing::warn!(%err, "cannot read subscriptions; trying again");
                    tokio::time::sleep(READ_AGAIN).await;
                }
                self.caught_up = true;
                if !app.knows(self.event.revision) {
                    // Its number has been damaged: it is matched by what is known.
                    let (event, revision) = (self.event.id, self.event.revision);
                    tracing::error!(%event, revision, "an event is newer than any subscription");
                }
            }
            Need::Recorded => {
                let recorded = loop {
                    match app.store.recorded(&self.event).await {
                        Ok(recorded) => break recorded,
                        Err(err) => {
                            tracing::warn!(%err, "cannot read deliveries; trying again");
                            tokio::time::sleep(READ_AGAIN).await;
                        }
                    }
                };
                self.recorded = Some(recorded.into_iter().collect());
            }
            Need::Room => {
                app.store.room(tenant).await;
                app.outgoing.room(tenant).await;
            }
            Need::Quarantine(it) => app.begin_quarantine(*it).await,
            Need::Code(making) => {
                let until = self.code_until.unwrap_or_else(Instant::now);
                // When it is over, the next turn puts off what still misses something.
                let _ = timeout_at(until.into(), making.ended()).await;
            }
            Need::Pause(time) => tokio::time::sleep(time).await,
        }
    }

    /// The pipeline could not be run, which is not its fault. What is still to be waited for; none where the
    /// delivery has been put off.
    pub(super) fn not_run(
        &mut self,
        subscription: &Subscription,
        fault: Fault,
        out: &mut Out,
    ) -> Option<Need> {
        let now = Instant::now();
        let need = if let Fault::NotReady(making) = &fault {
            let until = *self.code_until.get_or_insert(now + CODE_PATIENCE);
            (now < until).then(|| Need::Code(making.clone()))
        } else {
            RUN_AGAIN.get(self.runs).map(|wait| {
                tracing::warn!(subscription = %subscription.id, %fault, "a plugin cannot be run; trying again");
                self.runs += 1;
                Need::Pause(*wait)
            })
        };
        if need.is_none() {
            self.put_off(subscription, &fault, out);
        }
        need
    }
}
