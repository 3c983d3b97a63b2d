//! Who compiles, and when: one after the other, and nobody keeps others from it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::{MutexGuard, Semaphore, SemaphorePermit};

use crate::event::Tenant;

/// How many uploads there may be at once: of one owner, and of all. Each holds a file in memory.
const OWN_MAX: usize = 4;
const ALL_MAX: usize = 16;
/// How many configurations are checked at once by schemas of tenants.
const CHECKS_MAX: usize = 2;

/// See the head of this module.
pub struct Uploads {
    /// How many there are, by their owner.
    begun: Mutex<HashMap<Option<Tenant>, usize>>,
    turn: tokio::sync::Mutex<()>,
    checks: Semaphore,
}

/// An upload that has begun.
pub struct Upload<'a> {
    uploads: &'a Uploads,
    owner: Option<Tenant>,
}

/// Why an upload cannot begin now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Busy {
    /// Its owner has as many under way as one may have.
    Own,
    All,
}

impl Default for Uploads {
    fn default() -> Uploads {
        let checks = Semaphore::new(CHECKS_MAX);
        Uploads { begun: Mutex::default(), turn: tokio::sync::Mutex::default(), checks }
    }
}

impl Uploads {
    /// To be called before a file is read, and held until it is dealt with.
    ///
    /// # Errors
    ///
    /// There are too many.
    pub fn begin(&self, owner: Option<&Tenant>) -> Result<Upload<'_>, Busy> {
        let mut begun = self.begun();
        if begun.values().sum::<usize>() >= ALL_MAX {
            return Err(Busy::All);
        }
        let own = begun.entry(owner.cloned()).or_default();
        if *own >= OWN_MAX {
            return Err(Busy::Own);
        }
        *own += 1;
        Ok(Upload { uploads: self, owner: owner.cloned() })
    }

    /// One upload after the other.
    pub(super) async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Few checks of configurations at once.
    pub(super) async fn check_turn(&self) -> SemaphorePermit<'_> {
        self.checks.acquire().await.expect("it is never closed")
    }

    fn begun(&self) -> std::sync::MutexGuard<'_, HashMap<Option<Tenant>, usize>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Upload<'_> {
    fn drop(&mut self) {
        let mut begun = self.uploads.begun();
        if let Some(own) = begun.get_mut(&self.owner) {
            *own -= 1;
            if *own == 0 {
                begun.remove(&self.owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_owner_takes_all_places() {
        let uploads = Uploads::default();
        let tenant = |number: usize| Some(Tenant::new(&format!("t{number}")).unwrap());
        let mut begun = Vec::new();
        for number in 0..ALL_MAX {
            let owner = tenant(number / OWN_MAX);
            begun.push(uploads.begin(owner.as_ref()).ok().unwrap());
            if number == OWN_MAX - 1 {
                assert_eq!(uploads.begin(owner.as_ref()).err(), Some(Busy::Own));
            }
        }
        assert_eq!(uploads.begin(None).err(), Some(Busy::All));
        begun.pop();
        assert!(uploads.begin(None).is_ok());
        assert!(uploads.begin(tenant(9).as_ref()).is_ok(), "a place that was given back is free");
    }
}
