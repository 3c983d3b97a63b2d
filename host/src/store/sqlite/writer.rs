//! The one thread that writes. Whatever has arrived becomes one transaction, so that a slow disk makes
//! the groups larger and not the events fewer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::checkpoint::Checkpointer;
use super::counts::Counting;
use super::file::StoreFile;
use super::known::Known;
use super::queue::{Job, Jobs, Wake};
use super::trouble::Trouble;
use super::{events, log};
use crate::fair::Owner;
use crate::secret::ServerKey;
use crate::store::{Accepted, NewEvent, Record, Result, Signals, StoreError, Unrouted, Usage};

/// For how long jobs are taken into one transaction. Whoever comes meanwhile goes into it as well.
const GROUP_MAX: Duration = Duration::from_millis(6);
/// How many bytes are in a transaction when no more jobs are taken into it. The disk takes milliseconds for each
/// megabyte, and everybody in it waits for all of them.
const GROUP_BYTES: usize = 512 << 10;
/// While the write-ahead log grows faster than it is moved into the database, the writer pauses after each group for as
/// long as that took, and no longer than this.
const PAUSE_MAX: Duration = Duration::from_millis(10);
/// How often we look whether another process has written, and try again after a failure.
const IDLE: Duration = Duration::from_millis(500);
/// How often in a row a transaction may panic until the store gives up.
const PANICS_MAX: u32 = 5;

/// Makes a change within the transaction. A change that fails leaves the others alone.
pub(super) type Write = Box<dyn FnOnce(&mut Writing<'_>) -> Finish + Send>;
/// Is told how the transaction ended.
pub(super) type Finish = Box<dyn FnOnce(Result<()>) + Send>;

pub(super) struct Writer {
    connection: Connection,
    key: Arc<ServerKey>,
    quotas: Usage,
    signals: Signals,
    known: Known,
    file: StoreFile,
    trouble: Arc<Trouble>,
    checkpointer: Checkpointer,
    /// What we know may not be what is committed.
    stale: bool,
    /// Records whose transaction failed; they go first into the next one.
    kept: Vec<Record>,
    /// How many transactions have panicked one after the other.
    panics: u32,
    data_version: i64,
}

/// The transaction that is being made.
pub(super) struct Writing<'a> {
    pub(super) connection: &'a Connection,
    pub(super) key: &'a ServerKey,
    /// The most that one tenant may have.
    pub(super) quotas: Usage,
    pub(super) known: &'a mut Known,
    pub(super) counting: Counting,
    /// Tokens have changed, as they can in other processes.
    pub(super) tokens_changed: bool,
    /// Why calls are refused: the files are not at their paths any more. Records are written all the same, so
    /// that what this process knows stays in order.
    moved: Option<String>,
    accepted: Vec<Unrouted>,
    /// What to tell when it has ended.
    finishes: Vec<Finish>,
}

impl Writer {
    pub(super) fn new(
        connection: Connection,
        key: Arc<ServerKey>,
        quotas: Usage,
        signals: Signals,
        file: StoreFile,
        trouble: Arc<Trouble>,
        checkpointer: Checkpointer,
    ) -> rusqlite::Result<Writer> {
        Ok(Writer {
            known: Known::load(&connection)?,
            data_version: data_version(&connection)?,
            connection,
            key,
            quotas,
            signals,
            file,
            trouble,
            checkpointer,
            stale: false,
            kept: Vec::new(),
            panics: 0,
        })
    }

    pub(super) fn start(mut self, jobs: Arc<Jobs>) -> std::io::Result<JoinHandle<()>> {
        thread::Builder::new().name("store-writer".to_owned()).spawn(move || {
            let worked = catch_unwind(AssertUnwindSafe(|| self.work(&jobs)));
            if worked.is_err() || self.panics >= PANICS_MAX {
                self.trouble.has_died("the store's writer has ended by a bug of the router");
            }
            let ended = jobs.end();
            self.into_one_file();
            if let Some(ended) = ended {
                // Nobody may be waiting any more.
                let _ = ended.send(());
            }
        })
    }

    fn work(&mut self, jobs: &Jobs) {
        while self.panics < PANICS_MAX {
            let wake = jobs.wait(IDLE, self.kept.is_empty());
            let begun = Instant::now();
            // Whoever writes meanwhile is told.
            let _ = self.look_at_the_files();
            self.look_for_other_writers();
            if wake == Wake::Idle && !self.trouble.fails_now() {
                self.trouble.is_well(Instant::now());
            }
            if jobs.has_any() || !self.kept.is_empty() {
                self.write(jobs);
            }
            if self.kept.is_empty() {
                jobs.committed();
            }
            self.checkpointer.finish(&self.connection);
            if self.checkpointer.is_late() {
                // With the log full, everybody would wait at once until all of it is moved.
                thread::sleep(begun.elapsed().min(PAUSE_MAX));
            }
            if wake == Wake::End {
                let left = self.kept.len();
                if left > 0 {
                    tracing::error!(
                        left,
                        "what became of some deliveries is not on disk: they come again"
                    );
                }
                return;
            }
        }
    }

    /// Makes one transaction of what waits, and tells everybody how it has ended.
    fn write(&mut self, jobs: &Jobs) {
        let mut recorded = std::mem::take(&mut self.kept);
        self.trouble.writes(Instant::now());
        let made = catch_unwind(AssertUnwindSafe(|| self.transaction(jobs, &mut recorded)));
        self.trouble.has_written();
        let Ended { result, accepted, finishes } = made.unwrap_or_else(|_| {
            // Whom to tell is lost, and whoever waits is answered that the store cannot write, which is so.
            // The records are kept.
            self.panics += 1;
            let result = Err("a transaction panicked".to_owned());
            Ended { result, accepted: Vec::new(), finishes: Vec::new() }
        });
        match result {
            Ok(()) => {
                self.panics = 0;
                self.trouble.is_well(Instant::now());
                // What was committed into a file that is not at its path any more will be gone: nobody is to
                // believe that it is on disk, and nobody is to get it.
                let there = self.look_at_the_files().map_err(StoreError::Unavailable);
                if there.is_ok() && !accepted.is_empty() {
                    (self.signals.accepted)(accepted);
                }
                finishes.into_iter().for_each(|finish| finish(there.clone()));
            }
            Err(why) => {
                self.trouble.cannot_write(&why);
                if !self.connection.is_autocommit() {
                    // What cannot even be undone is undone by the next attempt to begin.
                    let _ = self.connection.execute_batch("rollback");
                }
                self.stale = true;
                self.kept = recorded;
                for finish in finishes {
                    finish(Err(StoreError::Unavailable(why.clone())));
                }
            }
        }
    }

    fn transaction(&mut self, jobs: &Jobs, recorded: &mut Vec<Record>) -> Ended {
        let mut writing = Writing {
            connection: &self.connection,
            key: &self.key,
            quotas: self.quotas,
            known: &mut self.known,
            counting: Counting::default(),
            tokens_changed: false,
            moved: self.trouble.moved(),
            accepted: Vec::new(),
            finishes: Vec::new(),
        };
        let result = writing.make(std::mem::take(&mut self.stale), jobs, recorded);
        let result = result.map_err(|err| err.to_string());
        let Writing { accepted, finishes, tokens_changed, .. } = writing;
        if result.is_ok() {
            crate::fault::point(if accepted.is_empty() { "recorded" } else { "committed" });
            if tokens_changed {
                (self.signals.changed)();
            }
        }
        Ended { result, accepted, finishes }
    }

    /// Whoever copies the file of a store that is closed has all of it.
    fn into_one_file(self) {
        self.checkpointer.end();
        if let Err(err) = self.connection.execute_batch("pragma wal_checkpoint(truncate)") {
            tracing::warn!(%err, "the store is closed, and a part of it is in its write-ahead log");
        }
    }

    /// Looks whether the files are still the ones at our paths.
    ///
    /// # Errors
    ///
    /// They are not, and that lasts.
    fn look_at_the_files(&mut self) -> std::result::Result<(), String> {
        if let Err(moved) = self.file.check()
            && self.trouble.has_moved(&moved.to_string())
            && moved.is_log
        {
            // The log has lost its name, but not its content: in the database it is safe.
            let saved = self.connection.execute_batch("pragma wal_checkpoint(full)");
            if let Err(err) = saved {
                tracing::error!(%err, "what was in the write-ahead log cannot be saved");
            }
        }
        self.trouble.moved().map_or(Ok(()), Err)
    }

    /// A command of the operator may have changed tokens in the same file.
    fn look_for_other_writers(&mut self) {
        match data_version(&self.connection) {
            Ok(version) if version != self.data_version => {
                self.data_version = version;
                self.stale = true;
                (self.signals.changed)();
            }
            Ok(_) | Err(_) => {}
        }
    }
}

/// How a transaction has ended, what it has accepted, and whom to tell.
struct Ended {
    result: std::result::Result<(), String>,
    accepted: Vec<Unrouted>,
    finishes: Vec<Finish>,
}

impl Writing<'_> {
    /// Makes the transaction: first the records that were kept, then job by job, in turns of the tenants.
    fn make(
        &mut self,
        stale: bool,
        jobs: &Jobs,
        recorded: &mut Vec<Record>,
    ) -> rusqlite::Result<()> {
        let begun = Instant::now();
        self.connection.prepare_cached("begin immediate")?.execute(())?;
        if stale {
            *self.known = Known::load(self.connection)?;
        }
        log::record_all(self, recorded)?;
        let mut had = None;
        let (mut at, mut bytes) = (Instant::now(), 0);
        while at - begun < GROUP_MAX
            && bytes < GROUP_BYTES
            && let Some((owner, job)) =
                jobs.take(had.as_ref().map(|(owner, cost): &(Owner, u64)| (owner, *cost)))
        {
            bytes += job.bytes();
            match job {
                Job::Accept { events, reply } => self.accept(events, reply)?,
                Job::Write(write) => self.change(write)?,
                Job::Record(records) => {
                    let from = recorded.len();
                    recorded.extend(records);
                    log::record_all(self, &recorded[from..])?;
                }
            }
            let before = std::mem::replace(&mut at, Instant::now());
            let cost = u64::try_from((at - before).as_nanos()).unwrap_or(u64::MAX);
            had = Some((owner, cost));
        }
        if let Some((owner, cost)) = had {
            jobs.charge(&owner, cost);
        }
        self.known.save_routed(self.connection)?;
        self.counting.save(self.connection)?;
        crate::fault::point(if self.accepted.is_empty() { "recording" } else { "inserted" });
        self.connection.prepare_cached("commit")?.execute(()).map(|_| ())
    }

    fn accept(
        &mut self,
        events: Vec<NewEvent>,
        reply: oneshot::Sender<Result<Vec<Accepted>>>,
    ) -> rusqlite::Result<()> {
        if let Some(why) = self.moved.clone() {
            // The publisher may have gone.
            let _ = reply.send(Err(StoreError::Unavailable(why)));
            return Ok(());
        }
        let accepted: rusqlite::Result<Vec<_>> = events
            .into_iter()
            .map(|it| {
                let (tenant, at_ms) = (it.tenant.clone(), it.accepted_at_ms);
                let (accepted, unrouted) = events::accept(self.connection, self.known, it)?;
                self.counting.event(&tenant, at_ms, accepted.duplicate);
                self.accepted.extend(unrouted);
                Ok(accepted)
            })
            .collect();
        let (answer, failure) = match accepted {
            Ok(accepted) => (Ok(accepted), None),
            // Rows that these events would stand beside are damaged: the events of others are taken.
            Err(err) if log::is_refused(&err) => {
                tracing::error!(%err, "events cannot be stored");
                (Err(StoreError::Unavailable(err.to_string())), None)
            }
            Err(err) => (Err(StoreError::Unavailable(err.to_string())), Some(err)),
        };
        self.finishes.push(Box::new(move |committed: Result<()>| {
            // The publisher may have gone; the event is ours all the same.
            let _ = reply.send(committed.and(answer));
        }));
        failure.map_or(Ok(()), Err)
    }

    fn change(&mut self, write: Write) -> rusqlite::Result<()> {
        self.connection.execute_batch("savepoint change")?;
        let finish = write(self);
        self.finishes.push(finish);
        Ok(())
    }
}

fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("pragma data_version")?.query_one((), |row| row.get(0))
}
