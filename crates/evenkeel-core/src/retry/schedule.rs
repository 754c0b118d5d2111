//! Whether another attempt is made, and when.

use std::time::Duration;

use super::{Budget, Reach, Verdict};
use crate::{
    backoff::Backoff,
    rng::Rng,
    time::{Timestamp, scaled},
};

/// Whether and when another attempt is made: what all calls of a client share.
///
/// ```
/// use std::time::Duration;
/// use evenkeel::core::{
///     retry::{Budget, Progress, Reach, Schedule, Verdict},
///     rng::Rng,
///     time::Timestamp,
/// };
///
/// let schedule = Schedule::default();
/// let (mut progress, mut rng) = (Progress::default(), Rng::with_seed(1));
/// let failed = Verdict::Again { reach: Reach::Processed, after: None };
/// let now = Timestamp::default();
///
/// let delay = schedule.next(&mut progress, failed, None, now, None, &mut rng);
/// assert!(delay.unwrap() < Duration::from_millis(25));
/// ```
#[derive(Clone, Debug)]
pub struct Schedule {
    /// How many attempts a call may make, including the first. One more is free, after an attempt
    /// that was provably not processed.
    pub max_attempts: u32,
    /// How long to wait if the endpoint does not say.
    pub backoff: Backoff,
    /// The longest delay that an endpoint may ask for. A longer one is cut to this.
    pub max_delay: Duration,
}

impl Default for Schedule {
    /// Three attempts, Envoy's back-off (full jitter, 25 to 250 ms), and delays of at most five
    /// seconds.
    fn default() -> Self {
        Self {
            max_attempts: 3,
            backoff: Backoff::full_jitter(Duration::from_millis(25), Duration::from_millis(250)),
            max_delay: Duration::from_secs(5),
        }
    }
}

/// Why no other attempt is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stop {
    /// The attempt succeeded, or another one would fail in the same way.
    Final,
    /// The endpoint forbids another attempt.
    Forbidden,
    /// Another attempt might do harm, or the request is gone.
    NotRepeatable,
    /// The call has made as many attempts as it may.
    Exhausted,
    /// Another attempt could not begin before the deadline.
    TooLate,
    /// The budget does not pay for another attempt.
    NoBudget,
}

impl Stop {
    /// Its name in metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Final => "final",
            Self::Forbidden => "forbidden",
            Self::NotRepeatable => "not_repeatable",
            Self::Exhausted => "exhausted",
            Self::TooLate => "too_late",
            Self::NoBudget => "no_budget",
        }
    }
}

/// How far one call has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// How many attempts were counted after the first.
    retries: u32,
    is_free_one_used: bool,
}

impl Progress {
    /// How many attempts follow the first one, including those that are only scheduled.
    #[must_use]
    pub fn previous(&self) -> u32 {
        self.retries + u32::from(self.is_free_one_used)
    }

    /// Whether no attempt can follow those that were made or scheduled.
    #[must_use]
    pub fn is_last(&self, schedule: &Schedule) -> bool {
        self.is_free_one_used && schedule.max_attempts <= self.retries + 1
    }
}

impl Schedule {
    /// The delay before the next attempt of a call.
    ///
    /// The caller has made sure that the request may be sent again. The budget pays here, before
    /// the delay: if retries paid only after it, all that are waiting would then come at once.
    ///
    /// # Errors
    /// Why no other attempt is made.
    pub fn next(
        &self,
        progress: &mut Progress,
        verdict: Verdict,
        budget: Option<&Budget>,
        now: Timestamp,
        deadline: Option<Timestamp>,
        rng: &mut Rng,
    ) -> Result<Duration, Stop> {
        let (reach, after) = match verdict {
            Verdict::Again { reach, after } => (reach, after),
            Verdict::Forbidden => return Err(Stop::Forbidden),
            Verdict::Success | Verdict::Final => return Err(Stop::Final),
        };
        let is_free = reach == Reach::Unprocessed && after.is_none() && !progress.is_free_one_used;
        if is_free {
            progress.is_free_one_used = true;
            let is_in_time = deadline.is_none_or(|deadline| now < deadline);
            return if is_in_time { Ok(Duration::ZERO) } else { Err(Stop::TooLate) };
        }
        if self.max_attempts <= progress.retries + 1 {
            return Err(Stop::Exhausted);
        }
        let delay = match after {
            // Callers that were told the same delay do not come back together, and none comes too
            // early.
            Some(after) => scaled(after.min(self.max_delay), 1.0 + rng.unit() / 2.0),
            None => self.backoff.delay(progress.retries, rng),
        };
        if deadline.is_some_and(|deadline| deadline <= now + delay) {
            return Err(Stop::TooLate);
        }
        if budget.is_some_and(|budget| !budget.withdraw(now)) {
            return Err(Stop::NoBudget);
        }
        progress.retries += 1;
        Ok(delay)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const FAILED: Verdict = Verdict::Again { reach: Reach::Processed, after: None };
    const UNSENT: Verdict = Verdict::Again { reach: Reach::Unprocessed, after: None };

    fn told(after: Duration) -> Verdict {
        Verdict::Again { reach: Reach::Processed, after: Some(after) }
    }

    fn delays(schedule: &Schedule, verdict: Verdict, budget: &Budget, seed: u64) -> Vec<Duration> {
        let (mut progress, mut rng) = (Progress::default(), Rng::with_seed(seed));
        let mut next =
            || schedule.next(&mut progress, verdict, Some(budget), NOW, None, &mut rng).ok();
        std::iter::from_fn(&mut next).collect()
    }

    const NOW: Timestamp = Timestamp::from_nanos(1 << 62);

    #[test]
    fn a_call_has_three_attempts_and_a_free_one() {
        let schedule = Schedule::default();
        let budget = Budget::default();
        assert_eq!(delays(&schedule, FAILED, &budget, 1).len(), 2);
        let unsent = delays(&schedule, UNSENT, &budget, 1);
        assert_eq!(unsent.len(), 3);
        assert_eq!(unsent[0], Duration::ZERO);
        assert_eq!(budget.balance(NOW), 96, "the free one costs nothing");
        assert!(delays(&schedule, Verdict::Final, &budget, 1).is_empty());
        assert!(delays(&schedule, Verdict::Forbidden, &budget, 1).is_empty());
        assert!(delays(&schedule, Verdict::Success, &budget, 1).is_empty());
    }

    #[test]
    fn the_reason_against_another_attempt_is_reported() {
        let schedule = Schedule::default();
        let broke = Budget::share(0.0).floor_per_second(0);
        let stop = |verdict| {
            let (mut progress, mut rng) = (Progress::default(), Rng::with_seed(1));
            schedule.next(&mut progress, verdict, Some(&broke), NOW, None, &mut rng).unwrap_err()
        };

        assert_eq!(stop(FAILED), Stop::NoBudget);
        assert_eq!(stop(Verdict::Final), Stop::Final);
        assert_eq!(stop(Verdict::Forbidden), Stop::Forbidden);
    }

    #[test]
    fn the_last_attempt_is_known_before_it_is_made() {
        let schedule = Schedule { max_attempts: 2, ..Schedule::default() };
        let (mut progress, mut rng) = (Progress::default(), Rng::with_seed(1));
        assert!(!progress.is_last(&schedule));
        schedule.next(&mut progress, UNSENT, None, NOW, None, &mut rng).unwrap();
        assert!(!progress.is_last(&schedule));
        schedule.next(&mut progress, FAILED, None, NOW, None, &mut rng).unwrap();
        assert!(progress.is_last(&schedule));
        assert_eq!(progress.previous(), 2);
        let next = schedule.next(&mut progress, UNSENT, None, NOW, None, &mut rng);
        assert_eq!(next, Err(Stop::Exhausted));
    }

    #[test]
    fn calls_that_fail_together_do_not_come_back_together() {
        let schedule = Schedule::default();
        let budget = Budget::share(0.0).floor_per_second(1_000);
        for verdict in [FAILED, told(Duration::from_secs(1))] {
            let mut first: Vec<_> =
                (0..200).map(|seed| delays(&schedule, verdict, &budget, seed)[0]).collect();
            first.sort();
            first.dedup();
            assert_eq!(first.len(), 200);
        }
    }

    #[test]
    fn a_delay_that_an_endpoint_asks_for_is_kept_up_to_a_maximum() {
        let schedule = Schedule::default();
        let seconds = Duration::from_secs;
        for seed in 0..100 {
            let delay = delays(&schedule, told(seconds(2)), &Budget::default(), seed)[0];
            assert!(seconds(2) <= delay && delay < seconds(3), "{delay:?}");
            let delay = delays(&schedule, told(seconds(3_600)), &Budget::default(), seed)[0];
            assert!(seconds(5) <= delay && delay < Duration::from_millis(7_500), "{delay:?}");
        }
    }

    #[test]
    fn an_attempt_that_cannot_end_in_time_is_not_begun_and_not_paid_for() {
        let schedule = Schedule::default();
        let budget = Budget::default();
        let next = |verdict, left: u64| {
            let deadline = Some(NOW + Duration::from_millis(left));
            let (mut progress, mut rng) = (Progress::default(), Rng::with_seed(1));
            schedule.next(&mut progress, verdict, Some(&budget), NOW, deadline, &mut rng)
        };
        assert_eq!(next(told(Duration::from_secs(1)), 900), Err(Stop::TooLate));
        assert_eq!(next(UNSENT, 0), Err(Stop::TooLate));
        assert_eq!(next(UNSENT, 1), Ok(Duration::ZERO));
        assert!(next(FAILED, 1_000).is_ok());
        assert_eq!(budget.balance(NOW), 99);
    }

    #[test]
    fn extreme_requested_delays_and_bounds_do_not_overflow() {
        let schedule = Schedule { max_delay: Duration::MAX, ..Schedule::default() };
        for after in [Duration::from_secs(u64::MAX), Duration::MAX] {
            for seed in 0..50 {
                let delay = delays(&schedule, told(after), &Budget::default(), seed)[0];
                assert!(Duration::from_secs(u64::MAX) <= delay);
            }
        }
    }
}
