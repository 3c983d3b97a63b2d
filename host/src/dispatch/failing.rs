//! Endpoints from which nothing but failures has come for a long time: announced, and disabled in the end.
//! Pure; the store keeps it.

use std::collections::HashMap;

use uuid::Uuid;

/// At which parts of the time, in percent, the end is announced.
const ANNOUNCED: [u8; 3] = [50, 70, 90];

/// Which endpoints fail, since when, and what has been announced of that.
#[derive(Default)]
pub(super) struct Failing {
    since: HashMap<Uuid, Since>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Since {
    pub(super) at_ms: i64,
    /// In percent.
    pub(super) announced: u8,
}

/// What follows from an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing that has to be kept.
    None,
    Begins(Since),
    Announce(Since),
    /// It has failed for as long as it may.
    Disable(Since),
    Ends,
}

impl Failing {
    /// Takes up what the last process knew.
    pub(super) fn take_up(&mut self, subscription: Uuid, since: Since) {
        self.since.insert(subscription, since);
    }

    pub(super) fn succeeded(&mut self, subscription: Uuid) -> Turn {
        match self.since.remove(&subscription) {
            Some(_) => Turn::Ends,
            None => Turn::None,
        }
    }

    /// `limit_ms`: how long it may fail; `changed_ms`: since when the subscription is as it is. What went
    /// wrong before that does not count.
    pub(super) fn failed(
        &mut self,
        subscription: Uuid,
        changed_ms: i64,
        now_ms: i64,
        limit_ms: i64,
    ) -> Turn {
        let known = self.since.get_mut(&subscription).filter(|it| it.at_ms >= changed_ms);
        let Some(since) = known else {
            let since = Since { at_ms: now_ms, announced: 0 };
            self.since.insert(subscription, since);
            return Turn::Begins(since);
        };
        let percent = (now_ms - since.at_ms).saturating_mul(100) / limit_ms.max(1);
        if percent >= 100 {
            let since = *since;
            self.since.remove(&subscription);
            return Turn::Disable(since);
        }
        let reached = ANNOUNCED.into_iter().rev().find(|it| i64::from(*it) <= percent);
        match reached {
            Some(reached) if reached > since.announced => {
                since.announced = reached;
                Turn::Announce(*since)
            }
            _ => Turn::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_announced_three_times_and_then_disabled() {
        let (mut failing, id) = (Failing::default(), Uuid::nil());
        let mut fail = |now_ms| failing.failed(id, 4_000, now_ms, 1_000);
        let since = |announced| Since { at_ms: 5_000, announced };
        assert_eq!(fail(5_000), Turn::Begins(since(0)));
        assert_eq!(fail(5_499), Turn::None);
        assert_eq!(fail(5_500), Turn::Announce(since(50)));
        assert_eq!(fail(5_600), Turn::None);
        assert_eq!(
            fail(5_950),
            Turn::Announce(since(90)),
            "what was passed over is not made up for"
        );
        assert_eq!(fail(6_000), Turn::Disable(since(90)));
        assert_eq!(fail(6_001), Turn::Begins(Since { at_ms: 6_001, announced: 0 }));
    }

    #[test]
    fn one_success_ends_it() {
        let (mut failing, id) = (Failing::default(), Uuid::nil());
        assert_eq!(failing.succeeded(id), Turn::None);
        failing.failed(id, 0, 0, 1_000);
        assert_eq!(failing.succeeded(id), Turn::Ends);
        assert_eq!(
            failing.failed(id, 0, 999, 1_000),
            Turn::Begins(Since { at_ms: 999, announced: 0 })
        );
    }

    #[test]
    fn whoever_changes_or_resumes_a_subscription_begins_anew() {
        let (mut failing, id) = (Failing::default(), Uuid::nil());
        failing.failed(id, 0, 100, 1_000);
        let since = Since { at_ms: 5_000, announced: 0 };
        assert_eq!(failing.failed(id, 4_000, 5_000, 1_000), Turn::Begins(since));
    }
}
