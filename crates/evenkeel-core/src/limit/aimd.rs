//! Up by one, down by a share: TCP's way.

use std::time::Duration;

use super::{Limit, Sample, bounds::Bounds};
use crate::{
    sync::{AtomicU64, Ordering},
    time::Timestamp,
};

/// Grows by one with each call that ends well, and shrinks by a tenth when one is dropped.
///
/// After Netflix's concurrency-limits, with one difference: calls that began before it last shrank
/// do not shrink it again. When an endpoint breaks down, all calls under way fail together; they
/// are one sign of overload and not hundreds (TCP halves its window once a round trip for that
/// reason).
///
/// It grows only while it is used: while at least half of it is under way.
///
/// ```
/// use std::time::Duration;
/// use evenkeel::core::{limit::{Aimd, Limit, Sample}, time::Timestamp};
///
/// let limit = Aimd::new().bounds(20, 10, 200);
/// let now = Timestamp::from_nanos(1_000_000_000);
/// let sample = Sample { latency: Duration::from_millis(1), in_flight: 10, is_dropped: false };
/// limit.sample(sample, now);
/// assert_eq!(limit.limit(), 21);
///
/// limit.sample(Sample { is_dropped: true, ..sample }, now);
/// assert_eq!(limit.limit(), 18);
/// ```
#[derive(Debug)]
pub struct Aimd {
    bounds: Bounds,
    backoff_ratio: f64,
    timeout: Duration,
    /// The limit, as the bits of a float.
    limit: AtomicU64,
    /// When it last shrank.
    shrank: AtomicU64,
}

impl Aimd {
    /// It begins at 20, and stays between 20 and 200.
    #[must_use]
    pub fn new() -> Self {
        Self::with(Bounds::new(20, 20, 200), 0.9, Duration::from_secs(5))
    }

    fn with(bounds: Bounds, backoff_ratio: f64, timeout: Duration) -> Self {
        let limit = AtomicU64::new(bounds.initial.to_bits());
        Self { bounds, backoff_ratio, timeout, limit, shrank: AtomicU64::new(0) }
    }

    /// Sets the initial limit and its bounds. Default 20, between 20 and 200.
    ///
    /// A low minimum lets almost nothing through if everything fails for another reason than load.
    /// A high minimum overloads.
    ///
    /// # Panics
    /// If `min` is zero or above `max`.
    #[must_use]
    pub fn bounds(self, initial: u32, min: u32, max: u32) -> Self {
        Self::with(Bounds::new(initial, min, max), self.backoff_ratio, self.timeout)
    }

    /// Sets the factor by which it shrinks. Default 0.9.
    ///
    /// # Panics
    /// If it is not between 0.5 and 0.99.
    #[must_use]
    pub fn backoff_ratio(self, ratio: f64) -> Self {
        assert!((0.5..=0.99).contains(&ratio), "a ratio of {ratio}");
        Self::with(self.bounds, ratio, self.timeout)
    }

    /// Sets after what time a call counts as dropped, however it ended. Default 5 seconds.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self::with(self.bounds, self.backoff_ratio, timeout)
    }

    fn change(&self, next: impl Fn(f64) -> f64) {
        let update = |bits| {
            let limit = f64::from_bits(bits);
            let changed = self.bounds.clamp(next(limit));
            (changed != limit).then(|| changed.to_bits())
        };
        // An error means that the limit stays the same.
        let _ = self.limit.fetch_update(Ordering::AcqRel, Ordering::Acquire, update);
    }

    /// Whether this call is the first sign of an overload.
    fn is_news(&self, sample: Sample, now: Timestamp) -> bool {
        let began = now.as_nanos().saturating_sub(sample.latency.as_nanos() as u64);
        let last = self.shrank.load(Ordering::Acquire);
        let is_known = last != 0 && began <= last;
        let (success, failure) = (Ordering::AcqRel, Ordering::Relaxed);
        !is_known && self.shrank.compare_exchange(last, now.as_nanos(), success, failure).is_ok()
    }
}

impl Default for Aimd {
    fn default() -> Self {
        Self::new()
    }
}

impl Limit for Aimd {
    #[inline]
    fn limit(&self) -> u32 {
        f64::from_bits(self.limit.load(Ordering::Relaxed)) as u32
    }

    fn sample(&self, sample: Sample, now: Timestamp) {
        if sample.is_dropped || self.timeout < sample.latency {
            if self.is_news(sample, now) {
                self.change(|limit| limit * self.backoff_ratio);
            }
        } else {
            let used = 2.0 * f64::from(sample.in_flight);
            self.change(|limit| if limit <= used { limit + 1.0 } else { limit });
        }
    }
}
