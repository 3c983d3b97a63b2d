//! The one thread that writes. Whatever has arrived becomes one transaction, so that a slow disk makes
//! the groups larger and not the events fewer.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{Semaphore, oneshot};

use super::counts::Counting;
use super::known::Known;
use super::open::Lock;
use super::{events, log};
use crate::secret::ServerKey;
use crate::store::{Accepted, NewEvent, Record, Result, Signals, StoreError, Unrouted};

/// How many jobs go into one transaction.
const GROUP_JOBS_MAX: usize = 512;
/// How long a record may wait for company. Events do not wait.
const RECORD_WAIT_MAX: Duration = Duration::from_millis(2);
/// How often we look whether another process has written, and try again after a failure.
const IDLE: Duration = Duration::from_millis(500);

/// What the writer is asked for.
pub(super) enum Job {
    Accept { events: Vec<NewEvent>, reply: oneshot::Sender<Result<Vec<Accepted>>> },
    Record(Vec<Record>),
    Write(Write),
    Flush(oneshot::Sender<()>),
    Close(oneshot::Sender<()>),
}

/// Makes a change within the transaction. A change that fails leaves the others alone.
pub(super) type Write = Box<dyn FnOnce(&mut Writing<'_>) -> Finish + Send>;
/// Is told how the transaction ended.
pub(super) type Finish = Box<dyn FnOnce(Result<()>) + Send>;

pub(super) struct Writer {
    connection: Connection,
    key: Arc<ServerKey>,
    signals: Signals,
    known: Known,
    /// What we know may not be what is committed.
    stale: bool,
    /// The last transaction failed.
    failing: bool,
    /// Records whose transaction failed; they go first into the next one.
    kept: Vec<Record>,
    flushes: Vec<oneshot::Sender<()>>,
    data_version: i64,
}

/// The transaction that is being made.
pub(super) struct Writing<'a> {
    pub(super) connection: &'a Connection,
    pub(super) key: &'a ServerKey,
    pub(super) known: &'a mut Known,
    pub(super) counting: Counting,
    /// Tokens have changed, as they can in other processes.
    pub(super) tokens_changed: bool,
    accepted: Vec<Unrouted>,
    /// What to tell when it has ended.
    finishes: Vec<Finish>,
}

impl Writer {
    pub(super) fn new(
        connection: Connection,
        key: Arc<ServerKey>,
        signals: Signals,
    ) -> rusqlite::Result<Writer> {
        Ok(Writer {
            known: Known::load(&connection)?,
            data_version: data_version(&connection)?,
            connection,
            key,
            signals,
            stale: false,
            failing: false,
            kept: Vec::new(),
            flushes: Vec::new(),
        })
    }

    /// `room` has a permit for each job that may still be queued. `lock` is held until the end.
    pub(super) fn start(
        mut self,
        queue: Receiver<Job>,
        room: Arc<Semaphore>,
        lock: Option<Lock>,
    ) -> std::io::Result<JoinHandle<()>> {
        thread::Builder::new().name("store-writer".to_owned()).spawn(move || {
            let _lock = lock;
            while let Some(group) = next_group(&queue) {
                room.add_permits(group.len());
                if let Some(closed) = self.write(group) {
                    self.into_one_file();
                    // Nobody may be waiting any more.
                    let _ = closed.send(());
                    return;
                }
            }
        })
    }

    /// Makes one transaction. Answers whom to tell that the store is closed, when that was asked for.
    fn write(&mut self, group: Vec<Job>) -> Option<oneshot::Sender<()>> {
        self.look_for_other_writers();
        let mut records = std::mem::take(&mut self.kept);
        let mut closed = None;
        let mut jobs = Vec::with_capacity(group.len());
        for job in group {
            match job {
                Job::Record(more) if jobs.is_empty() => records.extend(more),
                Job::Flush(reply) => self.flushes.push(reply),
                Job::Close(reply) => closed = Some(reply),
                Job::Accept { .. } | Job::Record(_) | Job::Write(_) => jobs.push(job),
            }
        }
        if !(records.is_empty() && jobs.is_empty()) {
            self.transaction(records, jobs);
        }
        if self.kept.is_empty() {
            self.flushes.drain(..).for_each(|reply| _ = reply.send(()));
        }
        closed
    }

    fn transaction(&mut self, records: Vec<Record>, jobs: Vec<Job>) {
        let mut writing = Writing {
            connection: &self.connection,
            key: &self.key,
            known: &mut self.known,
            counting: Counting::default(),
            tokens_changed: false,
            accepted: Vec::new(),
            finishes: Vec::new(),
        };
        let mut recorded = records;
        let result = (|| {
            writing.connection.prepare_cached("begin immediate")?.execute(())?;
            if std::mem::take(&mut self.stale) {
                *writing.known = Known::load(writing.connection)?;
            }
            log::record_all(&mut writing, &recorded)?;
            for job in jobs {
                match job {
                    Job::Accept { events, reply } => writing.accept(events, reply)?,
                    Job::Write(write) => writing.change(write)?,
                    Job::Record(records) => {
                        let from = recorded.len();
                        recorded.extend(records);
                        log::record_all(&mut writing, &recorded[from..])?;
                    }
                    Job::Flush(_) | Job::Close(_) => unreachable!("these are not part of it"),
                }
            }
            writing.known.save_routed(writing.connection)?;
            writing.counting.save(writing.connection)?;
            crate::fault::point(if writing.accepted.is_empty() { "recording" } else { "inserted" });
            writing.connection.prepare_cached("commit")?.execute(()).map(|_| ())
        })();
        let Writing { accepted, finishes, tokens_changed, .. } = writing;
        match result {
            Ok(()) => {
                crate::fault::point(if accepted.is_empty() { "recorded" } else { "committed" });
                if std::mem::take(&mut self.failing) {
                    tracing::info!("the store can write again");
                }
                if tokens_changed {
                    (self.signals.changed)();
                }
                if !accepted.is_empty() {
                    (self.signals.accepted)(accepted);
                }
                finishes.into_iter().for_each(|finish| finish(Ok(())));
            }
            Err(err) => {
                // Told once, however long it lasts.
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(%err, "the store cannot write; publishers are told to wait");
                }
                if !self.connection.is_autocommit() {
                    // What cannot even be undone is undone by the next attempt to begin.
                    let _ = self.connection.execute_batch("rollback");
                }
                self.stale = true;
                self.kept = recorded;
                for finish in finishes {
                    finish(Err(StoreError::Unavailable(err.to_string())));
                }
            }
        }
    }

    /// Whoever copies the file of a store that is closed has all of it.
    fn into_one_file(self) {
        let connection = self.connection;
        if let Err(err) = connection.execute_batch("pragma wal_checkpoint(truncate)") {
            tracing::warn!(%err, "the store is closed, and a part of it is in its write-ahead log");
        }
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

impl Writing<'_> {
    fn accept(
        &mut self,
        events: Vec<NewEvent>,
        reply: oneshot::Sender<Result<Vec<Accepted>>>,
    ) -> rusqlite::Result<()> {
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

/// Waits for work and takes all that there is. Empty after some time without any; none at the end.
fn next_group(queue: &Receiver<Job>) -> Option<Vec<Job>> {
    let mut group = match queue.recv_timeout(IDLE) {
        Ok(first) => vec![first],
        Err(RecvTimeoutError::Timeout) => return Some(Vec::new()),
        Err(RecvTimeoutError::Disconnected) => return None,
    };
    let deadline = Instant::now() + RECORD_WAIT_MAX;
    loop {
        group.extend(queue.try_iter().take(GROUP_JOBS_MAX - group.len()));
        let nobody_waits = group.iter().all(|job| matches!(job, Job::Record(_)));
        if group.len() == GROUP_JOBS_MAX || !nobody_waits {
            return Some(group);
        }
        match queue.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(job) => group.push(job),
            Err(_) => return Some(group),
        }
    }
}
