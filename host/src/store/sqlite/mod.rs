//! SQLite: one file, one writer thread, readers beside it.

mod access;
mod calls;
mod counts;
mod events;
mod held;
mod inspect;
mod known;
mod log;
mod open;
mod order;
mod paths;
mod plugin_calls;
mod plugin_log;
mod plugins;
mod quarantines;
mod replay_calls;
mod replays;
mod retention;
mod rows;
mod search;
mod subscriptions;
mod writer;

use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;

use rusqlite::{Connection, OpenFlags};
use tokio::sync::{Semaphore, oneshot};

use super::{Result, Signals, StoreError};
use crate::secret::ServerKey;
use open::{connect, lock, migrate};
use writer::{Job, Writer, Writing};

const READERS: usize = 4;
/// How many jobs may wait for the writer. Whoever comes then waits.
const JOBS_MAX: usize = 4_096;

/// A store in a file.
pub struct Sqlite {
    jobs: mpsc::Sender<Job>,
    /// A permit for each job that may still be queued.
    room: Arc<Semaphore>,
    readers: Arc<Mutex<Vec<Connection>>>,
    permits: Semaphore,
    key: Arc<ServerKey>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Whether other processes may write to the same file meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// The router's own: there can be one.
    Exclusive,
    /// A command's, beside a router or not.
    Shared,
}

impl Sqlite {
    /// Opens or makes a file, and brings its tables up to date.
    ///
    /// # Errors
    ///
    /// The file cannot be used, is newer than this program, or another router has it.
    pub fn open(
        path: &Path,
        key: ServerKey,
        sharing: Sharing,
        signals: Signals,
    ) -> anyhow::Result<Sqlite> {
        let lock = match sharing {
            Sharing::Exclusive => Some(lock(path)?),
            Sharing::Shared => None,
        };
        let mut connection = connect(path, OpenFlags::default())?;
        migrate(&mut connection)?;
        let readers = (0..READERS)
            .map(|_| {
                connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        let key = Arc::new(key);
        let (jobs, queue) = mpsc::channel();
        let room = Arc::new(Semaphore::new(JOBS_MAX));
        let writer = Writer::new(connection, Arc::clone(&key), signals)?;
        let thread = writer.start(queue, Arc::clone(&room), lock)?;
        Ok(Sqlite {
            jobs,
            room,
            readers: Arc::new(Mutex::new(readers)),
            permits: Semaphore::new(READERS),
            key,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Runs a query on one of the readers.
    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let _permit = self.permits.acquire().await.expect("the semaphore is never closed");
        let readers = Arc::clone(&self.readers);
        let pool = || StoreError::Unavailable("a query was interrupted".to_owned());
        tokio::task::spawn_blocking(move || {
            let lock = || readers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let reader = lock().pop().ok_or_else(pool)?;
            let answer = query(&reader);
            lock().push(reader);
            answer.map_err(unavailable)
        })
        .await
        .map_err(|_| pool())?
    }

    /// Makes a change in the writer's next group, and waits for its commit.
    async fn write<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Writing<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let change = Box::new(move |writing: &mut Writing<'_>| -> writer::Finish {
            let revision = writing.known.revision;
            let result = change(writing);
            let end = if result.is_ok() {
                "release change"
            } else {
                // An event that is accepted at a revision that never was would wait for it for ever.
                writing.known.revision = revision;
                "rollback to change; release change"
            };
            // Where this fails there is no transaction any more, and the commit says so.
            let _ = writing.connection.execute_batch(end);
            Box::new(move |committed: Result<()>| {
                // Nobody may be waiting any more.
                let _ = reply.send(committed.and(result));
            })
        });
        self.send(Job::Write(change)).await?;
        answer.await.map_err(|_| not_written())?
    }

    async fn send(&self, job: Job) -> Result<()> {
        // The writer gives the permit back when it takes the job.
        self.room.acquire().await.expect("the semaphore is never closed").forget();
        self.jobs.send(job).map_err(|_| closed())
    }
}

fn closed() -> StoreError {
    StoreError::Unavailable("the store is closed".to_owned())
}

/// The transaction that this was to be part of has failed before.
fn not_written() -> StoreError {
    StoreError::Unavailable("the store cannot write now".to_owned())
}

fn unavailable(err: rusqlite::Error) -> StoreError {
    StoreError::Unavailable(err.to_string())
}

impl From<rusqlite::Error> for StoreError {
    fn from(err: rusqlite::Error) -> StoreError {
        unavailable(err)
    }
}
