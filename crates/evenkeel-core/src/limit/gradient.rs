//! Latency against its baseline, with a tolerance.

use std::time::Duration;

use super::{
    Limit, Sample,
    bounds::Bounds,
    windowed::{WINDOW, Windowed},
};
use crate::time::Timestamp;

/// Shrinks as latency exceeds its baseline by more than a tolerance, and otherwise grows.
///
/// The gradient is tolerance·baseline/latency, between 0.5 and 1. The limit L moves by a fifth of
/// the way to gradient·L + √L, where Netflix's Gradient2 adds 4: with the root, large limits do not
/// creep. It shrinks by a tenth when more than a tenth of the calls are dropped, and changes only
/// while at least half of it is under way. With the default tolerance of 1.5, an overloaded
/// endpoint is given about half as much again as it works on at once.
///
/// It looks at windows of 100 milliseconds and at least 16 calls. Netflix's takes a long average as
/// the baseline, which follows a standing queue. Here every twentieth window has a limit a tenth
/// below what the endpoint works on at once, and that shows the baseline without a pause.
///
/// ```
/// use evenkeel::core::limit::{Gradient2, Limit};
///
/// let limit = Gradient2::new().bounds(50, 10, 500).tolerance(1.2);
/// assert_eq!(limit.limit(), 50);
/// ```
#[derive(Debug)]
pub struct Gradient2 {
    tolerance: f64,
    windowed: Windowed,
}

const SMOOTHING: f64 = 0.2;

impl Gradient2 {
    /// It begins at 20, and stays between 1 and 1,000.
    #[must_use]
    pub fn new() -> Self {
        Self { tolerance: 1.5, windowed: Windowed::new(Bounds::new(20, 1, 1_000), WINDOW) }
    }

    /// Sets the initial limit and its bounds. Default 20, between 1 and 1,000.
    ///
    /// # Panics
    /// If `min` is zero or above `max`.
    #[must_use]
    pub fn bounds(mut self, initial: u32, min: u32, max: u32) -> Self {
        let bounds = Bounds::new(initial, min, max);
        self.windowed = Windowed::new(bounds, self.windowed.window());
        self
    }

    /// Sets how many times the baseline the latency may be before the limit shrinks. Default 1.5.
    ///
    /// Near 1, the limit shrinks by chance; 3 lets latency triple under load.
    ///
    /// # Panics
    /// If it is below 1 or above 10.
    #[must_use]
    pub fn tolerance(mut self, tolerance: f64) -> Self {
        assert!((1.0..=10.0).contains(&tolerance), "a tolerance of {tolerance}");
        self.tolerance = tolerance;
        self
    }

    /// Sets the length of the windows after which the limit changes. Default 100 milliseconds.
    ///
    /// Short windows react quickly but follow chance. They end after 16 calls at the earliest.
    #[must_use]
    pub fn window(mut self, window: Duration) -> Self {
        self.windowed = Windowed::new(self.windowed.bounds(), window);
        self
    }
}

impl Default for Gradient2 {
    fn default() -> Self {
        Self::new()
    }
}

impl Limit for Gradient2 {
    #[inline]
    fn limit(&self) -> u32 {
        self.windowed.limit()
    }

    fn sample(&self, sample: Sample, now: Timestamp) {
        let next = |limit: f64, baseline: f64, latency: f64| {
            let gradient = (self.tolerance * baseline / latency).clamp(0.5, 1.0);
            let wanted = limit * gradient + limit.sqrt();
            limit + SMOOTHING * (wanted - limit)
        };
        self.windowed.sample(sample, now, next);
    }
}
