//! How many deliveries an endpoint gets at once, and when it gets none: learned from what becomes of
//! them. Pure.

/// How much of the past a breaker looks at, in parts that are forgotten one after the other.
const WINDOW_MS: i64 = 5 * 60_000;
const PARTS: usize = 5;
const PART_MS: i64 = 60_000;
/// With at least so many attempts of which at least so many percent failed, it opens.
const ATTEMPTS_MIN: u32 = 10;
const FAILED_PERCENT: u32 = 70;

/// How an attempt went, as far as it says how much the endpoint bears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Went {
    Well,
    /// The endpoint answered something else than success.
    Refused,
    /// It did not answer, or that it is overloaded or broken.
    Badly,
}

/// What the operator decides.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// The most that may be out at once.
    pub(super) limit_max: usize,
    /// How long an endpoint that fails gets nothing, before one delivery is tried.
    pub(super) open_ms: i64,
}

/// What is known of an endpoint.
#[derive(Debug)]
pub(super) struct Flow {
    /// How many may be out at once: one more with each success, half of them with a failure.
    limit: usize,
    /// How many attempts are still out that began before the limit was halved: they say nothing new.
    old: usize,
    breaker: Breaker,
    /// Attempts and failures of the last minutes, and the number of the newest of these parts.
    parts: [(u32, u32); PARTS],
    newest: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Breaker {
    Closed,
    Open {
        until_ms: i64,
    },
    /// One delivery is out, to see.
    Trying,
}

/// What an attempt has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    None,
    /// From now on the endpoint gets nothing for a while.
    Fails,
    /// It has taken the one that was tried.
    Recovers,
}

/// Whether the next delivery may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    Go,
    /// As many as may be are out.
    Enough,
    /// None may go before this time.
    Shut {
        until_ms: i64,
    },
}

impl Default for Flow {
    fn default() -> Flow {
        Flow { limit: 1, old: 0, breaker: Breaker::Closed, parts: [(0, 0); PARTS], newest: 0 }
    }
}

impl Flow {
    pub(super) fn gate(&self, in_flight: usize, now_ms: i64) -> Gate {
        match self.breaker {
            Breaker::Open { until_ms } if now_ms < until_ms => Gate::Shut { until_ms },
            Breaker::Closed if in_flight < self.limit => Gate::Go,
            Breaker::Open { .. } if in_flight == 0 => Gate::Go,
            Breaker::Closed | Breaker::Open { .. } | Breaker::Trying => Gate::Enough,
        }
    }

    /// One goes.
    pub(super) fn begins(&mut self) {
        if let Breaker::Open { .. } = self.breaker {
            self.breaker = Breaker::Trying;
        }
    }

    /// One has ended, and so many are still out.
    pub(super) fn ends(
        &mut self,
        went: Went,
        in_flight: usize,
        bounds: Bounds,
        now_ms: i64,
    ) -> Change {
        self.forget(now_ms);
        let (attempts, failures) = &mut self.parts[0];
        *attempts += 1;
        *failures += u32::from(went != Went::Well);
        let says_something = self.old == 0;
        self.old = self.old.saturating_sub(1);
        match went {
            Went::Badly if says_something => {
                self.limit = (self.limit / 2).max(1);
                self.old = in_flight;
            }
            Went::Badly => {}
            Went::Well | Went::Refused => self.limit = (self.limit + 1).min(bounds.limit_max),
        }
        let opens = match self.breaker {
            Breaker::Closed => self.fails_mostly(),
            Breaker::Trying => went != Went::Well,
            // What ends only now began before it opened.
            Breaker::Open { .. } => false,
        };
        if opens {
            let again = self.breaker == Breaker::Trying;
            self.breaker = Breaker::Open { until_ms: now_ms + bounds.open_ms };
            self.limit = 1;
            return if again { Change::None } else { Change::Fails };
        }
        if self.breaker == Breaker::Trying {
            *self = Flow { newest: self.newest, ..Flow::default() };
            return Change::Recovers;
        }
        Change::None
    }

    /// The one that was out was not sent: it says nothing of the endpoint.
    pub(super) fn not_sent(&mut self, now_ms: i64) {
        if self.breaker == Breaker::Trying {
            self.breaker = Breaker::Open { until_ms: now_ms };
        }
    }

    /// How many deliveries are worth having in memory.
    pub(super) fn worth_having(&self) -> usize {
        match self.breaker {
            Breaker::Closed => 8 * self.limit,
            Breaker::Open { .. } | Breaker::Trying => 1,
        }
    }

    /// Whether there is nothing to remember. Successes are remembered as long as failures: without them a few
    /// failures of an endpoint that had nothing to do for a moment would be all that is known of it.
    pub(super) fn is_calm(&self, now_ms: i64) -> bool {
        let is_past = (self.newest + 1) * PART_MS + WINDOW_MS <= now_ms;
        let is_unknown = self.parts.iter().all(|(attempts, _)| *attempts == 0);
        self.breaker == Breaker::Closed && (is_past || is_unknown)
    }

    /// Until when it gets nothing.
    pub(super) fn shut_until_ms(&self) -> Option<i64> {
        match self.breaker {
            Breaker::Open { until_ms } => Some(until_ms),
            Breaker::Closed | Breaker::Trying => None,
        }
    }

    /// The clock was set back.
    pub(super) fn set_back(&mut self, by_ms: i64) {
        self.newest -= by_ms.div_euclid(PART_MS);
        if let Breaker::Open { until_ms } = &mut self.breaker {
            *until_ms -= by_ms;
        }
    }

    fn fails_mostly(&self) -> bool {
        let (attempts, failures) = self
            .parts
            .iter()
            .fold((0, 0), |(attempts, failures), it| (attempts + it.0, failures + it.1));
        attempts >= ATTEMPTS_MIN && failures * 100 >= attempts * FAILED_PERCENT
    }

    /// Lets go of what is too long ago.
    fn forget(&mut self, now_ms: i64) {
        let part = now_ms.div_euclid(PART_MS);
        let passed = usize::try_from(part - self.newest).unwrap_or(0).min(PARTS);
        self.parts.rotate_right(passed);
        self.parts[..passed].fill((0, 0));
        self.newest = self.newest.max(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { limit_max: 32, open_ms: 30_000 };

    fn end(flow: &mut Flow, went: Went, in_flight: usize, now_ms: i64) -> Change {
        flow.ends(went, in_flight, BOUNDS, now_ms)
    }

    #[test]
    fn the_limit_grows_by_one_and_falls_by_half() {
        let mut flow = Flow::default();
        assert_eq!([flow.gate(0, 0), flow.gate(1, 0)], [Gate::Go, Gate::Enough]);
        for _ in 0..40 {
            end(&mut flow, Went::Well, 0, 0);
        }
        assert_eq!([flow.gate(31, 0), flow.gate(32, 0)], [Gate::Go, Gate::Enough]);
        end(&mut flow, Went::Badly, 31, 0);
        assert_eq!([flow.gate(15, 0), flow.gate(16, 0)], [Gate::Go, Gate::Enough]);
        // The others that were out then say the same thing once more.
        for left in (0..31).rev() {
            end(&mut flow, Went::Badly, left, 0);
        }
        assert_eq!([flow.gate(15, 0), flow.gate(16, 0)], [Gate::Go, Gate::Enough]);
        end(&mut flow, Went::Badly, 0, 0);
        assert_eq!([flow.gate(7, 0), flow.gate(8, 0)], [Gate::Go, Gate::Enough]);
    }

    #[test]
    fn an_endpoint_that_fails_mostly_is_tried_again_with_one() {
        let mut flow = Flow::default();
        for _ in 0..3 {
            assert_eq!(end(&mut flow, Went::Well, 0, 0), Change::None);
        }
        for _ in 0..6 {
            assert_eq!(end(&mut flow, Went::Badly, 0, 60_000), Change::None);
        }
        assert_eq!(end(&mut flow, Went::Refused, 0, 61_000), Change::Fails);
        assert_eq!(flow.gate(0, 90_999), Gate::Shut { until_ms: 91_000 });
        assert_eq!(flow.gate(1, 91_000), Gate::Enough, "what was out before is to end first");
        assert_eq!(flow.gate(0, 91_000), Gate::Go);
        flow.begins();
        assert_eq!(flow.gate(1, 91_000), Gate::Enough);
        assert_eq!(end(&mut flow, Went::Badly, 0, 92_000), Change::None);
        assert_eq!(flow.gate(0, 92_000), Gate::Shut { until_ms: 122_000 });
        flow.begins();
        assert_eq!(end(&mut flow, Went::Well, 0, 123_000), Change::Recovers);
        assert_eq!(flow.gate(0, 123_000), Gate::Go);
        assert_eq!(end(&mut flow, Went::Badly, 0, 124_000), Change::None, "the past is forgotten");
    }

    #[test]
    fn a_clock_that_is_set_back_shuts_nothing_for_longer() {
        let mut flow = Flow::default();
        for _ in 0..10 {
            end(&mut flow, Went::Badly, 0, 7_200_000);
        }
        flow.set_back(3_600_000);
        assert_eq!(flow.shut_until_ms(), Some(3_630_000));
        assert_eq!([flow.gate(0, 3_630_000), flow.gate(1, 3_630_000)], [Gate::Go, Gate::Enough]);
    }

    #[test]
    fn successes_are_remembered_as_long_as_failures() {
        let mut flow = Flow::default();
        assert!(flow.is_calm(0));
        for _ in 0..300 {
            end(&mut flow, Went::Well, 0, 0);
        }
        assert!(!flow.is_calm(1_000), "the endpoint has nothing to do for a moment");
        for _ in 0..10 {
            assert_eq!(end(&mut flow, Went::Badly, 0, 290_000), Change::None, "these are 3 %");
        }
        assert!(flow.is_calm(1_000_000));
    }

    #[test]
    fn what_is_long_ago_does_not_count() {
        let mut flow = Flow::default();
        for _ in 0..9 {
            end(&mut flow, Went::Badly, 0, 0);
        }
        assert!(!flow.is_calm(300_000));
        assert!(flow.is_calm(360_000));
        assert_eq!(end(&mut flow, Went::Badly, 0, 300_000), Change::None);
    }
}
