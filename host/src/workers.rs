//! The threads that run plugins: a bounded number, shared fairly. A tenant whose plugins take long
//! waits for itself; the others take turns by the time that each has had.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use crate::event::Tenant;

/// How many tasks of one tenant may wait.
const TENANT_TASKS_MAX: usize = 4_096;
/// How many bytes of events may wait in all.
const BYTES_MAX: usize = 64 << 20;

type Work = Box<dyn FnOnce() + Send>;

/// See the head of this module.
pub struct Workers {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Tasks that are queued together.
pub struct Batch<'a> {
    /// None at the end.
    queue: Option<MutexGuard<'a, Queue>>,
    shared: &'a Shared,
}

struct Shared {
    queue: Mutex<Queue>,
    /// There is a task, or the end has come.
    changed: Condvar,
    /// A task has been taken.
    taken: Notify,
}

#[derive(Default)]
struct Queue {
    tenants: HashMap<Tenant, Lane>,
    /// The tenants with tasks, by the time that they have had.
    order: BTreeSet<(Duration, Tenant)>,
    bytes: usize,
    /// How many workers wait for a task.
    idle: usize,
    stopped: bool,
}

#[derive(Default)]
struct Lane {
    tasks: VecDeque<(Work, usize)>,
    had: Duration,
}

/// There is no room for more of this tenant's tasks.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

impl Workers {
    /// # Errors
    ///
    /// The system gives no more threads.
    pub fn start(threads: usize) -> std::io::Result<Workers> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            changed: Condvar::new(),
            taken: Notify::new(),
        });
        let threads = (0..threads)
            .map(|_| {
                let shared = Arc::clone(&shared);
                thread::Builder::new().name("worker".to_owned()).spawn(move || shared.work())
            })
            .collect::<std::io::Result<Vec<_>>>()?;
        Ok(Workers { shared, threads: Mutex::new(threads) })
    }

    /// Queues a task that holds on to so many bytes.
    ///
    /// # Errors
    ///
    /// The tenant, or everybody together, has too much waiting.
    pub fn submit(
        &self,
        tenant: &Tenant,
        bytes: usize,
        work: impl FnOnce() + Send + 'static,
    ) -> Result<(), Full> {
        self.batch().submit(tenant, bytes, work)
    }

    /// Begins to queue several tasks, of which nobody is told before all of them are there.
    pub fn batch(&self) -> Batch<'_> {
        Batch { queue: Some(self.shared.lock()), shared: &self.shared }
    }

    /// Does something in its turn, which holds on to so many bytes, and answers what it says; none when
    /// there is no room for it, or when it panics.
    pub async fn ask<T: Send + 'static>(
        &self,
        tenant: &Tenant,
        bytes: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        // Whoever asked may be gone by then.
        self.submit(tenant, bytes, || _ = reply.send(work())).ok()?;
        answer.await.ok()
    }

    /// Queues the rest of a task that has had its turn. There is always room for it.
    pub fn go_on(&self, tenant: &Tenant, work: impl FnOnce() + Send + 'static) {
        let mut queue = self.shared.lock();
        queue.push_front(tenant, Box::new(work));
        self.shared.wake_for(queue);
    }

    /// Ends when a task has been taken after this call: then it is worth trying again.
    pub fn room(&self) -> impl Future<Output = ()> + '_ {
        let mut taken = Box::pin(self.shared.taken.notified());
        taken.as_mut().enable();
        taken
    }

    /// Lets the running tasks end and drops the others.
    pub fn stop(&self) {
        self.shared.lock().stopped = true;
        self.shared.changed.notify_all();
        let threads = std::mem::take(&mut *lock(&self.threads));
        for thread in threads {
            // A worker catches the panics of its tasks.
            let _ = thread.join();
        }
    }
}

impl Batch<'_> {
    /// See [`Workers::submit`].
    ///
    /// # Errors
    ///
    /// See there.
    pub fn submit(
        &mut self,
        tenant: &Tenant,
        bytes: usize,
        work: impl FnOnce() + Send + 'static,
    ) -> Result<(), Full> {
        let queue = self.queue.as_mut().expect("a batch that goes on has the queue");
        queue.push(tenant, bytes, Box::new(work))
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.queue.take().into_iter().for_each(|queue| self.shared.wake_for(queue));
    }
}

impl Shared {
    fn work(&self) {
        while let Some((tenant, work)) = self.next() {
            let start = Instant::now();
            // A bug on the way of one event is not the end of the others.
            if catch_unwind(AssertUnwindSafe(work)).is_err() {
                tracing::error!(%tenant, "a task panicked; if it was an event, it will be routed again at the next start");
            }
            self.lock().charge(&tenant, start.elapsed());
        }
    }

    fn next(&self) -> Option<(Tenant, Work)> {
        let mut queue = self.lock();
        loop {
            if queue.stopped {
                return None;
            }
            if let Some(next) = queue.pop() {
                self.wake_for(queue);
                self.taken.notify_waiters();
                return Some(next);
            }
            queue.idle += 1;
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.idle -= 1;
        }
    }

    /// Wakes one worker, where there is a task for it: it wakes the next one when there are more. To wake
    /// somebody is a system call even where nobody sleeps.
    fn wake_for(&self, queue: MutexGuard<'_, Queue>) {
        let wakes = queue.idle > 0 && !queue.order.is_empty();
        drop(queue);
        if wakes {
            self.changed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }
}

impl Queue {
    fn push(&mut self, tenant: &Tenant, bytes: usize, work: Work) -> Result<(), Full> {
        if self.bytes + bytes > BYTES_MAX && self.bytes > 0 {
            return Err(Full);
        }
        if self.tenants.get(tenant).is_some_and(|lane| lane.tasks.len() >= TENANT_TASKS_MAX) {
            return Err(Full);
        }
        self.lane(tenant).tasks.push_back((work, bytes));
        self.bytes += bytes;
        Ok(())
    }

    /// In front of the tenant's other tasks.
    fn push_front(&mut self, tenant: &Tenant, work: Work) {
        self.lane(tenant).tasks.push_front((work, 0));
    }

    /// The lane of a tenant that is about to have a task.
    fn lane(&mut self, tenant: &Tenant) -> &mut Lane {
        // Who was away has saved nothing up.
        let least = self.order.first().map_or(Duration::ZERO, |(had, _)| *had);
        let lane = self.tenants.entry(tenant.clone()).or_default();
        if lane.tasks.is_empty() {
            lane.had = lane.had.max(least);
            self.order.insert((lane.had, tenant.clone()));
        }
        lane
    }

    fn pop(&mut self) -> Option<(Tenant, Work)> {
        let (had, tenant) = self.order.pop_first()?;
        let lane = self.tenants.get_mut(&tenant).expect("a tenant in the order has a lane");
        let (work, bytes) = lane.tasks.pop_front().expect("a tenant in the order has a task");
        self.bytes -= bytes;
        if !lane.tasks.is_empty() {
            self.order.insert((had, tenant.clone()));
        }
        Some((tenant, work))
    }

    fn charge(&mut self, tenant: &Tenant, time: Duration) {
        let least = self.order.first().map_or(Duration::ZERO, |(had, _)| *had);
        let Some(lane) = self.tenants.get_mut(tenant) else { return };
        if lane.tasks.is_empty() && lane.had + time <= least {
            // Nothing to remember of a tenant that is behind the others.
            self.tenants.remove(tenant);
            return;
        }
        let waits = self.order.remove(&(lane.had, tenant.clone()));
        lane.had += time;
        if waits {
            self.order.insert((lane.had, tenant.clone()));
        }
    }
}

/// A poisoned lock is taken all the same: no holder leaves the queue half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn tenant(name: &str) -> Tenant {
        Tenant::new(name).unwrap()
    }

    /// Who is next, when each of a tenant's tasks takes so many milliseconds.
    fn turns(queue: &mut Queue, costs: &[(&str, u64)], count: usize) -> String {
        let mut turns = String::new();
        for _ in 0..count {
            let Some((tenant, _)) = queue.pop() else { break };
            let (name, cost) = costs.iter().find(|(name, _)| *name == tenant.as_str()).unwrap();
            queue.charge(&tenant, Duration::from_millis(*cost));
            turns.push_str(name);
        }
        turns
    }

    #[test]
    fn tenants_take_turns_by_the_time_that_they_have_had() {
        let mut queue = Queue::default();
        for _ in 0..10 {
            queue.push(&tenant("a"), 0, Box::new(|| ())).unwrap();
            queue.push(&tenant("b"), 0, Box::new(|| ())).unwrap();
        }
        assert_eq!(turns(&mut queue, &[("a", 20), ("b", 5)], 10), "abbbbabbbb");
    }

    #[test]
    fn who_was_away_has_saved_nothing_up() {
        let mut queue = Queue::default();
        for _ in 0..10 {
            queue.push(&tenant("a"), 0, Box::new(|| ())).unwrap();
        }
        turns(&mut queue, &[("a", 20)], 5);
        for _ in 0..5 {
            queue.push(&tenant("b"), 0, Box::new(|| ())).unwrap();
        }
        assert_eq!(turns(&mut queue, &[("a", 20), ("b", 20)], 4), "abab");
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut queue = Queue::default();
        for _ in 0..TENANT_TASKS_MAX {
            queue.push(&tenant("a"), 0, Box::new(|| ())).unwrap();
        }
        assert_eq!(queue.push(&tenant("a"), 0, Box::new(|| ())), Err(Full));
        assert_eq!(queue.push(&tenant("b"), BYTES_MAX, Box::new(|| ())), Ok(()));
        assert_eq!(queue.push(&tenant("c"), 1, Box::new(|| ())), Err(Full));
    }

    #[test]
    fn a_task_that_panics_stops_nobody() {
        let workers = Workers::start(1).unwrap();
        let (done, wait) = mpsc::channel();
        workers.submit(&tenant("a"), 0, || panic!("on purpose")).unwrap();
        workers.submit(&tenant("a"), 0, move || done.send(()).unwrap()).unwrap();
        wait.recv_timeout(Duration::from_secs(10)).unwrap();
        workers.stop();
    }
}
