//! When a plugin has failed too often for a subscription. Pure.

/// So many failures one after the other,
const IN_A_ROW_MAX: u32 = 5;
/// or more than this share of the runs of a minute, if there are enough of them.
const PERCENT_MAX: u32 = 20;
const RUNS_MIN: u32 = 50;

/// Counts the runs of one plugin for one subscription.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    in_a_row: u32,
    minute: i64,
    runs: u32,
    faults: u32,
}

impl Breaker {
    /// Counts a run. Answers whether it is one failure too many; then counting begins anew.
    pub(super) fn count(&mut self, fault: bool, minute: i64) -> bool {
        if self.minute != minute {
            *self = Breaker { in_a_row: self.in_a_row, minute, runs: 0, faults: 0 };
        }
        self.runs += 1;
        self.faults += u32::from(fault);
        self.in_a_row = if fault { self.in_a_row + 1 } else { 0 };
        let often = self.runs >= RUNS_MIN && self.faults * 100 > self.runs * PERCENT_MAX;
        let too_many = fault && (self.in_a_row >= IN_A_ROW_MAX || often);
        if too_many {
            *self = Breaker::default();
        }
        too_many
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `runs`: one letter a run, `x` for a failure. Answers after how many of them it is too much.
    fn opens(runs: &str) -> Option<usize> {
        let mut breaker = Breaker::default();
        runs.chars().position(|run| breaker.count(run == 'x', 7)).map(|at| at + 1)
    }

    #[test]
    fn five_failures_in_a_row_are_too_many() {
        assert_eq!(opens("xxxxx"), Some(5));
        assert_eq!(opens("xxxx.xxxx.xxxx."), None);
        assert_eq!(opens(".xxxxx"), Some(6));
    }

    #[test]
    fn a_fifth_of_the_runs_of_a_minute_is_not_too_many_but_more_is() {
        assert_eq!(opens(&"....x".repeat(40)), None);
        assert_eq!(opens(&"x...".repeat(40)), Some(53));
        let mut breaker = Breaker::default();
        let opened = (0..200).any(|run| breaker.count(run % 3 == 0, run / 40));
        assert!(!opened, "each minute had fewer runs than tell something");
    }

    #[test]
    fn counting_begins_anew() {
        assert_eq!(opens("xxxxx").and(opens("xxxx")), None);
        let mut breaker = Breaker::default();
        let opened = (0..20).filter(|_| breaker.count(true, 1)).count();
        assert_eq!(opened, 4);
    }
}
