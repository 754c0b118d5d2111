//! How often a registry is asked because an endpoint cannot be reached.

use std::time::Duration;

use evenkeel_core::{backoff::Backoff, rng::Rng};
use tokio::time::{Instant, sleep_until};

use crate::{clock, session::Session};

/// When a registry that is followed may be asked beside that.
///
/// An endpoint that is dead but not yet known to be is tried again and again, by every client that
/// has it, and each failure asks for fresh news. A working watch brings the news by itself.
#[derive(Clone, Debug)]
pub(crate) struct Checks {
    rest: Duration,
    max_rest: Duration,
    made: u32,
    next: Option<Instant>,
}

impl Checks {
    /// The first check is made at once. The rest after it is up to `rest`, and after many checks up
    /// to `max_rest`. A calm of `max_rest` makes the next check a first one.
    pub(crate) fn new(rest: Duration, max_rest: Duration) -> Self {
        Self { rest, max_rest, made: 0, next: None }
    }

    /// Waits until a watcher asks for fresh news and a check may be made. It counts as made then.
    pub(crate) async fn wanted(&mut self, session: &mut Session) {
        if let Some(next) = self.next {
            sleep_until(next).await;
        }
        session.wait_for_refresh().await;
        self.make(clock::now(), session.rng());
    }

    /// Makes the next check a first one.
    #[cfg(feature = "consul")]
    pub(crate) fn forget(&mut self) {
        (self.made, self.next) = (0, None);
    }

    fn make(&mut self, now: Instant, rng: &mut Rng) {
        if self.next.is_none_or(|next| next + self.max_rest <= now) {
            self.made = 0;
        }
        self.next = Some(now + Backoff::new(self.rest, self.max_rest).delay(self.made, rng));
        self.made += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REST: Duration = Duration::from_secs(2);
    const MAX_REST: Duration = Duration::from_secs(60);

    /// How many checks are made in ten minutes in which an endpoint cannot be reached.
    fn made(checks: &mut Checks, start: Instant) -> usize {
        let mut rng = Rng::with_seed(1);
        let mut now = start;
        let mut made = 0;
        while now < start + Duration::from_secs(600) {
            checks.make(now, &mut rng);
            made += 1;
            now = checks.next.unwrap();
        }
        made
    }

    #[test]
    fn checks_that_are_asked_for_all_the_time_become_rare_until_a_calm() {
        let (mut checks, start) = (Checks::new(REST, MAX_REST), clock::now());
        assert_eq!(checks.next, None, "the first is made at once");

        let of_ten_minutes = made(&mut checks, start);
        assert!((10..=26).contains(&of_ten_minutes), "{of_ten_minutes}");

        let calm = checks.next.unwrap() + MAX_REST;
        checks.make(calm, &mut Rng::with_seed(1));
        assert!(checks.next.unwrap() <= calm + REST);
    }
}
