//! How much a caller may spend, and what is left of it.

use std::time::Duration;

/// How many requests are allowed in a period, and how many at once.
///
/// A bucket holds `burst` requests and is refilled evenly, one request every `period / amount`. So
/// in any span of time at most `burst + span × amount / period` requests go through. There is no
/// edge of a window at which twice as many go through (GCRA, ATM Forum TM 4.0, 1996).
///
/// ```
/// use std::time::Duration;
/// use evenkeel::core::quota::Rate;
///
/// let rate = Rate::per_minute(600).burst(20);
/// assert_eq!(rate.interval(), Duration::from_millis(100));
/// assert_eq!(rate.window(), Duration::from_secs(2));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    amount: u32,
    period: Duration,
    burst: u32,
}

const YEAR: u64 = 31_536_000;

impl Rate {
    /// `amount` requests in each `period`, if need be all of them at once.
    ///
    /// # Panics
    /// If `amount` is zero, if `period` is zero or longer than a year, or if that gives more than
    /// one request a nanosecond.
    #[must_use]
    pub const fn new(amount: u32, period: Duration) -> Self {
        assert!(0 < amount, "a rate of nothing");
        let is_period =
            !period.is_zero() && period.as_nanos() <= Duration::from_secs(YEAR).as_nanos();
        assert!(is_period, "a period of up to a year");
        assert!(amount as u128 <= period.as_nanos(), "a request a nanosecond at most");
        Self { amount, period, burst: amount }
    }

    /// `amount` requests a second.
    ///
    /// # Panics
    /// If `amount` is zero.
    #[must_use]
    pub const fn per_second(amount: u32) -> Self {
        Self::new(amount, Duration::from_secs(1))
    }

    /// `amount` requests a minute.
    ///
    /// # Panics
    /// If `amount` is zero.
    #[must_use]
    pub const fn per_minute(amount: u32) -> Self {
        Self::new(amount, Duration::from_secs(60))
    }

    /// Sets how many requests may come at once. Default: as many as in a period.
    ///
    /// With one, requests have to be evenly spaced, and anything that disturbs the spacing costs
    /// throughput. With many, a caller that was silent for a while can send all of them at once.
    ///
    /// # Panics
    /// If `burst` is zero, or so large that it takes more than a century to fill.
    #[must_use]
    pub const fn burst(mut self, burst: u32) -> Self {
        assert!(0 < burst, "a burst of one is the least");
        self.burst = burst;
        // Some limiters count in nanoseconds since a fixed time, in 64 bits.
        let century = Duration::from_secs(100 * YEAR);
        let is_counted = self.window().as_nanos() <= century.as_nanos();
        assert!(is_counted, "a bucket that takes more than a century to fill");
        self
    }

    /// How many requests may come at once.
    #[must_use]
    pub const fn burst_size(&self) -> u32 {
        self.burst
    }

    /// The time until one more request may come.
    #[must_use]
    pub const fn interval(&self) -> Duration {
        Duration::from_nanos(self.period.as_nanos() as u64 / self.amount as u64)
    }

    /// The time until an exhausted quota is full again.
    #[must_use]
    pub const fn window(&self) -> Duration {
        self.interval().saturating_mul(self.burst)
    }
}

/// What is left of a quota after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QuotaState {
    /// How much there is in total.
    pub rate: Rate,
    /// How many requests may follow at once.
    pub remaining: u32,
    /// The time until the quota is full again.
    pub reset: Duration,
}

impl QuotaState {
    /// `remaining` requests of `rate` are left.
    #[must_use]
    pub const fn new(rate: Rate, remaining: u32) -> Self {
        let missing = rate.burst_size().saturating_sub(remaining);
        Self { rate, remaining, reset: rate.interval().saturating_mul(missing) }
    }
}

/// Tells a caller in the response what is left of its quota.
pub trait Disclose<Res> {
    /// Puts `state` into `response`.
    fn disclose(&self, state: &QuotaState, response: &mut Res);
}

/// Tells callers nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl<Res> Disclose<Res> for Silent {
    #[inline]
    fn disclose(&self, _: &QuotaState, _: &mut Res) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reset_is_the_time_until_the_bucket_is_full() {
        let rate = Rate::per_second(10).burst(5);
        assert_eq!(QuotaState::new(rate, 5).reset, Duration::ZERO);
        assert_eq!(QuotaState::new(rate, 3).reset, Duration::from_millis(200));
        assert_eq!(QuotaState::new(rate, 0).reset, rate.window());
    }

    #[test]
    #[should_panic(expected = "a rate of nothing")]
    fn a_rate_of_zero_is_refused() {
        _ = Rate::per_second(0);
    }

    #[test]
    fn a_bucket_may_take_a_century_to_fill() {
        let century = Rate::new(1, Duration::from_secs(31_536_000)).burst(100);
        assert_eq!(century.window(), Duration::from_secs(3_153_600_000));
        _ = Rate::new(1, Duration::from_nanos(1)).burst(u32::MAX);
    }

    #[test]
    #[should_panic(expected = "a bucket that takes more than a century to fill")]
    fn a_bucket_that_takes_longer_than_a_century_to_fill_is_refused() {
        _ = Rate::new(1, Duration::from_secs(31_536_000)).burst(101);
    }
}
