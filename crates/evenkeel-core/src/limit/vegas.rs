//! Keeps the queue that latency shows short.

use std::time::Duration;

use super::{
    Limit, Sample,
    bounds::Bounds,
    windowed::{WINDOW, Windowed},
};
use crate::time::Timestamp;

/// Keeps a short queue at the endpoint, as TCP Vegas does.
///
/// For a limit L, latency above its baseline is a queue of L·(1 − baseline/latency). A queue of up
/// to log₁₀ L grows the limit by 6·log₁₀ L. One below 3·log₁₀ L grows it by log₁₀ L, and one above
/// 6·log₁₀ L shrinks it by log₁₀ L (Netflix's concurrency-limits). It shrinks by a tenth when more
/// than a tenth of the calls are dropped, and changes only while at least half of it is under way.
///
/// It looks at windows of 100 milliseconds and at least 16 calls. It finds the baseline without
/// pauses: every twentieth window has a limit a tenth below what the endpoint works on at once.
///
/// Clients that share an endpoint do not see each other's queues: the queues of others become part
/// of the baseline.
///
/// ```
/// use evenkeel::core::limit::{Limit, Vegas};
///
/// let limit = Vegas::new().bounds(50, 10, 500);
/// assert_eq!(limit.limit(), 50);
/// ```
#[derive(Debug)]
pub struct Vegas(Windowed);

impl Vegas {
    /// It begins at 20, and stays between 1 and 1,000.
    #[must_use]
    pub fn new() -> Self {
        Self(Windowed::new(Bounds::new(20, 1, 1_000), WINDOW))
    }

    /// Sets the initial limit and its bounds. Default 20, between 1 and 1,000.
    ///
    /// # Panics
    /// If `min` is zero or above `max`.
    #[must_use]
    pub fn bounds(self, initial: u32, min: u32, max: u32) -> Self {
        Self(Windowed::new(Bounds::new(initial, min, max), self.0.window()))
    }

    /// Sets the length of the windows after which the limit changes. Default 100 milliseconds.
    ///
    /// Short windows react quickly but follow chance. They end after 16 calls at the earliest.
    #[must_use]
    pub fn window(self, window: Duration) -> Self {
        Self(Windowed::new(self.0.bounds(), window))
    }
}

impl Default for Vegas {
    fn default() -> Self {
        Self::new()
    }
}

impl Limit for Vegas {
    #[inline]
    fn limit(&self) -> u32 {
        self.0.limit()
    }

    fn sample(&self, sample: Sample, now: Timestamp) {
        self.0.sample(sample, now, next);
    }
}

/// The limit after a window with this `latency`.
pub(super) fn next(limit: f64, baseline: f64, latency: f64) -> f64 {
    let step = limit.log10().floor().max(1.0);
    let queue = (limit * (1.0 - baseline / latency)).ceil();
    if queue <= step {
        limit + 6.0 * step
    } else if queue < 3.0 * step {
        limit + step
    } else if 6.0 * step < queue {
        limit - step
    } else {
        limit
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Vectors of Netflix's VegasLimitTest: limit, baseline and latency in milliseconds, limit after it.
    #[test]
    fn steps_are_those_of_netflix() {
        for (limit, baseline, latency, expected) in
            [(10_000.0, 10_000.0, 10_000.0, 10_024.0), (10.0, 10.0, 50.0, 9.0)]
        {
            assert_eq!(next(limit, baseline, latency), expected);
        }
    }

    #[test]
    fn a_queue_between_alpha_and_beta_is_left_alone() {
        assert_eq!(next(100.0, 10.0, 10.2), 112.0);
        assert_eq!(next(100.0, 10.0, 10.5), 102.0);
        assert_eq!(next(100.0, 10.0, 11.0), 100.0);
        assert_eq!(next(100.0, 10.0, 12.0), 98.0);
    }
}
