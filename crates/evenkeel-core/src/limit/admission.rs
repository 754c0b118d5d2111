//! A client that sends less to servers that refuse it.

use std::time::Duration;

use super::tally::{Counts, Tally};
use crate::time::Timestamp;

/// Refuses a share of calls on the client's side when the server refuses many.
///
/// The adaptive throttling of Google's SRE book ("Handling Overload"): a call is refused with the
/// probability (requests − K·accepts) / (requests + padding), at least 0, over the last two minutes.
/// With K = 2, the server may refuse half of the requests before any is refused here. Of what it
/// can take, it gets at least as much again, so that its recovery is seen.
///
/// Requests count when they are made, including those that are refused here. As in grpc-java, a
/// request counts as accepted until it is known to be refused: calls under way are no sign of
/// overload.
///
/// ```
/// use evenkeel::core::{limit::AdaptiveThrottle, time::Timestamp};
///
/// let throttle = AdaptiveThrottle::new();
/// let now = || Timestamp::from_nanos(1 << 62);
/// for _ in 0..99 {
///     assert!(throttle.admit(|| 0.99, now).is_ok());
///     throttle.record_refusal(now());
/// }
/// // 99 requests, none accepted.
/// assert_eq!(throttle.admit(|| 0.98, now), Err(0.99));
/// ```
#[derive(Debug)]
pub struct AdaptiveThrottle {
    ratio: f64,
    padding: u32,
    /// Requests, and how many of them were refused, by the server or here.
    tally: Tally,
}

impl AdaptiveThrottle {
    /// K = 2, over two minutes.
    #[must_use]
    pub fn new() -> Self {
        Self { ratio: 2.0, padding: 1, tally: Tally::new(Duration::from_secs(120)) }
    }

    /// Sets K: how many requests are made for each accepted one. Default 2.
    ///
    /// A K nearer to 1 spares the server more and notices its recovery later.
    ///
    /// # Panics
    /// If it is not between 1 and 100.
    #[must_use]
    pub fn ratio(mut self, ratio: f64) -> Self {
        assert!((1.0..=100.0).contains(&ratio), "a ratio of {ratio}");
        self.ratio = ratio;
        self
    }

    /// Sets a number that is added to the requests, so that few requests lead to few refusals.
    /// Default 1; grpc-java uses 8.
    #[must_use]
    pub fn padding(mut self, requests: u32) -> Self {
        self.padding = requests.max(1);
        self
    }

    /// Sets how long requests count. Default two minutes, in sixteenths.
    ///
    /// Short windows react sooner and swing more. A window below half a second counts as half a
    /// second.
    ///
    /// # Panics
    /// If it is zero.
    #[must_use]
    pub fn window(mut self, window: Duration) -> Self {
        self.tally = Tally::new(window);
        self
    }

    /// Counts a request and lets it go ahead, unless a number drawn from \[0, 1) is below the
    /// probability.
    ///
    /// # Errors
    /// The probability with which the request was refused.
    pub fn admit(
        &self,
        draw: impl FnOnce() -> f64,
        now: impl FnOnce() -> Timestamp,
    ) -> Result<(), f64> {
        if self.tally.counts().second == 0 {
            // No request was refused: so none is refused here, whatever is forgotten meanwhile.
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

    /// The server refused a request.
    pub fn record_refusal(&self, now: Timestamp) {
        self.tally.add(0, 1, now);
    }

    /// The probability with which a request is refused now.
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

impl Default for AdaptiveThrottle {
    fn default() -> Self {
        Self::new()
    }
}
