//! Makes deliveries again, page by page, in the background. How far it has come is in the store, so that
//! the next process goes on where this one ends.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use hookyard_nouns::clock;
use hookyard_nouns::event::Tenant;
use serde_json::json;
use tokio::task::{self, JoinSet};
use uuid::Uuid;

use super::announce;
use crate::app::App;
use crate::store::{self, Replay, ReplayState};
use crate::supervise::Stop;

/// How many deliveries a replay makes due in one round, and how long a round is.
const ROUND_MAX: u32 = 500;
const ROUND: Duration = Duration::from_millis(100);
const ROUNDS_A_MINUTE: u32 = 600;
/// How often it looks for more of them in one round, where few of those that it comes by are wanted.
const LOOKS_MAX: usize = 10;
/// How many tenants have their rounds at once.
const TENANTS_AT_ONCE: usize = 16;

/// Works until it is told to stop.
pub async fn run(app: Arc<App>, mut stop: Stop) {
    let mut replayer = Replayer::default();
    loop {
        let goes_on = match app.store.running_replays().await {
            Ok(running) => {
                let goes_on = !running.is_empty();
                replayer.begin_rounds(&app, running);
                goes_on
            }
            Err(err) => {
                tracing::warn!(%err, "cannot go on with replays; trying again");
                true
            }
        };
        let round = tokio::time::sleep(ROUND);
        tokio::select! {
            _ = stop.asked() => return,
            () = app.replay_begins.notified() => {}
            () = round, if goes_on => {}
        }
        while let Some(ended) = replayer.rounds.try_join_next_with_id() {
            let ended = ended.map_or_else(|err| err.id(), |(id, ())| id);
            replayer.in_round.retain(|_, id| *id != ended);
        }
    }
}

#[derive(Default)]
struct Replayer {
    /// What each may make due, where it has a rate: in parts, of which a delivery is as many as there are
    /// rounds in a minute.
    allowed: HashMap<Uuid, u32>,
    /// Tenants have rounds of their own: whoever replays much waits for the store alone.
    rounds: JoinSet<()>,
    in_round: HashMap<Tenant, task::Id>,
}

impl Replayer {
    /// Every replay goes one page further, of the tenants whose last round has ended.
    fn begin_rounds(&mut self, app: &Arc<App>, running: Vec<Replay>) {
        self.allowed.retain(|id, _| running.iter().any(|it| it.id == *id));
        let mut of: HashMap<Tenant, Vec<Replay>> = HashMap::new();
        for it in running {
            of.entry(it.tenant.clone()).or_default().push(it);
        }
        for (tenant, own) in of {
            if self.rounds.len() >= TENANTS_AT_ONCE || self.in_round.contains_key(&tenant) {
                continue;
            }
            let own = own.into_iter().map(|it| (self.limit(&it), it)).collect();
            let round = self.rounds.spawn(step_all(Arc::clone(app), own));
            self.in_round.insert(tenant, round.id());
        }
    }

    /// How many deliveries a replay may make due in this round.
    fn limit(&mut self, it: &Replay) -> u32 {
        let Some(rate) = it.per_minute else { return ROUND_MAX };
        let left = self.allowed.entry(it.id).or_insert(ROUNDS_A_MINUTE);
        *left += rate;
        let whole = (*left / ROUNDS_A_MINUTE).min(ROUND_MAX);
        *left = (*left - whole * ROUNDS_A_MINUTE).min(ROUNDS_A_MINUTE);
        whole
    }
}

async fn step_all(app: Arc<App>, own: Vec<(u32, Replay)>) {
    for (limit, it) in own {
        let id = it.id;
        if limit > 0
            && let Err(err) = step(&app, it, usize::try_from(limit).unwrap_or(1)).await
        {
            tracing::warn!(replay = %id, %err, "cannot go on with a replay; trying again");
        }
    }
}

async fn step(app: &App, mut it: Replay, limit: usize) -> store::Result<()> {
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
    app.outgoing.changed(&it.tenant, page.iter().map(|row| row.subscription));
    if it.state == ReplayState::Done {
        let data = json!({"replay": it.id, "replayed": it.replayed, "skipped": it.skipped});
        announce(app, &it.tenant, "replay.done", data).await?;
    }
    Ok(())
}
