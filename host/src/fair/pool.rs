//! A bounded number of threads that owners share by the time that each has had. An owner whose tasks take long
//! waits for itself: it never has all threads at once, and the others go before it.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use tokio::sync::{Notify, oneshot};

use super::Owner;
use super::queue::{FairQueue, Room};

type Task<S> = Box<dyn FnOnce(&mut S) + Send>;

/// Threads, each with something of its own that its tasks are lent: a connection, for example.
pub struct Pool<S> {
    shared: Arc<Shared<S>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Tasks that are queued together.
pub struct Batch<'a, S> {
    /// None at the end.
    queue: Option<MutexGuard<'a, Queue<S>>>,
    shared: &'a Shared<S>,
}

struct Shared<S> {
    name: &'static str,
    /// How many threads one owner may have at once.
    own_threads: usize,
    queue: Mutex<Queue<S>>,
    /// There is a task, or the end has come.
    changed: Condvar,
    /// A task has been taken.
    taken: Notify,
}

struct Queue<S> {
    tasks: FairQueue<Task<S>>,
    /// How many threads each owner has now.
    running: HashMap<Owner, usize>,
    /// How many threads wait for a task.
    idle: usize,
    stopped: bool,
}

/// There is no room for more tasks of this owner, or there will be no more turns.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

impl<S: Send + 'static> Pool<S> {
    /// Starts one thread for each of `states`. `niceness` is how much later than other threads of the machine
    /// they get a core: 0 for work that somebody waits for.
    ///
    /// # Errors
    ///
    /// The system gives no more threads.
    pub fn start(
        name: &'static str,
        states: Vec<S>,
        own_threads: usize,
        niceness: i32,
        room: Room,
    ) -> std::io::Result<Pool<S>> {
        let shared = Arc::new(Shared {
            name,
            own_threads,
            queue: Mutex::new(Queue {
                tasks: FairQueue::new(room),
                running: HashMap::new(),
                idle: 0,
                stopped: false,
            }),
            changed: Condvar::new(),
            taken: Notify::new(),
        });
        let threads = states
            .into_iter()
            .map(|state| {
                let shared = Arc::clone(&shared);
                thread::Builder::new().name(name.to_owned()).spawn(move || {
                    be_nice(niceness);
                    shared.work(state);
                })
            })
            .collect::<std::io::Result<Vec<_>>>()?;
        Ok(Pool { shared, threads: Mutex::new(threads) })
    }

    /// Begins to queue several tasks, of which no thread is told before all of them are there.
    pub fn batch(&self) -> Batch<'_, S> {
        Batch { queue: Some(self.shared.lock()), shared: &self.shared }
    }

    /// Does something in the owner's turn, which holds on to so many bytes, and answers what it says; none
    /// when there is no room for it, or when it panics.
    pub async fn ask<T: Send + 'static>(
        &self,
        owner: &Owner,
        bytes: usize,
        work: impl FnOnce(&mut S) -> T + Send + 'static,
    ) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        let work = move |state: &mut S| {
            // Whoever asked may be gone by then, and nobody else needs the answer.
            if !reply.is_closed() {
                _ = reply.send(work(state));
            }
        };
        self.batch().submit(owner, bytes, work).ok()?;
        answer.await.ok()
    }

    /// Queues the rest of a task that has had its turn. There is always room for it.
    pub fn go_on(&self, owner: &Owner, work: impl FnOnce(&mut S) + Send + 'static) {
        let mut queue = self.shared.lock();
        queue.tasks.add_first(owner, Box::new(work));
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
        self.close();
        let threads = std::mem::take(&mut *lock(&self.threads));
        for thread in threads {
            // A thread catches the panics of its tasks.
            let _ = thread.join();
        }
    }
}

impl<S> Pool<S> {
    /// Begins nothing any more and drops what waits, without waiting for what runs.
    pub fn close(&self) {
        let dropped = {
            let mut queue = self.shared.lock();
            queue.stopped = true;
            queue.tasks.clear()
        };
        self.shared.changed.notify_all();
        // Whoever waits for one of these is told by that, and may take other locks then.
        drop(dropped);
    }
}

impl<S> Drop for Pool<S> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<S> Batch<'_, S> {
    /// Queues a task that holds on to so many bytes.
    ///
    /// # Errors
    ///
    /// The owner, or everybody together, has too much waiting, or the end has come.
    pub fn submit(
        &mut self,
        owner: &Owner,
        bytes: usize,
        work: impl FnOnce(&mut S) + Send + 'static,
    ) -> Result<(), Full> {
        let queue = self.queue.as_mut().expect("a batch that goes on has the queue");
        if queue.stopped {
            return Err(Full);
        }
        queue.tasks.push(owner, bytes, Box::new(work)).map_err(|_| Full)
    }

    /// Queues a task whatever waits already: for those that are bounded where they come from.
    pub fn add(&mut self, owner: &Owner, work: impl FnOnce(&mut S) + Send + 'static) {
        let queue = self.queue.as_mut().expect("a batch that goes on has the queue");
        queue.tasks.add(owner, 0, Box::new(work));
    }
}

impl<S> Drop for Batch<'_, S> {
    fn drop(&mut self) {
        self.queue.take().into_iter().for_each(|queue| self.shared.wake_for(queue));
    }
}

impl<S> Shared<S> {
    fn work(&self, mut state: S) {
        while let Some((owner, work)) = self.next() {
            let start = Instant::now();
            // A bug on the way of one task is not the end of the others.
            if catch_unwind(AssertUnwindSafe(|| work(&mut state))).is_err() {
                let owner = owner.as_ref().map_or("the router", |it| it.as_str());
                tracing::error!(thread = self.name, owner, "a task panicked");
            }
            let cost = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.lock().ended(&owner, cost);
        }
    }

    fn next(&self) -> Option<(Owner, Task<S>)> {
        let mut queue = self.lock();
        loop {
            if queue.stopped {
                return None;
            }
            if let Some(next) = queue.take(self.own_threads) {
                self.wake_for(queue);
                self.taken.notify_waiters();
                return Some(next);
            }
            queue.idle += 1;
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.idle -= 1;
        }
    }

    /// Wakes one thread, where there is a task for it: it wakes the next one when there are more. To wake
    /// somebody is a system call even where nobody sleeps.
    fn wake_for(&self, queue: MutexGuard<'_, Queue<S>>) {
        let wakes = queue.idle > 0 && !queue.tasks.is_empty();
        drop(queue);
        if wakes {
            self.changed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue<S>> {
        lock(&self.queue)
    }
}

impl<S> Queue<S> {
    fn take(&mut self, own_threads: usize) -> Option<(Owner, Task<S>)> {
        let running = &self.running;
        let may = |owner: &Owner| running.get(owner).is_none_or(|count| *count < own_threads);
        let (owner, task) = self.tasks.pop(may)?;
        *self.running.entry(owner.clone()).or_default() += 1;
        Some((owner, task))
    }

    fn ended(&mut self, owner: &Owner, cost: u64) {
        self.tasks.charge(owner, cost);
        let running = self.running.get_mut(owner).expect("a task that ends has run");
        *running -= 1;
        if *running == 0 {
            self.running.remove(owner);
        }
    }
}

/// What fails here is that the system does not know of niceness: then all threads are alike.
fn be_nice(niceness: i32) {
    if niceness > 0 {
        let _ = rustix::process::nice(niceness);
    }
}

/// A poisoned lock is taken all the same: no holder leaves the queue half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use hookyard_nouns::event::Tenant;

    use super::*;

    const ROOM: Room = Room { own_items: 100, own_bytes: 100, all_bytes: 100 };
    const PATIENCE: Duration = Duration::from_secs(10);

    fn owner(name: &str) -> Owner {
        Some(Tenant::new(name).unwrap())
    }

    fn pool(threads: usize, own_threads: usize) -> Pool<()> {
        Pool::start("test", vec![(); threads], own_threads, 0, ROOM).unwrap()
    }

    /// A task that says that it has begun, and ends when its other end is dropped.
    fn held(pool: &Pool<()>, owner: &Owner, begun: &mpsc::Sender<()>) -> mpsc::Sender<()> {
        let (end, ended) = mpsc::channel::<()>();
        let begun = begun.clone();
        let work = move |(): &mut ()| {
            begun.send(()).unwrap();
            let _ = ended.recv();
        };
        pool.batch().submit(owner, 0, work).unwrap();
        end
    }

    #[test]
    fn a_task_that_panics_stops_nobody() {
        let pool = pool(1, 1);
        let (done, wait) = mpsc::channel();
        pool.batch().submit(&owner("a"), 0, |()| panic!("on purpose")).unwrap();
        pool.batch().submit(&owner("a"), 0, move |()| done.send(()).unwrap()).unwrap();
        wait.recv_timeout(PATIENCE).unwrap();
        pool.stop();
    }

    #[tokio::test]
    async fn whoever_waits_at_the_end_is_told() {
        let pool = pool(1, 1);
        let (begun, begins) = mpsc::channel();
        let end = held(&pool, &owner("a"), &begun);
        begins.recv_timeout(PATIENCE).unwrap();
        let a = owner("a");
        let mut waits = Box::pin(pool.ask(&a, 0, |()| ()));
        let waited = tokio::time::timeout(Duration::from_millis(10), &mut waits).await;
        assert!(waited.is_err(), "there is one thread, and it is held");
        pool.close();
        assert_eq!(waits.await, None);
        assert_eq!(pool.ask(&owner("b"), 0, |()| ()).await, None);
        drop(end);
    }

    #[test]
    fn tasks_run_side_by_side() {
        let pool = pool(2, 2);
        let (begun, begins) = mpsc::channel();
        let ends = [(); 2].map(|()| held(&pool, &owner("a"), &begun));
        for _ in 0..2 {
            begins.recv_timeout(PATIENCE).unwrap();
        }
        drop(ends);
        pool.stop();
    }

    #[test]
    fn one_owner_leaves_a_thread_to_the_others() {
        let pool = pool(3, 2);
        let (begun, begins) = mpsc::channel();
        let held_by_one = [(); 3].map(|()| held(&pool, &owner("a"), &begun));
        for _ in 0..2 {
            begins.recv_timeout(PATIENCE).unwrap();
        }
        let other = held(&pool, &owner("b"), &begun);
        begins.recv_timeout(PATIENCE).unwrap();
        assert!(begins.try_recv().is_err(), "the third of the first has to wait");
        drop(other);
        drop(held_by_one);
        begins.recv_timeout(PATIENCE).expect("it goes on when one of its own has ended");
        pool.stop();
    }
}
