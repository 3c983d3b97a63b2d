//! What waits for the writer: in a line for each tenant, from which it takes by turns. A flood of one tenant
//! waits for itself.
//!
//! Within a line the order is kept. So what a tenant's records say is written before whatever is asked for
//! later for the same tenant, such as a claim of what these records have made due.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hookyard_nouns::event::Tenant;
use tokio::sync::{Notify, oneshot};

use super::writer::Write;
use crate::fair::{Bounds, FairQueue, FairSemaphore, Owner, Permit, Room};
use crate::store::{Accepted, NewEvent, Record, Result};

/// How many calls may wait for the writer, and how many of one tenant. Whoever comes then waits for its turn
/// to wait, which is bounded by the calls of the API that there may be.
const CALLS: Bounds = Bounds { all: 4_096, own: 2_048, waiting: usize::MAX };
/// Records are not refused, since nobody waits for them. Who makes more of them looks at this first.
const RECORD_BYTES: Room = Room { own_items: usize::MAX, own_bytes: 4 << 20, all_bytes: 32 << 20 };
/// How many records go into one job, so that a long list of one tenant is written in turns.
const RECORDS_MAX: usize = 64;
/// How long a record may wait for company. Calls do not wait.
const RECORD_WAIT_MAX: Duration = Duration::from_millis(2);

/// What the writer is asked for.
pub(super) enum Job {
    Accept { events: Vec<NewEvent>, reply: oneshot::Sender<Result<Vec<Accepted>>> },
    Record(Vec<Record>),
    Write(Write),
}

impl Job {
    /// About how many bytes it writes; of a change that is not known, and little.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Job::Accept { events, .. } => events.iter().map(|it| it.content.bytes()).sum(),
            Job::Record(records) => weight(records),
            Job::Write(_) => 0,
        }
    }
}

/// A job on its way. It holds the place of its call until it is taken.
struct Queued {
    number: u64,
    job: Job,
    _place: Option<Permit>,
}

/// The jobs that wait for the writer, which takes them, and everybody else, who adds them.
pub(super) struct Jobs {
    calls: FairSemaphore,
    waiting: Mutex<Waiting>,
    /// There is something that does not wait for company, or the end has come.
    changed: Condvar,
    /// Records were taken.
    taken: Notify,
}

struct Waiting {
    lines: FairQueue<Queued>,
    next_number: u64,
    /// How many calls wait; the rest are records.
    calls: usize,
    /// Since when the first of the records waits.
    records_since: Option<Instant>,
    record_bytes: HashMap<Tenant, usize>,
    all_record_bytes: usize,
    flushes: Vec<Flush>,
    /// Who waits for the end, once it has been asked for.
    end: Option<oneshot::Sender<()>>,
    /// The writer has ended: nothing is taken any more.
    is_closed: bool,
    writer_sleeps: bool,
}

/// Somebody who waits until everything before a number is committed: of one owner, or of all.
struct Flush {
    of: Option<Owner>,
    upto: u64,
    reply: oneshot::Sender<()>,
}

/// Why the writer wakes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wake {
    Work,
    /// Nothing has come for a while.
    Idle,
    /// Nothing more will come, and nothing waits.
    End,
}

impl Jobs {
    pub(super) fn new() -> Jobs {
        let room = Room { own_items: usize::MAX, own_bytes: usize::MAX, all_bytes: usize::MAX };
        Jobs {
            calls: FairSemaphore::new(CALLS),
            waiting: Mutex::new(Waiting {
                lines: FairQueue::new(room),
                next_number: 0,
                calls: 0,
                records_since: None,
                record_bytes: HashMap::new(),
                all_record_bytes: 0,
                flushes: Vec::new(),
                end: None,
                is_closed: false,
                writer_sleeps: false,
            }),
            changed: Condvar::new(),
            taken: Notify::new(),
        }
    }

    /// Queues a call, once there is a place for it. Answers whether there is still a writer.
    pub(super) async fn call(&self, owner: &Owner, job: Job) -> bool {
        let Ok(place) = self.calls.take(owner).await else { return false };
        let mut waiting = self.lock();
        if waiting.is_closed {
            return false;
        }
        waiting.calls += 1;
        waiting.add(owner, job, Some(place));
        self.wake(waiting);
        true
    }

    /// Queues records. Never waits. Whoever makes many of them waits for [`Jobs::room`] before.
    pub(super) fn record(&self, records: Vec<Record>) {
        let mut lines: HashMap<Tenant, Vec<Record>> = HashMap::new();
        for it in records {
            lines.entry(it.tenant().clone()).or_default().push(it);
        }
        let mut waiting = self.lock();
        if waiting.is_closed {
            // What a delivery has come to is found out again by the next process: it is sent once more.
            return;
        }
        let is_first = waiting.records_since.is_none();
        waiting.records_since.get_or_insert_with(Instant::now);
        for (tenant, records) in lines {
            waiting.add_records(tenant, records);
        }
        if is_first {
            self.wake(waiting);
        }
    }

    /// Whether a tenant has so few records waiting that more of them may be made.
    pub(super) fn has_room(&self, tenant: &Tenant) -> bool {
        self.lock().has_room(tenant)
    }

    /// Ends when [`Jobs::has_room`] may have changed since this call.
    pub(super) fn room(&self) -> impl Future<Output = ()> + '_ {
        let mut taken = Box::pin(self.taken.notified());
        taken.as_mut().enable();
        taken
    }

    /// Waits until everything that was queued before is committed: of one owner, or of all.
    pub(super) async fn flush(&self, of: Option<Owner>) {
        let flushed = {
            let mut waiting = self.lock();
            if waiting.is_closed {
                return;
            }
            let (reply, flushed) = oneshot::channel();
            let upto = waiting.next_number;
            waiting.flushes.push(Flush { of, upto, reply });
            self.wake(waiting);
            flushed
        };
        // A writer that has died flushes nothing any more.
        let _ = flushed.await;
    }

    /// Asks the writer to end after what waits, and waits for that.
    pub(super) async fn close(&self) {
        let ended = {
            let mut waiting = self.lock();
            if waiting.is_closed {
                return;
            }
            let (reply, ended) = oneshot::channel();
            waiting.end = Some(reply);
            self.wake(waiting);
            ended
        };
        let _ = ended.await;
    }

    fn wake(&self, waiting: MutexGuard<'_, Waiting>) {
        // To wake somebody is a system call even where nobody sleeps.
        let sleeps = waiting.writer_sleeps;
        drop(waiting);
        if sleeps {
            self.changed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the writer does with it.
impl Jobs {
    /// Waits for work. Records wait for company for a moment, and then go as they are. `can_flush`: nothing is
    /// left that could not be written before; otherwise whoever waits for a flush waits for that.
    pub(super) fn wait(&self, idle: Duration, can_flush: bool) -> Wake {
        let idle_at = Instant::now() + idle;
        let mut waiting = self.lock();
        loop {
            let flushes = !waiting.flushes.is_empty() && (can_flush || !waiting.lines.is_empty());
            if waiting.calls > 0 || flushes {
                return Wake::Work;
            }
            if waiting.end.is_some() {
                return if waiting.lines.is_empty() { Wake::End } else { Wake::Work };
            }
            let now = Instant::now();
            let records_at = waiting.records_since.map(|since| since + RECORD_WAIT_MAX);
            if records_at.is_some_and(|at| at <= now) {
                return Wake::Work;
            }
            if idle_at <= now {
                return Wake::Idle;
            }
            let until = records_at.map_or(idle_at, |at| at.min(idle_at));
            waiting.writer_sleeps = true;
            let woken = self.changed.wait_timeout(waiting, until - now);
            waiting = woken.unwrap_or_else(PoisonError::into_inner).0;
            waiting.writer_sleeps = false;
        }
    }

    pub(super) fn has_any(&self) -> bool {
        !self.lock().lines.is_empty()
    }

    /// Whoever had the writer last has had it for so long, in nanoseconds.
    pub(super) fn charge(&self, owner: &Owner, cost: u64) {
        self.lock().lines.charge(owner, cost);
    }

    /// Takes the next job of the tenant that has had least of the writer's time. `had`: who had it last, and
    /// how long, in nanoseconds.
    pub(super) fn take(&self, had: Option<(&Owner, u64)>) -> Option<(Owner, Job)> {
        let mut waiting = self.lock();
        if let Some((owner, cost)) = had {
            waiting.lines.charge(owner, cost);
        }
        let (owner, queued) = waiting.lines.pop(|_| true)?;
        if let (Job::Record(records), Some(tenant)) = (&queued.job, &owner) {
            waiting.forget_bytes(tenant, weight(records));
            self.taken.notify_waiters();
        } else {
            waiting.calls -= 1;
        }
        if waiting.all_record_bytes == 0 {
            waiting.records_since = None;
        }
        Some((owner, queued.job))
    }

    /// Everything that was taken is committed: tells those who wait for that and for nothing behind it.
    pub(super) fn committed(&self) {
        let mut waiting = self.lock();
        if waiting.flushes.is_empty() {
            return;
        }
        let Waiting { lines, flushes, .. } = &mut *waiting;
        let is_done = |it: &mut Flush| {
            let oldest = match &it.of {
                Some(owner) => lines.first_of(owner).map(|it| it.number),
                None => lines.firsts().map(|it| it.number).min(),
            };
            oldest.is_none_or(|oldest| it.upto <= oldest)
        };
        for flush in flushes.extract_if(.., is_done) {
            // Nobody may be waiting any more.
            let _ = flush.reply.send(());
        }
    }

    /// Takes nothing any more, and gives up what waits. Answers who waits for the end.
    pub(super) fn end(&self) -> Option<oneshot::Sender<()>> {
        let mut waiting = self.lock();
        waiting.is_closed = true;
        while waiting.lines.pop(|_| true).is_some() {}
        waiting.flushes.clear();
        waiting.end.take()
    }
}

impl Waiting {
    fn add(&mut self, owner: &Owner, job: Job, place: Option<Permit>) {
        let number = self.next_number;
        self.next_number += 1;
        self.lines.add(owner, 0, Queued { number, job, _place: place });
    }

    fn add_records(&mut self, tenant: Tenant, mut records: Vec<Record>) {
        let bytes = weight(&records);
        *self.record_bytes.entry(tenant.clone()).or_default() += bytes;
        self.all_record_bytes += bytes;
        let owner = Some(tenant);
        while records.len() > RECORDS_MAX {
            let rest = records.split_off(RECORDS_MAX);
            self.add(&owner, Job::Record(std::mem::replace(&mut records, rest)), None);
        }
        self.add(&owner, Job::Record(records), None);
    }

    fn forget_bytes(&mut self, tenant: &Tenant, bytes: usize) {
        self.all_record_bytes -= bytes;
        let own = self.record_bytes.get_mut(tenant).expect("records that are taken were counted");
        *own -= bytes;
        if *own == 0 {
            self.record_bytes.remove(tenant);
        }
    }

    fn has_room(&self, tenant: &Tenant) -> bool {
        let own = self.record_bytes.get(tenant).copied().unwrap_or(0);
        own < RECORD_BYTES.own_bytes && self.all_record_bytes < RECORD_BYTES.all_bytes
    }
}

/// About how much memory records take.
fn weight(records: &[Record]) -> usize {
    let answer = |it: &Record| match it {
        Record::Delivery { delivery, .. } => {
            delivery.last_attempt.as_ref().map_or(0, |it| it.answer.len())
        }
        Record::Filtered { .. }
        | Record::Log(_)
        | Record::Failing { .. }
        | Record::Routed { .. } => 0,
    };
    records.iter().map(|it| 1_024 + answer(it)).sum()
}
