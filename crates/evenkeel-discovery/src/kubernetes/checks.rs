//! How often a watch is checked because an endpoint cannot be reached.

use std::time::Duration;

use evenkeel_core::{backoff::Backoff, rng::Rng};
use tokio::time::Instant;

/// The rest after the first check.
const REST: Duration = Duration::from_secs(2);
/// The rest after many checks, and the calm after which they are forgotten.
const REST_MAX: Duration = Duration::from_secs(60);

/// When a watch may be checked.
///
/// A pod that is dead but not yet known to be is tried again and again, by every client that has
/// it, and each failure asks for fresh news. A working watch brings the news by itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Checks {
    made: u32,
    next: Option<Instant>,
}

impl Checks {
    /// The earliest time of the next check; none if it may be made at once.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Records that a check is made now.
    pub(super) fn make(&mut self, now: Instant, rng: &mut Rng) {
        if self.next.is_none_or(|next| next + REST_MAX <= now) {
            self.made = 0;
        }
        self.next = Some(now + Backoff::new(REST, REST_MAX).delay(self.made, rng));
        self.made += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    /// How many checks are made in ten minutes in which an endpoint cannot be reached.
    fn made(checks: &mut Checks, start: Instant) -> usize {
        let mut rng = Rng::with_seed(1);
        let mut now = start;
        let mut made = 0;
        while now < start + Duration::from_secs(600) {
            checks.make(now, &mut rng);
            made += 1;
            now = checks.next().unwrap();
        }
        made
    }

    #[test]
    fn checks_become_rare_while_they_are_asked_for_and_forget_it_after_a_calm() {
        let (mut checks, start) = (Checks::default(), clock::now());
        assert_eq!(checks.next(), None, "the first is made at once");

        let of_ten_minutes = made(&mut checks, start);
        assert!((10..=26).contains(&of_ten_minutes), "{of_ten_minutes}");

        let calm = checks.next().unwrap() + REST_MAX;
        checks.make(calm, &mut Rng::with_seed(1));
        assert!(checks.next().unwrap() <= calm + REST);
    }
}
