//! How a circuit breaker is configured.

use std::time::Duration;

use evenkeel_core::{
    health::{Window, breaker::BreakerRules},
    traffic::AnyTraffic,
};
use tower_layer::Layer;

use super::{Breakers, CircuitBreaker};

/// Makes circuit breakers. See the [module docs](super).
#[derive(Clone, Debug)]
pub struct CircuitBreakerLayer<X = AnyTraffic> {
    rules: BreakerRules,
    breakers: Breakers,
    traffic: X,
}

impl CircuitBreakerLayer {
    /// Opens after five consecutive failures, or when half of the last hundred calls failed.
    #[must_use]
    pub fn new() -> Self {
        Self { rules: BreakerRules::default(), breakers: Breakers::new(), traffic: AnyTraffic }
    }
}

impl Default for CircuitBreakerLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<X> CircuitBreakerLayer<X> {
    /// Opens after this many failures in a row. Default 5.
    ///
    /// 1 opens it at every hiccup. A large number takes long to reach where there are few calls.
    /// The rates count as well.
    #[must_use]
    pub fn consecutive_failures(mut self, failures: u32) -> Self {
        self.rules.consecutive_failures = Some(failures);
        self
    }

    /// Opens when this share of the calls in the window has failed: above 0, up to 1. Default 0.5.
    #[must_use]
    pub fn failure_rate(mut self, rate: f64) -> Self {
        self.rules.failure_rate = Some(rate);
        self
    }

    /// Opens when this share of the calls in the window took at least `after`. Default never.
    ///
    /// The time runs to the head of the response. Costs two clock reads for a call that has to wait.
    #[must_use]
    pub fn slow_calls(mut self, after: Duration, rate: f64) -> Self {
        self.rules.slow_calls = Some((after, rate));
        self
    }

    /// Sets which calls the rates are computed over. Default: the last 100.
    ///
    /// A small window opens by chance, a large one opens late.
    #[must_use]
    pub fn window(mut self, window: Window) -> Self {
        self.rules.window = window;
        self
    }

    /// Sets how many calls must be in the window before a rate counts. Default 100.
    #[must_use]
    pub fn min_calls(mut self, calls: u32) -> Self {
        self.rules.min_calls = calls;
        self
    }

    /// Sets how many calls are let in as a trial. All of them must succeed. Default 1.
    #[must_use]
    pub fn trial_calls(mut self, calls: u32) -> Self {
        self.rules.trial_calls = calls;
        self
    }

    /// Sets after how long a trial call without an answer has failed. Default 10 s.
    ///
    /// If it is shorter than the slowest good answer, it keeps out endpoints that work.
    #[must_use]
    pub fn trial_timeout(mut self, timeout: Duration) -> Self {
        self.rules.trial_timeout = timeout;
        self
    }

    /// Sets how long the breaker stays open the first time, and at most. Default 1 and 60 seconds.
    ///
    /// Short times risk a request more often. Long ones keep a recovered endpoint idle.
    #[must_use]
    pub fn open_time(mut self, min: Duration, max: Duration) -> Self {
        (self.rules.min_open, self.rules.max_open) = (min, max);
        self
    }

    /// Sets all rules at once, including those that have no setter here.
    #[must_use]
    pub fn rules(mut self, rules: BreakerRules) -> Self {
        self.rules = rules;
        self
    }

    /// Sets the seed of all random choices, so that a run can be repeated. Default: the process's
    /// entropy.
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        self.breakers.seed(seed);
        self
    }

    /// Sets what tells success from failure where the breaker stands alone. By default every error
    /// is a failure.
    ///
    /// Below a balancer the traffic of the innermost `Connect` decides.
    #[must_use]
    pub fn traffic<Y>(self, traffic: Y) -> CircuitBreakerLayer<Y> {
        CircuitBreakerLayer { rules: self.rules, breakers: self.breakers, traffic }
    }

    /// The breakers that this layer and its clones have made and will make. They can be read and
    /// held by hand.
    #[must_use]
    pub fn breakers(&self) -> Breakers {
        self.breakers.clone()
    }
}

impl<T, X: Clone> Layer<T> for CircuitBreakerLayer<X> {
    type Service = CircuitBreaker<T, X>;

    /// # Panics
    /// If a rule makes no sense: see [`Breaker::new`](evenkeel_core::health::breaker::Breaker::new).
    fn layer(&self, inner: T) -> Self::Service {
        CircuitBreaker::new(self.rules.clone(), &self.breakers, self.traffic.clone(), inner)
    }
}
