//! When a breaker opens, and for how long.

use std::time::Duration;

use crate::{
    health::window::{Totals, Window},
    rng::Rng,
};

/// When a breaker opens, and for how long.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct BreakerRules {
    /// Opens after this many failures in a row; `None` for never. Default 5 (Finagle, Envoy).
    pub consecutive_failures: Option<u32>,
    /// Opens when this share of the window's calls failed; `None` for never. Default 0.5
    /// (resilience4j).
    pub failure_rate: Option<f64>,
    /// Opens when this share of the window's calls took at least this long; `None` for never.
    /// Default `None`. Costs two clock reads for each call that has to wait.
    pub slow_calls: Option<(Duration, f64)>,
    /// The calls over which the rates are taken. Default: the last 100 (resilience4j).
    pub window: Window,
    /// How many calls must be in the window before a rate counts, at most as many as it holds.
    /// Default 100 (resilience4j).
    pub min_calls: u32,
    /// How many calls are let in as a trial. If all of them succeed, the breaker closes. Default 1
    /// (Finagle, linkerd).
    pub trial_calls: u32,
    /// Trial calls without an answer after this time have failed. The time runs from the first of
    /// them, even if callers give them up one after another. Default 10 s. If it is shorter than
    /// the slowest good answer, it keeps out endpoints that work.
    pub trial_timeout: Duration,
    /// How long it stays open the first time. Default 1 s (linkerd).
    pub min_open: Duration,
    /// The factor by which the open time grows with each failed trial. Default 2.
    pub open_factor: f64,
    /// How long it stays open at most. Default 60 s (linkerd).
    pub max_open: Duration,
    /// The share of the open time that is drawn at random, so that many breakers do not try again
    /// in step. The time lies between `1 - jitter` and 1 of the full time. Default 0.5 (linkerd).
    pub jitter: f64,
}

impl Default for BreakerRules {
    fn default() -> Self {
        Self {
            consecutive_failures: Some(5),
            failure_rate: Some(0.5),
            slow_calls: None,
            window: Window::Calls(100),
            min_calls: 100,
            trial_calls: 1,
            trial_timeout: Duration::from_secs(10),
            min_open: Duration::from_secs(1),
            open_factor: 2.0,
            max_open: Duration::from_secs(60),
            jitter: 0.5,
        }
    }
}

impl BreakerRules {
    pub(super) fn check(&self) {
        assert!(self.consecutive_failures != Some(0), "opens after no failure at all");
        let is_rate = |rate: f64| 0.0 < rate && rate <= 1.0;
        assert!(self.failure_rate.is_none_or(is_rate), "a failure rate is above 0 and up to 1");
        let slow = self.slow_calls;
        assert!(slow.is_none_or(|(_, rate)| is_rate(rate)), "a slow rate is above 0 and up to 1");
        assert!(slow.is_none_or(|(after, _)| Duration::ZERO < after), "every call is slow");
        assert!(0 < self.min_calls, "a rate needs a call");
        assert!(0 < self.trial_calls, "a breaker without trial calls stays open");
        assert!(Duration::ZERO < self.trial_timeout, "trials without time for an answer");
        assert!(Duration::ZERO < self.min_open, "open for no time at all");
        assert!(self.min_open <= self.max_open, "the least open time lies above the greatest");
        assert!(1.0 <= self.open_factor, "open times that shrink");
        assert!((0.0..=1.0).contains(&self.jitter), "jitter is a share of the time");
    }

    /// Whether the window holds too many. A product instead of a quotient: 1 of 2 is exactly one
    /// half.
    pub(super) fn is_too_much(&self, totals: Totals) -> bool {
        let min_calls = match self.window {
            Window::Calls(calls) => self.min_calls.min(calls),
            Window::Time(_) => self.min_calls,
        };
        let reaches = |count: u32, rate: f64| rate * f64::from(totals.calls) <= f64::from(count);
        min_calls <= totals.calls
            && (self.failure_rate.is_some_and(|rate| reaches(totals.failed, rate))
                || self.slow_calls.is_some_and(|(_, rate)| reaches(totals.slow, rate)))
    }

    pub(super) fn is_slow(&self, latency: Duration) -> bool {
        self.slow_calls.is_some_and(|(after, _)| after <= latency)
    }

    /// How long it stays open after `openings` openings in a row.
    pub(super) fn open_time(&self, openings: u32, rng: &mut Rng) -> Duration {
        let growth = self.open_factor.powi(i32::try_from(openings).unwrap_or(i32::MAX));
        let (min, max) = (self.min_open.as_secs_f64(), self.max_open.as_secs_f64());
        let full = (min * growth).min(max);
        let drawn = Duration::try_from_secs_f64(full * (1.0 - self.jitter * rng.unit()));
        // Never zero, which would make it spin.
        drawn.unwrap_or(self.max_open).max(Duration::from_nanos(1))
    }
}
