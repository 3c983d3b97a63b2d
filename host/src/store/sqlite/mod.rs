//! SQLite: one file, one writer thread, readers beside it.

mod access;
mod calls;
mod checkpoint;
mod counts;
mod deaths;
mod due;
mod events;
mod file;
mod found;
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
mod queue;
mod replay_calls;
mod replays;
mod retention;
mod rows;
mod search;
mod subscriptions;
mod trouble;
mod usage;
mod wal;
mod writer;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rusqlite::{Connection, OpenFlags};
use tokio::sync::oneshot;

use super::{Result, Signals, StoreError, Usage};
use crate::fair::{Owner, Pool, Room};
use crate::secret::ServerKey;
use checkpoint::Checkpointer;
use file::StoreFile;
use open::{check_key, connect, migrate};
use queue::{Job, Jobs};
use trouble::Trouble;
use writer::{Writer, Writing};

/// Readers for what takes microseconds and what events wait for, and readers for what looks through the log.
const READERS: usize = 2;
const SEARCHERS: usize = 2;
/// Of the searchers, one owner has one; and all of them get a core after whoever delivers.
const SEARCHERS_OF_ONE: usize = 1;
const SEARCHERS_NICENESS: i32 = 10;
/// How many reads of one owner may wait. Their answers are bounded by pages.
const WAITING: Room = Room { own_items: 512, own_bytes: usize::MAX, all_bytes: usize::MAX };

/// A store in a file.
pub struct Sqlite {
    jobs: Arc<Jobs>,
    readers: Pool<Connection>,
    searchers: Pool<Connection>,
    key: Arc<ServerKey>,
    trouble: Arc<Trouble>,
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
    /// Opens or makes a file, and brings its tables up to date. `quotas`: the most that one tenant may have.
    ///
    /// # Errors
    ///
    /// The file cannot be used, is newer than this program, or another router has it.
    pub fn open(
        path: &Path,
        key: ServerKey,
        sharing: Sharing,
        quotas: Usage,
        signals: Signals,
    ) -> anyhow::Result<Sqlite> {
        let mut file = StoreFile::open(path)?;
        let has_other_names = file.has_other_names()?;
        match sharing {
            Sharing::Exclusive => {
                file.lock()?;
                file.check_log()?;
            }
            // A router may have it open by another of these names.
            Sharing::Shared => anyhow::ensure!(
                !has_other_names,
                "`{}` has more names (hard links): by another one than the router's, its log would be \
                 another file, and both would be destroyed; remove the links but one",
                path.display()
            ),
        }
        let mut connection = connect(path, OpenFlags::default())?;
        migrate(&mut connection)?;
        check_key(&connection, &key)?;
        file.take_note_of_log();
        if has_other_names {
            tracing::warn!(path = %path.display(), "the store has more names (hard links); use this one alone");
        }
        file.open_to_others().inspect(|why| tracing::warn!("{why}"));
        let (readers, searchers) = (connections(path, READERS)?, connections(path, SEARCHERS)?);
        let key = Arc::new(key);
        let (jobs, trouble) = (Arc::new(Jobs::new()), Arc::new(Trouble::default()));
        let checkpointer = Checkpointer::start(path, &mut connection)?;
        let writer = Writer::new(
            connection,
            Arc::clone(&key),
            quotas,
            signals,
            file,
            Arc::clone(&trouble),
            checkpointer,
        )?;
        Ok(Sqlite {
            readers: Pool::start("store-reader", readers, READERS, 0, WAITING)?,
            searchers: Pool::start(
                "store-search",
                searchers,
                SEARCHERS_OF_ONE,
                SEARCHERS_NICENESS,
                WAITING,
            )?,
            thread: Mutex::new(Some(writer.start(Arc::clone(&jobs))?)),
            jobs,
            key,
            trouble,
        })
    }

    /// Runs a short query: by a key, along an index, of a few rows.
    async fn read<T: Send + 'static>(
        &self,
        owner: &Owner,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        read_in(&self.readers, owner, query).await
    }

    /// Runs a query that may take its time.
    async fn search<T: Send + 'static>(
        &self,
        owner: &Owner,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        read_in(&self.searchers, owner, query).await
    }

    /// Makes a change in one of the writer's next groups, in the owner's turn, and waits for its commit.
    async fn write<T: Send + 'static>(
        &self,
        owner: &Owner,
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
        if !self.jobs.call(owner, Job::Write(change)).await {
            return Err(closed());
        }
        answer.await.map_err(|_| not_written())?
    }
}

fn connections(path: &Path, count: usize) -> anyhow::Result<Vec<Connection>> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    (0..count).map(|_| connect(path, flags)).collect()
}

async fn read_in<T: Send + 'static>(
    readers: &Pool<Connection>,
    owner: &Owner,
    query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
) -> Result<T> {
    let answer = readers.ask(owner, 0, |connection| query(connection)).await;
    let busy = || "too many queries wait, or this one was interrupted".to_owned();
    answer.ok_or_else(|| StoreError::Unavailable(busy()))?.map_err(StoreError::from)
}

fn closed() -> StoreError {
    StoreError::Unavailable("the store is closed".to_owned())
}

/// The transaction that this was to be part of has failed before.
fn not_written() -> StoreError {
    StoreError::Unavailable("the store cannot write now".to_owned())
}

impl From<rusqlite::Error> for StoreError {
    fn from(err: rusqlite::Error) -> StoreError {
        if rows::is_broken(&err) {
            StoreError::Broken(rows::why(&err))
        } else {
            StoreError::Unavailable(err.to_string())
        }
    }
}
