//! What follows from attempts beside their deliveries: a subscription is stopped, something is announced. Each is a
//! task that writes to the store. A tenant whose store writes come slower than its deliveries die sends no more until
//! some of them are done, so that they do not pile up in memory.

use std::collections::HashMap;

use hookyard_nouns::event::Tenant;
use tokio::task::{self, JoinSet};
use tokio::time::{Instant, timeout_at};

/// How many there may be of one tenant when it sends something more, and of all.
const OWN_MAX: usize = 256;
const MAX: usize = 4_096;

#[derive(Debug, Default)]
pub(super) struct FollowUps {
    tasks: JoinSet<()>,
    tenants: HashMap<task::Id, Tenant>,
    counts: HashMap<Tenant, usize>,
}

impl FollowUps {
    pub(super) fn begin(&mut self, tenant: &Tenant, it: impl Future<Output = ()> + Send + 'static) {
        let task = self.tasks.spawn(it);
        self.tenants.insert(task.id(), tenant.clone());
        *self.counts.entry(tenant.clone()).or_default() += 1;
    }

    /// Whether a tenant may send something that more of these may follow from.
    pub(super) fn has_room(&self, tenant: &Tenant) -> bool {
        self.tasks.len() < MAX && self.counts.get(tenant).is_none_or(|count| *count < OWN_MAX)
    }

    /// Waits for the next one that is done; none where there are none.
    pub(super) async fn next(&mut self) -> Option<()> {
        let ended = self.tasks.join_next_with_id().await?;
        let task = ended.map_or_else(|err| err.id(), |(task, ())| task);
        let tenant = self.tenants.remove(&task).expect("each is one of a tenant's");
        let count = self.counts.get_mut(&tenant).expect("what ends has begun");
        *count -= 1;
        if *count == 0 {
            self.counts.remove(&tenant);
        }
        Some(())
    }

    /// Waits for all of them, until a time.
    pub(super) async fn finish(&mut self, until: Instant) {
        while let Ok(Some(())) = timeout_at(until, self.next()).await {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_tenant_with_many_waits_and_others_do_not() {
        let [many, other] = ["many", "other"].map(|it| Tenant::new(it).unwrap());
        let mut all = FollowUps::default();
        for number in 0..OWN_MAX {
            all.begin(&many, async move { assert!(number > 0, "one panics") });
        }
        assert!(!all.has_room(&many));
        assert!(all.has_room(&other));
        all.next().await.unwrap();
        assert!(all.has_room(&many));
        while all.next().await.is_some() {}
        assert!(all.counts.is_empty() && all.tenants.is_empty());
    }
}
