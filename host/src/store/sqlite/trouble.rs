//! Why nothing can be written: what `/readyz` and callers are told. A disk that comes and goes does not make
//! the log come and go with it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long all has to be well until it is said that it is.
const CALM: Duration = Duration::from_secs(2);
/// How long a transaction may take until something is wrong with the disk.
const SLOW: Duration = Duration::from_secs(5);

/// What the writer is hindered by.
#[derive(Debug, Default)]
pub(super) struct Trouble(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Why the last transaction that failed did so, until all has been well for a while.
    failing: Option<String>,
    /// Since when transactions succeed again.
    well_since: Option<Instant>,
    /// The files are not the ones at their paths any more. That lasts until the end of the process.
    moved: Option<String>,
    /// Nobody writes any more.
    dead: Option<&'static str>,
    /// Since when a transaction is under way.
    writing_since: Option<Instant>,
}

impl Trouble {
    /// Why nothing can be written now; none when all is well.
    pub(super) fn why(&self) -> Option<String> {
        let state = self.lock();
        let dead = state.dead.map(str::to_owned);
        let known = dead.or_else(|| state.moved.clone()).or_else(|| state.failing.clone());
        known.or_else(|| {
            let took = state.writing_since?.elapsed();
            (took >= SLOW).then(|| format!("a commit has taken {} s so far", took.as_secs()))
        })
    }

    /// A transaction begins.
    pub(super) fn writes(&self, now: Instant) {
        self.lock().writing_since = Some(now);
    }

    /// It has ended.
    pub(super) fn has_written(&self) {
        self.lock().writing_since = None;
    }

    /// Whether the process has to end, since nothing will ever be written again.
    pub(super) fn is_dead(&self) -> bool {
        self.lock().dead.is_some()
    }

    /// What has become of the files, where they are not at their paths any more.
    pub(super) fn moved(&self) -> Option<String> {
        self.lock().moved.clone()
    }

    /// A transaction has failed. Told once, however long it lasts.
    pub(super) fn cannot_write(&self, why: &str) {
        let mut state = self.lock();
        state.well_since = None;
        if state.failing.replace(why.to_owned()).is_none() {
            tracing::error!(%why, "the store cannot write; publishers are told to wait");
        }
    }

    /// A transaction has succeeded, or nothing had to be written for a while since one has.
    pub(super) fn is_well(&self, now: Instant) {
        let mut state = self.lock();
        if state.failing.is_none() {
            return;
        }
        let since = *state.well_since.get_or_insert(now);
        if now - since >= CALM {
            (state.failing, state.well_since) = (None, None);
            tracing::info!("the store can write again");
        }
    }

    /// Whether the last transaction has failed.
    pub(super) fn fails_now(&self) -> bool {
        let state = self.lock();
        state.failing.is_some() && state.well_since.is_none()
    }

    /// A file of the store was moved. Answers whether that is news.
    pub(super) fn has_moved(&self, why: &str) -> bool {
        let mut state = self.lock();
        let is_news = state.moved.is_none();
        if is_news {
            tracing::error!("{why}");
            state.moved = Some(why.to_owned());
        }
        is_news
    }

    pub(super) fn has_died(&self, why: &'static str) {
        tracing::error!("{why}");
        self.lock().dead = Some(why);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_comes_and_goes_is_told_once() {
        let (trouble, start) = (Trouble::default(), Instant::now());
        let after = |ms| start + Duration::from_millis(ms);
        for round in 0..20 {
            trouble.cannot_write("disk full");
            assert!(trouble.fails_now());
            trouble.is_well(after(250 * round));
            assert!(!trouble.fails_now());
            assert_eq!(
                trouble.why().as_deref(),
                Some("disk full"),
                "it has not been well for long"
            );
        }
        trouble.is_well(after(6_749));
        assert!(trouble.why().is_some());
        trouble.is_well(after(6_750));
        assert_eq!(trouble.why(), None);
    }

    #[test]
    fn a_disk_that_hangs_is_told() {
        let (trouble, now) = (Trouble::default(), Instant::now());
        trouble.writes(now);
        assert_eq!(trouble.why(), None);
        trouble.writes(now.checked_sub(SLOW).unwrap());
        assert!(trouble.why().unwrap().contains("5 s"));
        trouble.has_written();
        assert_eq!(trouble.why(), None);
    }

    #[test]
    fn a_store_whose_file_has_gone_stays_in_trouble() {
        let trouble = Trouble::default();
        assert!(trouble.has_moved("gone"));
        assert!(!trouble.has_moved("gone"));
        trouble.is_well(Instant::now());
        assert_eq!(trouble.why().as_deref(), Some("gone"));
        assert!(trouble.moved().is_some());
    }
}
