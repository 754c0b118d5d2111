//! How outlier ejection is configured, and the `Connect` that the layer makes.

use std::{fmt, sync::Arc, time::Duration};

use evenkeel_core::{
    connect::Connect,
    health::outlier::{FailurePercentage, OutlierRules, SlowerThanOthers, SuccessRate},
    node::Node,
};
use tower_layer::Layer;

use super::monitor::{Ejected, Watch};

/// Ejects endpoints that do worse than the others. See the [module docs](super).
#[derive(Clone, Debug, Default)]
pub struct OutlierLayer {
    rules: OutlierRules,
    ejected: Ejected,
    seed: Option<u64>,
}

impl OutlierLayer {
    /// Uses Envoy's rules, and at least one endpoint may be ejected.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Ejects after this many failed answers in a row. Default 5.
    #[must_use]
    pub fn consecutive_errors(mut self, errors: u32) -> Self {
        self.rules.consecutive_errors = Some(errors);
        self
    }

    /// Ejects after this many 502, 503 and 504 in a row. Default never.
    #[must_use]
    pub fn consecutive_gateway_errors(mut self, errors: u32) -> Self {
        self.rules.consecutive_gateway_errors = Some(errors);
        self
    }

    /// Ejects after this many attempts in a row without an answer. Default 5.
    ///
    /// With active health checks below, 1 is right. A policy that takes failures into account sends
    /// a dead endpoint so few requests that five failures come late, and the first check that
    /// passes ends an unfounded ejection.
    #[must_use]
    pub fn consecutive_local_errors(mut self, errors: u32) -> Self {
        self.rules.consecutive_local_errors = Some(errors);
        self
    }

    /// Compares success rates with the fleet's. Default 1.9 deviations and 5 percentage points
    /// below the mean, 5 nodes, 100 calls.
    #[must_use]
    pub fn success_rate(mut self, rule: impl Into<Option<SuccessRate>>) -> Self {
        self.rules.success_rate = rule.into();
        self
    }

    /// Sets how far below the mean of all, in percentage points, a success rate must lie at least
    /// to count as an outlier's. Default 5. See [`SuccessRate::min_difference`].
    ///
    /// With 0, an endpoint that failed one call in a hundred is ejected if the others failed none.
    /// It has no effect if success rates are not compared.
    #[must_use]
    pub fn success_rate_difference(mut self, points: f64) -> Self {
        if let Some(rule) = &mut self.rules.success_rate {
            rule.min_difference = points;
        }
        self
    }

    /// Ejects endpoints that fail too much, whatever the others do. Default never.
    #[must_use]
    pub fn failure_percentage(mut self, rule: FailurePercentage) -> Self {
        self.rules.failure_percentage = Some(rule);
        self
    }

    /// Ejects endpoints that are much slower than the others. Default never.
    #[must_use]
    pub fn latency(mut self, rule: SlowerThanOthers) -> Self {
        self.rules.latency = Some(rule);
        self
    }

    /// Sets how often rates and latencies are compared. Default 10 seconds.
    ///
    /// In a short interval there are few calls, and a rule that needs more of them never applies.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.rules.interval = interval;
        self
    }

    /// Sets how long a first ejection lasts, and the longest an ejection may last. Default 30 and
    /// 300 seconds.
    #[must_use]
    pub fn ejection_time(mut self, min: Duration, max: Duration) -> Self {
        (self.rules.min_ejection, self.rules.max_ejection) = (min, max);
        self.rules.ejection_jitter = min / 10;
        self
    }

    /// Sets the largest share of the nodes that may be ejected. Default 10 %, but always one.
    #[must_use]
    pub fn max_ejected_percent(mut self, percent: u32) -> Self {
        self.rules.max_ejected_percent = percent;
        self
    }

    /// Sets whether one node may be ejected if the share is less than one node. Default true.
    #[must_use]
    pub fn always_eject_one(mut self, always: bool) -> Self {
        self.rules.always_eject_one = always;
        self
    }

    /// Sets how many trial requests must succeed before the full share comes back. Default 1.
    #[must_use]
    pub fn probation_calls(mut self, calls: u32) -> Self {
        self.rules.probation_calls = calls;
        self
    }

    /// Sets after how long a trial request without an answer has failed. Default 10 s.
    ///
    /// If it is shorter than the slowest good answer, it keeps out endpoints that work.
    #[must_use]
    pub fn trial_timeout(mut self, timeout: Duration) -> Self {
        self.rules.trial_timeout = timeout;
        self
    }

    /// Sets all rules at once, including those that have no setter here.
    #[must_use]
    pub fn rules(mut self, rules: OutlierRules) -> Self {
        self.rules = rules;
        self
    }

    /// Sets the seed of all random choices, so that a run can be repeated. Default: the process's
    /// entropy.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// The endpoints ejected by what this layer and its clones make. It can be read, and told of
    /// health checks.
    #[must_use]
    pub fn ejected(&self) -> Ejected {
        self.ejected.clone()
    }
}

impl<C> Layer<C> for OutlierLayer {
    type Service = OutlierConnect<C>;

    /// # Panics
    /// If a rule makes no sense: see [`Outlier::new`](evenkeel_core::health::outlier::Outlier::new).
    fn layer(&self, inner: C) -> OutlierConnect<C> {
        let watch = Watch::new(self.rules.clone(), self.seed);
        self.ejected.add(&watch);
        OutlierConnect { inner, watch }
    }
}

/// Connects, and observes how attempts end. See the [module docs](super).
pub struct OutlierConnect<C> {
    inner: C,
    watch: Arc<Watch>,
}

impl<C: Connect> Connect for OutlierConnect<C> {
    type Service = C::Service;
    type Traffic = C::Traffic;

    fn connect(&self, node: &Arc<Node>) -> C::Service {
        self.watch.add(node);
        self.inner.connect(node)
    }

    fn traffic(&self) -> C::Traffic {
        self.inner.traffic()
    }
}

impl<C> Drop for OutlierConnect<C> {
    fn drop(&mut self) {
        self.watch.stop();
    }
}

impl<C: fmt::Debug> fmt::Debug for OutlierConnect<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutlierConnect").field("inner", &self.inner).finish_non_exhaustive()
    }
}
