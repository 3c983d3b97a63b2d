//! Who uploads and who checks configurations, and when: nobody keeps others from it.

use crate::fair::{Bounds, Busy, FairSemaphore, Owner, Permit};

/// How many uploads there may be at once: of one owner, and of all. Each holds a file in memory.
const UPLOADS: Bounds = Bounds { all: 16, own: 4, waiting: 0 };
/// One upload of an owner decides after the other; those of other owners are no concern of theirs.
const TURNS: Bounds = Bounds { all: usize::MAX, own: 1, waiting: 16 };
/// How many configurations are checked at once by schemas of tenants, each in a process of its own.
const CHECKS: Bounds = Bounds { all: 2, own: 1, waiting: 64 };

/// The turns of uploads and of checks, and how many of them may wait for each tenant.
pub struct Uploads {
    begun: FairSemaphore,
    turns: FairSemaphore,
    checks: FairSemaphore,
}

impl Default for Uploads {
    fn default() -> Uploads {
        let [begun, turns, checks] = [UPLOADS, TURNS, CHECKS].map(FairSemaphore::new);
        Uploads { begun, turns, checks }
    }
}

impl Uploads {
    /// To be called before a file is read, and held until it is dealt with.
    ///
    /// # Errors
    ///
    /// There are too many.
    pub fn begin(&self, owner: &Owner) -> Result<Permit, Busy> {
        self.begun.try_take(owner)
    }

    /// To be held from the look at what an owner has until that is changed.
    ///
    /// # Errors
    ///
    /// Too many of its uploads wait.
    pub(super) async fn turn(&self, owner: &Owner) -> Result<Permit, Busy> {
        self.turns.take(owner).await
    }

    /// To be held while a configuration is checked by the schema of a tenant.
    ///
    /// # Errors
    ///
    /// Too many of the owner's wait.
    pub(super) async fn check_turn(&self, owner: &Owner) -> Result<Permit, Busy> {
        self.checks.take(owner).await
    }
}

#[cfg(test)]
mod tests {
    use hookyard_nouns::event::Tenant;

    use super::*;

    #[test]
    fn no_owner_takes_all_places() {
        let uploads = Uploads::default();
        let tenant = |number: usize| Some(Tenant::new(&format!("t{number}")).unwrap());
        let mut begun = Vec::new();
        for number in 0..UPLOADS.all {
            let owner = tenant(number / UPLOADS.own);
            begun.push(uploads.begin(&owner).unwrap());
            if number == UPLOADS.own - 1 {
                assert_eq!(uploads.begin(&owner).err(), Some(Busy::Own));
            }
        }
        assert_eq!(uploads.begin(&None).err(), Some(Busy::All));
        begun.pop();
        assert!(uploads.begin(&None).is_ok());
        assert!(uploads.begin(&tenant(9)).is_ok(), "a place that was given back is free");
    }
}
