//! A client that asks less of those who refuse it.

use std::time::Duration;

use super::tally::{Counts, Tally};
use crate::time::Timestamp;

/// Refuses a share of calls on the client's side when the other side refuses many.
///
/// The adaptive throttling of Google's SRE book ("Handling Overload"): a call is refused with the
/// probability (requests − K·accepts) / (requests + padding), at least 0, over the last two minutes.
/// With K = 2, half of what is asked may be refused before anything is refused here, and of what the
/// other side can take it gets at least as much again, so that its recovery is seen.
///
/// Requests count when they are made, also those that are refused here. As in grpc-java, a request counts
/// as accepted until it is known to be refused: calls that are under way are no sign of overload.
///
/// ```
/// use evenkeel_core::{limit::Throttle, time::Timestamp};
///
/// let throttle = Throttle::new();
/// let now = || Timestamp::from_nanos(1 << 62);
/// for _ in 0..99 {
///     assert!(throttle.admit(|| 0.99, now).is_ok());
///     throttle.refused(now());
/// }
/// // 99 requests, none accepted.
/// assert_eq!(throttle.admit(|| 0.98, now), Err(0.99));
/// ```
#[derive(Debug)]
pub struct Throttle {
    ratio: f64,
    padding: u32,
    /// Requests, and those of them that were refused, here or there.
    tally: Tally,
}

impl Throttle {
    /// K = 2, over two minutes.
    #[must_use]
    pub fn new() -> Self {
        Self { ratio: 2.0, padding: 1, tally: Tally::new(Duration::from_secs(120)) }
    }

    /// Sets K: how many requests are made for each that is accepted. Default 2.
    ///
    /// Nearer to 1 spares the other side more and notices its recovery later.
    ///
    /// # Panics
    /// If it is not between 1 and 100.
    #[must_use]
    pub fn ratio(mut self, ratio: f64) -> Self {
        assert!((1.0..=100.0).contains(&ratio), "a ratio of {ratio}");
        self.ratio = ratio;
        self
    }

    /// Sets what is added to the requests, so that few of them refuse little. Default 1; grpc-java
    /// takes 8.
    #[must_use]
    pub fn padding(mut self, requests: u32) -> Self {
        self.padding = requests.max(1);
        self
    }

    /// Sets over how long requests count. Default two minutes, in sixteenths.
    ///
    /// Short windows follow sooner and swing more. One below half a second counts as half a second.
    ///
    /// # Panics
    /// If it is zero.
    #[must_use]
    pub fn window(mut self, window: Duration) -> Self {
        self.tally = Tally::new(window);
        self
    }

    /// Counts a request and lets it go ahead, unless a number drawn from \[0, 1) falls below the
    /// probability.
    ///
    /// # Errors
    /// The probability with which it was refused.
    pub fn admit(
        &self,
        draw: impl FnOnce() -> f64,
        now: impl FnOnce() -> Timestamp,
    ) -> Result<(), f64> {
        if self.tally.counts().second == 0 {
            // As many accepted as asked: that refuses nothing, whatever is forgotten meanwhile.
            self.tally.add(1, 0, self.tally.lately().unwrap_or_else(now));
            return Ok(());
        }
        let now = now();
        self.tally.tell(now);
        let probability = self.probability_of(self.tally.counts());
        let is_refused = 0.0 < probability && draw() < probability;
        self.tally.add(1, u64::from(is_refused), now);
        if is_refused { Err(probability) } else { Ok(()) }
    }

    /// The other side refused a request.
    pub fn refused(&self, now: Timestamp) {
        self.tally.add(0, 1, now);
    }

    /// With which probability a request is refused now.
    #[must_use]
    pub fn probability(&self, now: Timestamp) -> f64 {
        self.tally.tell(now);
        self.probability_of(self.tally.counts())
    }

    fn probability_of(&self, counts: Counts) -> f64 {
        let requests = counts.first as f64;
        let accepts = counts.first.saturating_sub(counts.second) as f64;
        ((requests - self.ratio * accepts) / (requests + f64::from(self.padding))).max(0.0)
    }
}

impl Default for Throttle {
    fn default() -> Self {
        Self::new()
    }
}
