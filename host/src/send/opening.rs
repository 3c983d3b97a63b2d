//! How far a connection has come that is being opened, and how long each phase has taken.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Phases;
use super::explain::{self, Failure};
use crate::patience;

/// What takes time in an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Dns,
    Connect,
    Tls,
    Answer,
}

/// How far a connection has come.
#[derive(Debug, Default)]
pub(super) struct Opening(Mutex<Progress>);

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    pub(super) phases: Phases,
    pub(super) present: Option<(Phase, Instant)>,
    /// Since when it waits for something of ours.
    waits_since: Option<Instant>,
    /// How long it has waited for something of ours, or could not go on because the process was
    /// held up.
    held_up: Duration,
}

impl Opening {
    /// What has been taken up to now; a phase that is not over counts.
    pub(super) fn progress(&self) -> Progress {
        let mut progress = *self.lock();
        progress.count_present();
        progress
    }

    /// By how much the deadline of the request comes later: what was no time of the endpoint's.
    pub(super) fn held_up(&self) -> Duration {
        let progress = self.lock();
        progress.held_up + progress.waits_since.map_or(Duration::ZERO, |it| it.elapsed())
    }

    pub(super) async fn phase<T>(
        &self,
        phase: Phase,
        limit: Duration,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let since = Instant::now();
        self.lock().present = Some((phase, since));
        let done = patience::timeout(limit, work).await;
        let mut progress = self.lock();
        progress.count_present();
        progress.present = None;
        // It ends within its limit, unless this process was held up: the next phases get their
        // time.
        progress.held_up += since.elapsed().saturating_sub(limit);
        done.unwrap_or_else(|_| Err(explain::timed_out(phase)))
    }

    /// Waits for something of ours.
    pub(super) async fn ours<T>(&self, work: impl Future<Output = T>) -> T {
        let since = Instant::now();
        self.lock().waits_since = Some(since);
        let done = work.await;
        let mut progress = self.lock();
        progress.waits_since = None;
        progress.held_up += since.elapsed();
        done
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress {
    fn count_present(&mut self) {
        let Some((phase, since)) = self.present else { return };
        let of = match phase {
            Phase::Dns => &mut self.phases.dns,
            Phase::Connect => &mut self.phases.connect,
            Phase::Tls => &mut self.phases.tls,
            Phase::Answer => &mut self.phases.first_byte,
        };
        *of = Some(since.elapsed());
    }
}
