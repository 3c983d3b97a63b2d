//! Which subscriptions are to get more of what is due in the store: a few at a time, in turns of the tenants.
//! Each claim reads events and makes their bodies again, so that very many at once would fill the memory.

use std::collections::HashMap;
use std::sync::Arc;

use hookyard_nouns::event::Tenant;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::claim::{Claimed, claim};
use crate::app::App;
use crate::fair::{FairQueue, Owner, Room};

/// How many claims are under way, of all and of one tenant.
const CLAIMS_MAX: usize = 32;
const OWN_CLAIMS_MAX: usize = 8;
/// A subscription asks once, and so the number of subscriptions is the bound of what waits.
const ROOM: Room = Room { own_items: usize::MAX, own_bytes: usize::MAX, all_bytes: usize::MAX };

pub(super) struct Claims {
    asked: FairQueue<(Uuid, usize)>,
    under_way: JoinSet<Claimed>,
    of: HashMap<Owner, usize>,
}

impl Default for Claims {
    fn default() -> Claims {
        let asked = FairQueue::new(ROOM);
        Claims { asked, under_way: JoinSet::new(), of: HashMap::new() }
    }
}

impl Claims {
    /// Up to so many deliveries of a subscription are to be claimed.
    pub(super) fn ask(&mut self, tenant: &Tenant, subscription: Uuid, limit: usize) {
        self.asked.add(&Some(tenant.clone()), 0, (subscription, limit));
    }

    /// Begins those claims that may be under way.
    pub(super) fn start(&mut self, app: &Arc<App>) {
        while self.under_way.len() < CLAIMS_MAX {
            let of = &self.of;
            let may = |owner: &Owner| of.get(owner).is_none_or(|count| *count < OWN_CLAIMS_MAX);
            let Some((owner, (subscription, limit))) = self.asked.pop(may) else { return };
            self.asked.charge(&owner, 1);
            let tenant = owner.clone().expect("claims are of tenants");
            *self.of.entry(owner).or_default() += 1;
            self.under_way.spawn(claim(Arc::clone(app), tenant, subscription, limit));
        }
    }

    /// The next claim that has ended; none where none is under way.
    pub(super) async fn next(&mut self) -> Option<Claimed> {
        let claimed = self.under_way.join_next().await?.expect("a claim catches its panics");
        let owner = Some(claimed.tenant.clone());
        let count = self.of.get_mut(&owner).expect("a claim that ends has begun");
        *count -= 1;
        if *count == 0 {
            self.of.remove(&owner);
        }
        Some(claimed)
    }

    /// What is under way is given up; the next process claims it again.
    pub(super) async fn shutdown(&mut self) {
        self.under_way.shutdown().await;
    }
}
