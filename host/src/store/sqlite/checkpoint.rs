//! Moves what is in the write-ahead log into the database, beside the writer: as a part of a commit it would hold up
//! everybody whose event is in that commit, and those who come meanwhile.
//!
//! The log begins anew when all of it has been moved. While the writer goes on there is always a rest, so the thread
//! makes several passes, until the rest is small; that one is moved by the writer, between two commits.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::open::connect;

/// How many pages are in the log when this begins. It is read whole at a start after a kill.
const PAGES: u32 = 4_000;
/// How many pages the writer moves without being slow.
const REST_MAX: u32 = 400;
/// With how many pages in the log the writer writes less: the thread moves them more slowly than they come.
const PAGES_LATE: u32 = 6_000;
/// How many pages are in the log when the writer moves whatever is left.
const PAGES_MAX: u32 = 16_000;
/// How long a disk that has refused is left alone.
const REFUSED: Duration = Duration::from_secs(1);

/// The thread, as the writer knows it.
pub(super) struct Checkpointer {
    log: Arc<Log>,
    thread: JoinHandle<()>,
}

/// What is known of the log.
#[derive(Default)]
struct Log {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// How many pages it has.
    pages: u32,
    /// The writer is to move the rest.
    is_short: bool,
    has_ended: bool,
}

impl Checkpointer {
    /// Has the writer's commits counted, and begins to move what they write.
    ///
    /// # Errors
    ///
    /// The file cannot be opened once more, or there is no thread.
    pub(super) fn start(path: &Path, writer: &mut Connection) -> anyhow::Result<Checkpointer> {
        let log = Arc::new(Log::default());
        let counted = Arc::clone(&log);
        writer.wal_hook(Some(move |_: &mut _, pages| {
            counted.has(u32::try_from(pages).unwrap_or(0));
            Ok(())
        }))?;
        let (connection, moved) = (connect(path, OpenFlags::default())?, Arc::clone(&log));
        let thread = thread::Builder::new().name("store-checkpoint".to_owned());
        Ok(Checkpointer { log, thread: thread.spawn(move || moved.work(&connection))? })
    }

    /// What the writer does between two commits.
    pub(super) fn finish(&self, writer: &Connection) {
        let mut state = self.log.lock();
        if !std::mem::take(&mut state.is_short) {
            return;
        }
        // The next commit tells whether the log has begun anew.
        state.pages = 0;
        drop(state);
        // What is refused here is moved by the next pass.
        let _ = pass(writer);
    }

    /// Whether pages come faster than they are moved.
    pub(super) fn is_late(&self) -> bool {
        self.log.lock().pages >= PAGES_LATE
    }

    /// Waits until nothing is being moved.
    pub(super) fn end(self) {
        self.log.lock().has_ended = true;
        self.log.changed.notify_one();
        if self.thread.join().is_err() {
            tracing::error!(
                "the thread that moves the write-ahead log into the store has panicked"
            );
        }
    }
}

impl Log {
    fn has(&self, pages: u32) {
        let mut state = self.lock();
        let was = std::mem::replace(&mut state.pages, pages);
        drop(state);
        if was < PAGES && pages >= PAGES {
            self.changed.notify_one();
        }
    }

    fn work(&self, connection: &Connection) {
        loop {
            let state = self.lock();
            let waits = |it: &mut State| !it.has_ended && (it.pages < PAGES || it.is_short);
            let waited = self.changed.wait_while(state, waits);
            if waited.unwrap_or_else(PoisonError::into_inner).has_ended {
                return;
            }
            let moved = pass(connection);
            let mut state = self.lock();
            match moved {
                Ok(moved) => {
                    let rest = state.pages.saturating_sub(moved);
                    state.is_short = rest <= REST_MAX || state.pages >= PAGES_MAX;
                }
                Err(err) => {
                    tracing::warn!(%err, "the write-ahead log cannot be moved into the store");
                    let waited =
                        self.changed.wait_timeout_while(state, REFUSED, |it| !it.has_ended);
                    drop(waited);
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Moves what nobody reads in the log any more, without waiting for anybody. Answers how many pages of it are moved
/// by now; more may have come meanwhile.
fn pass(connection: &Connection) -> rusqlite::Result<u32> {
    let mut pass = connection.prepare_cached("pragma wal_checkpoint(passive)")?;
    // The number is -1 where another connection moves pages.
    pass.query_row((), |row| Ok(u32::try_from(row.get::<_, i64>(2)?).unwrap_or(0)))
}
