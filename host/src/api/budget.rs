//! Bytes of memory that many share: so many in all, and so many for one of them.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Which bound has been met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spent {
    Own,
    All,
}

#[derive(Debug)]
pub(crate) struct Budget<K> {
    all_max: usize,
    own_max: usize,
    used: Mutex<Used<K>>,
}

#[derive(Debug)]
struct Used<K> {
    all: usize,
    by: HashMap<K, usize>,
}

/// Bytes that somebody uses, for as long as this is held.
#[derive(Debug)]
pub(crate) struct Hold<K: Clone + Eq + Hash> {
    budget: Arc<Budget<K>>,
    owner: K,
    bytes: usize,
}

impl<K: Clone + Eq + Hash> Budget<K> {
    pub(crate) fn new(all_max: usize, own_max: usize) -> Arc<Budget<K>> {
        let used = Used { all: 0, by: HashMap::new() };
        Arc::new(Budget { all_max, own_max, used: Mutex::new(used) })
    }

    /// None of the bytes yet, for somebody.
    pub(crate) fn hold(self: &Arc<Budget<K>>, owner: K) -> Hold<K> {
        Hold { budget: Arc::clone(self), owner, bytes: 0 }
    }

    /// Whether there is anything left for somebody.
    ///
    /// # Errors
    ///
    /// Which bound has been met.
    pub(crate) fn has_room(&self, owner: &K) -> Result<(), Spent> {
        self.lock().check(owner, 1, self)
    }

    fn lock(&self) -> MutexGuard<'_, Used<K>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash> Used<K> {
    fn check(&self, owner: &K, more: usize, of: &Budget<K>) -> Result<(), Spent> {
        let own = self.by.get(owner).copied().unwrap_or(0);
        // One that is larger than the budget is let through when it is alone: it has a bound of its own.
        if own > 0 && own.saturating_add(more) > of.own_max {
            return Err(Spent::Own);
        }
        if self.all > 0 && self.all.saturating_add(more) > of.all_max {
            return Err(Spent::All);
        }
        Ok(())
    }
}

impl<K: Clone + Eq + Hash> Hold<K> {
    /// Uses so many bytes in all.
    ///
    /// # Errors
    ///
    /// Which bound has been met. What was used before is used still.
    pub(crate) fn set(&mut self, bytes: usize) -> Result<(), Spent> {
        if bytes > self.bytes {
            let more = bytes - self.bytes;
            self.budget.lock().check(&self.owner, more, &self.budget)?;
        }
        self.set_anyway(bytes);
        Ok(())
    }

    /// The same for what is there already, whether there is room for it or not: then nobody gets more before
    /// there is.
    pub(crate) fn set_anyway(&mut self, bytes: usize) {
        let mut used = self.budget.lock();
        used.all = used.all - self.bytes + bytes;
        if self.bytes > 0 || bytes > 0 {
            let own = used.by.entry(self.owner.clone()).or_default();
            *own = *own - self.bytes + bytes;
            if *own == 0 {
                used.by.remove(&self.owner);
            }
        }
        self.bytes = bytes;
    }
}

impl<K: Clone + Eq + Hash> Drop for Hold<K> {
    fn drop(&mut self) {
        self.set_anyway(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_has_its_part_and_all_have_all() {
        let budget = Budget::new(100, 60);
        let mut one = budget.hold("a");
        one.set(60).unwrap();
        assert_eq!(one.set(61), Err(Spent::Own));
        assert_eq!(budget.has_room(&"a"), Err(Spent::Own));
        let mut other = budget.hold("b");
        assert_eq!(other.set(41), Err(Spent::All));
        other.set(40).unwrap();
        assert_eq!(budget.has_room(&"c"), Err(Spent::All));
        one.set(10).unwrap();
        other.set(50).unwrap();
        drop((one, other));
        let used = budget.lock();
        assert_eq!((used.all, used.by.len()), (0, 0));
    }

    #[test]
    fn what_is_there_already_is_counted_in_any_case() {
        let budget = Budget::new(100, 60);
        let mut one = budget.hold("a");
        one.set_anyway(150);
        assert_eq!(budget.hold("a").set(1), Err(Spent::Own));
        assert_eq!(budget.hold("b").set(1), Err(Spent::All));
        one.set(20).unwrap();
        budget.hold("b").set(60).unwrap();
    }

    #[test]
    fn what_is_larger_than_all_goes_alone() {
        let budget = Budget::new(100, 60);
        let mut one = budget.hold("a");
        one.set(200).unwrap();
        assert_eq!(budget.hold("a").set(1), Err(Spent::Own));
    }
}
