//! A wall clock that is set back. Whatever waits for a time would wait longer by as much, so it comes along.

use hookyard_nouns::clock;
use tokio::time::Instant;

use super::Dispatcher;
use super::alarms::Alarms;

/// By less a clock is not set, but corrected.
const STEP_MS: i64 = 1_000;

/// How far the wall clock is ahead of the time that has passed since the start.
pub(super) struct Watch {
    began: Instant,
    ahead_ms: i64,
}

impl Watch {
    pub(super) fn new() -> Watch {
        Watch { began: Instant::now(), ahead_ms: clock::now_ms() }
    }
}

impl Dispatcher {
    pub(super) async fn follow_the_clock(&mut self) {
        let now_ms = clock::now_ms();
        let passed_ms = self.watch.began.elapsed().as_millis();
        let ahead_ms = now_ms - i64::try_from(passed_ms).unwrap_or(i64::MAX);
        let by_ms = self.watch.ahead_ms - ahead_ms;
        if by_ms > STEP_MS {
            // A store that cannot write says so by itself. It is asked again with the next turn.
            let Ok(()) = self.app.store.set_back(now_ms, by_ms).await else { return };
            tracing::warn!(by_ms, "the clock was set back; what waits for a time comes along");
            self.set_back(now_ms, by_ms);
        }
        self.watch.ahead_ms = ahead_ms;
    }

    fn set_back(&mut self, now_ms: i64, by_ms: i64) {
        self.alarms = Alarms::default();
        self.pace.set_back(by_ms);
        for (subscription, lane) in &mut self.lanes {
            lane.set_back(by_ms);
            if lane.claiming {
                // What it finds may have been due by the clock as it was.
                lane.due_at(now_ms);
            }
            let times = [lane.next_due_ms, lane.flow.shut_until_ms(), Some(lane.rests_until_ms)];
            for at_ms in times.into_iter().flatten().chain([lane.forgets_ms]) {
                self.alarms.set(at_ms, *subscription);
            }
        }
    }
}
