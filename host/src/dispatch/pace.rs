//! How fast deliveries go, where an endpoint or an account has said so.

use std::collections::HashMap;

use hookyard_nouns::event::Tenant;
use hookyard_nouns::subscription::Subscription;

use crate::formats::AccountRate;

/// The cycles of the accounts that have a rate.
#[derive(Default)]
pub(super) struct Pace {
    cycles: HashMap<(Tenant, &'static str), Cycle>,
}

struct Cycle {
    ends_ms: i64,
    sent: u64,
}

impl Pace {
    /// The clock was set back.
    pub(super) fn set_back(&mut self, by_ms: i64) {
        self.cycles.values_mut().for_each(|it| it.ends_ms -= by_ms);
    }

    /// Counts one delivery of an account.
    ///
    /// # Errors
    ///
    /// The cycle is full; the account rests until then, and nothing was counted.
    pub(super) fn count(
        &mut self,
        account: (Tenant, &'static str),
        rate: AccountRate,
        now_ms: i64,
    ) -> Result<(), i64> {
        let fresh = || Cycle { ends_ms: now_ms + rate.cycle_ms, sent: 0 };
        let cycle = self.cycles.entry(account).or_insert_with(fresh);
        if cycle.ends_ms <= now_ms {
            *cycle = fresh();
        }
        if cycle.sent >= rate.deliveries {
            return Err(cycle.ends_ms);
        }
        cycle.sent += 1;
        Ok(())
    }
}

/// Until when a lane rests after a delivery that is made now; none where neither its endpoint nor the
/// subscriber has said how many there may be.
pub(super) fn rests_until_ms(it: &Subscription, now_ms: i64) -> Option<i64> {
    let rate = it.rate_per_minute.into_iter().chain(it.pace.per_minute).min()?;
    Some(now_ms + 60_000 / i64::from(rate.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_rests_when_its_cycle_is_full() {
        let mut pace = Pace::default();
        let rate = AccountRate { deliveries: 2, cycle_ms: 1_000 };
        let mut count = |name: &str, now_ms| {
            pace.count((Tenant::new(name).unwrap(), "mypreferences"), rate, now_ms)
        };
        assert_eq!([count("a", 0), count("a", 900), count("a", 999)], [Ok(()), Ok(()), Err(1_000)]);
        assert_eq!(count("b", 999), Ok(()));
        assert_eq!(
            [count("a", 1_000), count("a", 1_999), count("a", 1_999)],
            [Ok(()), Ok(()), Err(2_000)]
        );
    }
}
