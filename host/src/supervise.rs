//! The tasks that a router is made of: whether each of them still works, and when all of them have to end.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

/// All stages of one router.
#[derive(Debug)]
pub struct Stages {
    stop: watch::Sender<Option<Instant>>,
    failed: watch::Sender<Option<&'static str>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// Tells a stage that it is to end.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<Option<Instant>>);

/// Says when it is dropped that a stage has ended, whether it panicked or returned.
struct Watched {
    stages: Arc<Stages>,
    name: &'static str,
}

impl Default for Stages {
    fn default() -> Stages {
        let (stop, failed) = (watch::Sender::new(None), watch::Sender::new(None));
        Stages { stop, failed, tasks: Mutex::default() }
    }
}

impl Stages {
    /// Begins a stage. It goes on until it is told to stop: a stage that ends before is the end of the router,
    /// since events would wait for it for ever.
    pub fn begin<F>(self: &Arc<Stages>, name: &'static str, stage: impl FnOnce(Stop) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stage = stage(self.stop());
        let watched = Watched { stages: Arc::clone(self), name };
        let task = tokio::spawn(async move {
            let _watched = watched;
            stage.await;
        });
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(task);
    }

    /// Which stage has ended that was not to end.
    pub fn failed(&self) -> Option<&'static str> {
        *self.failed.borrow()
    }

    /// Waits until a stage has ended that was not to end, and answers which.
    pub async fn failure(&self) -> &'static str {
        let mut failed = self.failed.subscribe();
        let name = failed.wait_for(Option::is_some).await.ok().and_then(|it| *it);
        name.expect("this has the sender, and there is a name")
    }

    /// Tells all stages to end, and waits for them until a time. Answers whether all have ended.
    pub async fn end(&self, until: Instant) -> bool {
        self.stop.send_replace(Some(until));
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        let mut all = true;
        for mut task in tasks {
            // One that does not look at its deadline is cut off.
            all &= timeout_at(until, &mut task).await.inspect_err(|_| task.abort()).is_ok();
        }
        all
    }

    /// For what ends with the stages and is not one of them.
    pub fn stop(&self) -> Stop {
        Stop(self.stop.subscribe())
    }
}

impl Stop {
    /// Waits until everything is to end, and answers by when.
    pub async fn asked(&mut self) -> Instant {
        let until = self.0.wait_for(Option::is_some).await.ok().and_then(|it| *it);
        // Ends as well when the router is dropped without being stopped.
        until.unwrap_or_else(Instant::now)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if self.stages.stop.borrow().is_none() {
            tracing::error!(
                stage = self.name,
                "a stage of the router has ended, and the router ends with it"
            );
            self.stages.failed.send_replace(Some(self.name));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_stage_that_panics_or_returns_is_a_failure() {
        let panics = Arc::new(Stages::default());
        panics.begin("panics", |_| async { panic!("on purpose") });
        assert_eq!(panics.failure().await, "panics");
        let returns = Arc::new(Stages::default());
        returns.begin("returns", |_| async {});
        assert_eq!(returns.failure().await, "returns");
        assert_eq!(returns.failed(), Some("returns"));
    }

    #[tokio::test]
    async fn stages_end_by_their_time_whatever_hangs() {
        let stages = Arc::new(Stages::default());
        stages.begin("ends", |mut stop| async move { _ = stop.asked().await });
        let until = Instant::now() + Duration::from_millis(20);
        assert!(stages.end(until).await);
        let stages = Arc::new(Stages::default());
        stages.begin("hangs", |_| std::future::pending());
        assert!(!stages.end(until).await);
        assert_eq!(stages.failed(), None, "it was told to end");
    }
}
