//! How much CPU time the compiler has taken for each tenant in this hour. Time on the clock would tell of the
//! machine, and of what the compiler does for others.

use std::sync::Mutex;
use std::time::Duration;

use hookyard_nouns::event::Tenant;

use super::workshop::lock;
use crate::fair::{Cache, Owner};

const HOUR_MS: i64 = 3_600_000;
/// Of how many tenants it is known.
const TENANTS_MAX: usize = 65_536;

pub(super) struct Hours {
    max: Duration,
    /// Of each tenant the hour, and the time in that hour.
    spent: Mutex<Cache<Tenant, (i64, Duration), Tenant>>,
}

impl Hours {
    pub(super) fn new(max: Duration) -> Hours {
        Hours { max, spent: Mutex::new(Cache::new(TENANTS_MAX)) }
    }

    /// Why the compiler does no more for an owner in this hour; none where it does.
    pub(super) fn is_over(&self, owner: &Owner, now_ms: i64) -> Option<String> {
        let (spent, max) = (self.spent(owner.as_ref()?, now_ms).as_secs(), self.max.as_secs());
        (spent >= max).then(|| {
            format!(
                "compiling your plugins has taken {spent} s of CPU time in this hour, and {max} s is the \
                 most (`plugin-compile-hour-seconds`); try again in the next one"
            )
        })
    }

    pub(super) fn charge(&self, owner: &Owner, now_ms: i64, time: Duration) {
        let Some(tenant) = owner else { return };
        let spent = self.spent(tenant, now_ms) + time;
        lock(&self.spent).put(tenant, tenant.clone(), 1, (now_ms / HOUR_MS, spent));
    }

    pub(super) fn spent(&self, tenant: &Tenant, now_ms: i64) -> Duration {
        let mut all = lock(&self.spent);
        let known = all.get(tenant).filter(|(hour, _)| *hour == now_ms / HOUR_MS);
        known.map_or(Duration::ZERO, |(_, spent)| *spent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tenant_has_its_hour() {
        let hours = Hours::new(Duration::from_secs(10));
        let (a, b) = (Some(Tenant::new("a").unwrap()), Some(Tenant::new("b").unwrap()));
        for it in [&a, &a, &None] {
            hours.charge(it, HOUR_MS, Duration::from_secs(6));
        }
        let why = hours.is_over(&a, 2 * HOUR_MS - 1).unwrap();
        assert!(why.contains("12 s") && why.contains("10 s"), "{why}");
        assert_eq!(hours.is_over(&b, HOUR_MS), None);
        assert_eq!(hours.is_over(&None, HOUR_MS), None, "the router itself has no bound");
        assert_eq!(hours.is_over(&a, 2 * HOUR_MS), None, "it is another hour");
    }
}
