//! Makes deliveries again, page by page, in the background. How far it has come is in the store, so that
//! the next process goes on where this one ends.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;
use uuid::Uuid;

use super::announce;
use crate::app::{App, Signal};
use crate::clock;
use crate::store::{self, Replay, ReplayState};

/// How many deliveries a replay makes due in one round, and how long a round is.
const ROUND_MAX: u32 = 500;
const ROUND: Duration = Duration::from_millis(100);
const ROUNDS_A_MINUTE: u32 = 600;
/// How often it looks for more of them in one round, where few of those that it comes by are wanted.
const LOOKS_MAX: usize = 10;

/// Works until it is told to stop.
pub async fn run(app: Arc<App>, mut stop: watch::Receiver<bool>) {
    // What each may make due, where it has a rate: in parts, of which a delivery is as many as there are
    // rounds in a minute.
    let mut allowed: HashMap<Uuid, u32> = HashMap::new();
    loop {
        let goes_on = match round(&app, &mut allowed).await {
            Ok(goes_on) => goes_on,
            Err(err) => {
                tracing::warn!(%err, "cannot go on with replays; trying again");
                true
            }
        };
        let begun = app.replay_begins.notified();
        let stopped = stop.wait_for(|stop| *stop);
        tokio::select! {
            _ = stopped => return,
            () = begun => {}
            () = tokio::time::sleep(ROUND), if goes_on => {}
        }
    }
}

/// Every replay goes one page further. Answers whether there is one that is not at its end.
async fn round(app: &Arc<App>, allowed: &mut HashMap<Uuid, u32>) -> store::Result<bool> {
    let running = app.store.running_replays().await?;
    allowed.retain(|id, _| running.iter().any(|it| it.id == *id));
    let mut goes_on = false;
    for it in running {
        let limit = match it.per_minute {
            None => ROUND_MAX,
            Some(rate) => {
                let left = allowed.entry(it.id).or_insert(ROUNDS_A_MINUTE);
                *left += rate;
                let whole = (*left / ROUNDS_A_MINUTE).min(ROUND_MAX);
                *left = (*left - whole * ROUNDS_A_MINUTE).min(ROUNDS_A_MINUTE);
                whole
            }
        };
        goes_on |= limit == 0 || step(app, it, usize::try_from(limit).unwrap_or(1)).await?;
    }
    Ok(goes_on)
}

/// Answers whether there is more.
async fn step(app: &Arc<App>, mut it: Replay, limit: usize) -> store::Result<bool> {
    let mut page = Vec::new();
    for _ in 0..LOOKS_MAX {
        let more = app.store.replay_page(&it, limit - page.len()).await?;
        page.extend(more.deliveries);
        match more.next {
            Some(next) => it.place = Some(next),
            None => {
                it.state = ReplayState::Done;
                it.ended_at_ms = Some(clock::now_ms());
                break;
            }
        }
        if page.len() >= limit {
            break;
        }
    }
    let these: Vec<Uuid> = page.iter().filter(|row| row.has_data).map(|row| row.id).collect();
    it.replayed += u64::try_from(these.len()).unwrap_or(0);
    it.skipped += u64::try_from(page.len() - these.len()).unwrap_or(0);
    let it = app.store.replay_these(it, these, clock::now_ms()).await?;
    let mut subscriptions: Vec<Uuid> = page.iter().map(|row| row.subscription).collect();
    subscriptions.sort_unstable();
    subscriptions.dedup();
    // Without a dispatcher there is nobody to tell.
    let _ = app.outgoing.send(Signal::Changed(subscriptions)).await;
    if it.state == ReplayState::Done {
        let data = json!({"replay": it.id, "replayed": it.replayed, "skipped": it.skipped});
        announce(app, &it.tenant, "replay.done", data).await?;
    }
    Ok(it.state == ReplayState::Running)
}
