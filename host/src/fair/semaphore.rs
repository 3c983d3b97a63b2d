//! Permits that owners share. One that is given back goes to the next owner in line, however many others of
//! the first owner wait.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::Owner;

/// How many permits there are.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub all: usize,
    /// How many of them one owner may hold.
    pub own: usize,
    /// How many may wait for one owner. Zero: nobody waits.
    pub waiting: usize,
}

/// Why there is no permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Busy {
    /// The owner holds as many as one may have, or as many as may wait for it.
    Own,
    /// All of them are held.
    All,
}

/// A semaphore that is fair between owners. Clones share its permits.
#[derive(Clone, Debug)]
pub struct FairSemaphore {
    bounds: Bounds,
    state: Arc<Mutex<State>>,
}

/// The right to do one thing, for as long as it is held.
#[derive(Debug)]
pub struct Permit {
    semaphore: FairSemaphore,
    owner: Owner,
}

#[derive(Debug, Default)]
struct State {
    held: usize,
    held_by: HashMap<Owner, usize>,
    waiting: HashMap<Owner, VecDeque<oneshot::Sender<Permit>>>,
    /// The owners for whom somebody waits, in the order of their turns.
    line: VecDeque<Owner>,
}

impl FairSemaphore {
    pub fn new(bounds: Bounds) -> FairSemaphore {
        FairSemaphore { bounds, state: Arc::default() }
    }

    /// Takes a permit, if there is one now.
    ///
    /// # Errors
    ///
    /// Which bound has been met.
    pub fn try_take(&self, owner: &Owner) -> Result<Permit, Busy> {
        let mut state = self.lock();
        // Whoever waits while there are permits has met the bound of its owner: nobody is overtaken here.
        state.take(owner, self.bounds)?;
        Ok(self.permit(owner))
    }

    /// Takes a permit, and waits in the owner's line for it.
    ///
    /// # Errors
    ///
    /// As many wait for the owner as may.
    pub async fn take(&self, owner: &Owner) -> Result<Permit, Busy> {
        let answer = {
            let mut state = self.lock();
            if state.take(owner, self.bounds).is_ok() {
                return Ok(self.permit(owner));
            }
            state.wait(owner, self.bounds)?
        };
        Ok(answer.await.expect("whoever waits is served, unless it goes away itself"))
    }

    fn permit(&self, owner: &Owner) -> Permit {
        Permit { semaphore: self.clone(), owner: owner.clone() }
    }

    /// Gives a permit back, and what is free to whoever waits.
    fn give_back(&self, owner: &Owner) {
        let served = {
            let mut state = self.lock();
            state.give_back(owner);
            state.serve(self.bounds)
        };
        for (owner, answer) in served {
            // Whoever has gone away drops the permit, which gives it to the next one. That takes the lock
            // again, and so it happens here and not above.
            let _ = answer.send(self.permit(&owner));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.semaphore.give_back(&self.owner);
    }
}

impl State {
    fn take(&mut self, owner: &Owner, bounds: Bounds) -> Result<(), Busy> {
        if self.held_by.get(owner).is_some_and(|held| *held >= bounds.own) {
            return Err(Busy::Own);
        }
        if self.held >= bounds.all {
            return Err(Busy::All);
        }
        self.held += 1;
        *self.held_by.entry(owner.clone()).or_default() += 1;
        Ok(())
    }

    fn give_back(&mut self, owner: &Owner) {
        let held = self.held_by.get_mut(owner).expect("a permit that is given back was taken");
        *held -= 1;
        if *held == 0 {
            self.held_by.remove(owner);
        }
        self.held -= 1;
    }

    fn wait(&mut self, owner: &Owner, bounds: Bounds) -> Result<oneshot::Receiver<Permit>, Busy> {
        let waiting = self.waiting.entry(owner.clone()).or_default();
        waiting.retain(|it| !it.is_closed());
        if waiting.len() >= bounds.waiting {
            return Err(if bounds.own < bounds.all { Busy::Own } else { Busy::All });
        }
        if waiting.is_empty() && !self.line.contains(owner) {
            self.line.push_back(owner.clone());
        }
        let (answer, wait) = oneshot::channel();
        waiting.push_back(answer);
        Ok(wait)
    }

    /// Takes permits for those who wait, as far as there are any, one for each owner in turn.
    fn serve(&mut self, bounds: Bounds) -> Vec<(Owner, oneshot::Sender<Permit>)> {
        let mut served = Vec::new();
        let mut passed = 0;
        while passed < self.line.len() && self.held < bounds.all {
            let Some(owner) = self.line.pop_front() else { break };
            let waiting = self.waiting.entry(owner.clone()).or_default();
            waiting.retain(|it| !it.is_closed());
            if waiting.is_empty() {
                self.waiting.remove(&owner);
                continue;
            }
            if self.take(&owner, bounds).is_err() {
                passed += 1;
            } else if let Some(answer) = self.waiting.get_mut(&owner).and_then(VecDeque::pop_front)
            {
                passed = 0;
                served.push((owner.clone(), answer));
            }
            self.line.push_back(owner);
        }
        served
    }
}

#[cfg(test)]
mod tests {
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    use hookyard_nouns::event::Tenant;

    use super::*;

    fn owner(name: &str) -> Owner {
        Some(Tenant::new(name).unwrap())
    }

    fn semaphore(all: usize, own: usize, waiting: usize) -> FairSemaphore {
        FairSemaphore::new(Bounds { all, own, waiting })
    }

    fn poll<T>(it: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        match it.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(it) => Some(it),
            Poll::Pending => None,
        }
    }

    #[test]
    fn an_owner_has_its_part_and_leaves_the_rest() {
        let it = semaphore(3, 2, 0);
        let mut held: Vec<_> = (0..2).map(|_| it.try_take(&owner("a")).unwrap()).collect();
        assert_eq!(it.try_take(&owner("a")).err(), Some(Busy::Own));
        held.push(it.try_take(&owner("b")).unwrap());
        assert_eq!(it.try_take(&owner("b")).err(), Some(Busy::All));
        held.pop();
        assert!(it.try_take(&None).is_ok(), "what was given back is free");
    }

    #[test]
    fn a_permit_goes_to_the_next_owner_in_line() {
        let it = semaphore(1, 1, 9);
        let held = it.try_take(&owner("a")).unwrap();
        let (many, one) = (owner("a"), owner("b"));
        let (mut first, mut second, mut other) =
            (pin!(it.take(&many)), pin!(it.take(&many)), pin!(it.take(&one)));
        assert!(poll(first.as_mut()).is_none());
        assert!(poll(second.as_mut()).is_none());
        assert!(poll(other.as_mut()).is_none());
        drop(held);
        let held = poll(first.as_mut()).expect("it has waited longest").unwrap();
        assert!(poll(other.as_mut()).is_none());
        drop(held);
        assert!(poll(second.as_mut()).is_none(), "its owner has had one");
        drop(poll(other.as_mut()).expect("it is the other's turn").unwrap());
        assert!(poll(second.as_mut()).is_some());
    }

    #[test]
    fn whoever_goes_away_holds_nobody_up() {
        let it = semaphore(1, 1, 2);
        let held = it.try_take(&owner("a")).unwrap();
        let (a, b) = (owner("a"), owner("b"));
        for _ in 0..5 {
            let mut gone = Box::pin(it.take(&a));
            assert!(poll(gone.as_mut()).is_none(), "what has gone away does not count");
        }
        let mut served = Box::pin(it.take(&a));
        let mut waits = pin!(it.take(&b));
        assert!(poll(served.as_mut()).is_none());
        assert!(poll(waits.as_mut()).is_none());
        drop(held);
        // It has its permit, and goes away before it sees it.
        drop(served);
        assert!(poll(waits.as_mut()).is_some());
    }

    #[test]
    fn what_waits_is_bounded() {
        let it = semaphore(1, 1, 1);
        let a = owner("a");
        let _held = it.try_take(&a).unwrap();
        let mut waits = pin!(it.take(&a));
        assert!(poll(waits.as_mut()).is_none());
        let refused = poll(pin!(it.take(&a)).as_mut()).expect("it does not wait");
        assert!(refused.is_err());
    }
}
