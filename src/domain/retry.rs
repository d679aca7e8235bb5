//! The retry ladder: the rung on which a request waits for its next attempt.
//!
//! It must not know queues: a rung is an index into the configured delays.

use std::time::Duration;

/// The cause of a retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryCause {
    /// The usage was not found: the request may have overtaken it.
    UsageNotFound,
    /// The request failed for a transient cause of its own.
    Failed,
}

/// The configured ladder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ladder {
    /// The delay of each rung, in the order of the attempts.
    pub delays: Vec<Duration>,
    /// The number of retries while the usage is not found.
    pub usage_not_found_attempts: u32,
}

impl Ladder {
    /// The rung with the longest delay. `None` if the ladder has no rung.
    #[must_use]
    pub fn longest(&self) -> Option<usize> {
        (0..self.delays.len()).max_by_key(|rung| self.delays[*rung])
    }

    /// The rung for a request after `attempts` attempts, including the one that just failed. `None`
    /// if that was the last one.
    ///
    /// `max_attempts` is the publisher's bound (header `x-max-attempts`). It can shorten the
    /// ladder, not lengthen it.
    #[must_use]
    pub fn rung(
        &self,
        cause: RetryCause,
        attempts: u32,
        max_attempts: Option<u32>,
    ) -> Option<usize> {
        let rungs = u32::try_from(self.delays.len()).unwrap_or(u32::MAX);
        let last_rung = rungs.checked_sub(1)?;
        let retries = match cause {
            RetryCause::UsageNotFound => self.usage_not_found_attempts,
            RetryCause::Failed => rungs,
        };
        let retries = max_attempts.map_or(retries, |max| retries.min(max.saturating_sub(1)));
        let retry = attempts.max(1) - 1;
        (retry < retries).then(|| retry.min(last_rung) as usize)
    }

    /// The rung of a wait that is no attempt, after `waits` such waits: each rung once, then the
    /// last. `None` if the ladder has no rung.
    #[must_use]
    pub fn wait(&self, waits: u32) -> Option<usize> {
        let last = self.delays.len().checked_sub(1)?;
        Some(usize::try_from(waits).map_or(last, |waits| waits.min(last)))
    }

    /// The rung for a message that belongs on `first`, after `passed` rungs that did not take it:
    /// the later rungs follow, then the earlier ones, the nearest first. `None` after the last.
    #[must_use]
    pub fn rung_from(&self, first: usize, passed: usize) -> Option<usize> {
        let rungs = self.delays.len();
        let later = first + passed;
        if later < rungs {
            return Some(later);
        }
        rungs.checked_sub(passed + 1)
    }

    /// Whether a request was on every rung after `waits` waits that were no attempt.
    #[must_use]
    pub fn is_climbed(&self, waits: u32) -> bool {
        usize::try_from(waits).is_ok_and(|waits| waits >= self.delays.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ladder(rungs: u64, usage_not_found_attempts: u32) -> Ladder {
        Ladder {
            delays: (1..=rungs).map(Duration::from_secs).collect(),
            usage_not_found_attempts,
        }
    }

    #[test]
    fn a_failing_request_climbs_every_rung_once() {
        let climbed: Vec<_> = (1..=4)
            .map(|attempts| ladder(3, 0).rung(RetryCause::Failed, attempts, None))
            .collect();
        assert_eq!(climbed, [Some(0), Some(1), Some(2), None]);
    }

    #[test]
    fn a_missing_usage_is_retried_as_often_as_configured() {
        let climb = |rungs, retries| -> Vec<_> {
            (1..=4)
                .map(|attempts| {
                    ladder(rungs, retries).rung(RetryCause::UsageNotFound, attempts, None)
                })
                .collect()
        };
        assert_eq!(climb(5, 3), [Some(0), Some(1), Some(2), None]);
        assert_eq!(climb(5, 0), [None; 4]);
        assert_eq!(climb(2, 3), [Some(0), Some(1), Some(1), None]);
        assert_eq!(climb(0, 3), [None; 4]);
    }

    #[test]
    fn an_uncounted_wait_climbs_then_stays_on_the_longest() {
        let waits: Vec<_> = (0..5).map(|waits| ladder(3, 0).wait(waits)).collect();
        assert_eq!(waits, [Some(0), Some(1), Some(2), Some(2), Some(2)]);
        let climbed: Vec<_> = (0..5).map(|waits| ladder(3, 0).is_climbed(waits)).collect();
        assert_eq!(climbed, [false, false, false, true, true]);
        assert_eq!(ladder(0, 0).wait(0), None);
    }

    #[test]
    fn a_message_passes_every_rung_once() {
        let rungs = |first| -> Vec<_> {
            (0..5)
                .map(|passed| ladder(4, 0).rung_from(first, passed))
                .collect()
        };
        assert_eq!(rungs(0), [Some(0), Some(1), Some(2), Some(3), None]);
        assert_eq!(rungs(2), [Some(2), Some(3), Some(1), Some(0), None]);
        assert_eq!(rungs(3), [Some(3), Some(2), Some(1), Some(0), None]);
        assert_eq!(ladder(0, 0).rung_from(0, 0), None);
    }

    #[test]
    fn a_publisher_can_shorten_the_ladder() {
        for cause in [RetryCause::UsageNotFound, RetryCause::Failed] {
            assert_eq!(ladder(3, 3).rung(cause, 1, Some(1)), None);
            assert_eq!(ladder(3, 3).rung(cause, 1, Some(2)), Some(0));
            assert_eq!(ladder(3, 3).rung(cause, 2, Some(2)), None);
            assert_eq!(ladder(3, 3).rung(cause, 4, Some(9)), None);
        }
    }

    proptest! {
        #[test]
        fn a_ladder_ends_and_names_only_existing_rungs(
            rungs in 0u64..9, retries in 0u32..20, attempts in any::<u32>(),
                max in any::<Option<u32>>(),
        ) {
            let ladder = ladder(rungs, retries);
            for cause in [RetryCause::UsageNotFound, RetryCause::Failed] {
                if let Some(rung) = ladder.rung(cause, attempts, max) {
                    prop_assert!(rung < ladder.delays.len());
                    prop_assert!(u64::from(attempts) <= u64::from(retries).max(rungs));
                }
            }
        }
    }
}
