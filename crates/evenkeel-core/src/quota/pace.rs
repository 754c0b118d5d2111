//! The pace that a server asks of its caller.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::time::Timestamp;

/// Follows what a server says of the quota it grants: how much is left, and for how long.
///
/// It spreads what is left evenly over the time until the server's quota is full again. If nothing
/// is left, nothing is sent until then. After that time it lets everything through, until the
/// server says something new.
///
/// It takes no lock. New information replaces the old. Two threads that bring different information
/// at the same time may mix it, until one of them brings some again.
///
/// ```
/// use std::time::Duration;
/// use evenkeel::core::{quota::Pace, time::Timestamp};
///
/// let (pace, now) = (Pace::default(), Timestamp::from_nanos(1));
/// pace.heed(now, 10, Duration::from_secs(1));
/// assert_eq!(pace.check(now), Ok(()));
/// assert_eq!(pace.check(now), Err(Duration::from_millis(100)));
/// assert_eq!(pace.check(now + Duration::from_millis(100)), Ok(()));
/// assert_eq!(pace.check(now + Duration::from_secs(1)), Ok(()));
/// assert_eq!(pace.check(now + Duration::from_secs(1)), Ok(()));
/// ```
#[derive(Debug, Default)]
pub struct Pace {
    /// Until when the pace holds.
    until: AtomicU64,
    /// The time between two requests.
    interval: AtomicU64,
    /// When the next request may go.
    next: AtomicU64,
}

impl Pace {
    /// The server says that `remaining` requests may be sent until the quota is full again, after
    /// `reset`.
    pub fn heed(&self, now: Timestamp, remaining: u32, reset: Duration) {
        let until = (now + reset).as_nanos();
        let interval = match remaining {
            0 => 0,
            some => reset.as_nanos() as u64 / u64::from(some),
        };
        self.interval.store(interval, Relaxed);
        if remaining == 0 {
            self.next.fetch_max(until, Relaxed);
        } else {
            // A request that was due later than the new pace allows is due at the new pace.
            self.next.fetch_min((now + Duration::from_nanos(interval)).as_nanos(), Relaxed);
        }
        self.until.store(until, Relaxed);
    }

    /// Whether any information ever came. Does not read the clock.
    #[must_use]
    #[inline]
    pub fn is_told(&self) -> bool {
        self.until.load(Relaxed) != 0
    }

    /// Whether a request may go now. If not, the error says when it is worth asking again.
    ///
    /// # Errors
    /// The time to wait.
    #[inline]
    pub fn check(&self, now: Timestamp) -> Result<(), Duration> {
        if self.until.load(Relaxed) <= now.as_nanos() {
            return Ok(());
        }
        self.spend(now)
    }

    fn spend(&self, now: Timestamp) -> Result<(), Duration> {
        let following = (now + Duration::from_nanos(self.interval.load(Relaxed))).as_nanos();
        let spend = |next| (next <= now.as_nanos()).then_some(following);
        match self.next.fetch_update(Relaxed, Relaxed, spend) {
            Ok(_) => Ok(()),
            Err(next) => Err(Timestamp::from_nanos(next).since(now)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_nanos(1 << 62);

    #[test]
    fn with_nothing_left_no_request_goes_until_the_reset() {
        let pace = Pace::default();
        pace.heed(START, 0, Duration::from_secs(3));
        assert_eq!(pace.check(START), Err(Duration::from_secs(3)));
        assert_eq!(pace.check(START + Duration::from_millis(2_999)), Err(Duration::from_millis(1)));
        assert_eq!(pace.check(START + Duration::from_secs(3)), Ok(()));
    }

    #[test]
    fn the_remaining_quota_is_spread_over_the_time_until_the_reset() {
        let pace = Pace::default();
        pace.heed(START, 4, Duration::from_secs(2));
        let sent = (0..2_000)
            .filter(|&ms| pace.check(START + Duration::from_millis(ms)).is_ok())
            .collect::<Vec<_>>();
        assert_eq!(sent, [0, 500, 1_000, 1_500]);
    }

    #[test]
    fn a_newer_answer_with_quota_left_ends_a_long_wait() {
        let pace = Pace::default();
        pace.heed(START, 0, Duration::from_secs(60));
        pace.heed(START, 100, Duration::from_secs(1));
        assert_eq!(pace.check(START + Duration::from_millis(10)), Ok(()));
    }
}
