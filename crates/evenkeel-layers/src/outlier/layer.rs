//! How outlier ejection is configured, and the `Connect` that the layer makes.

use std::{fmt, sync::Arc, time::Duration};

use evenkeel_core::{
    connect::Connect,
    health::outlier::{FailurePercentage, OutlierRules, SlowerThanOthers, SuccessRate},
    node::Node,
};
use tower_layer::Layer;

use super::monitor::{Ejected, Watch};

/// Leaves out who does worse than the others. See the [module docs](super).
#[derive(Clone, Debug, Default)]
pub struct OutlierLayer {
    rules: OutlierRules,
    ejected: Ejected,
    seed: Option<u64>,
}

impl OutlierLayer {
    /// Envoy's rules, and at least one endpoint may be ejected.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Ejects after so many failed answers in a row. Default 5.
    #[must_use]
    pub fn consecutive_errors(mut self, errors: u32) -> Self {
        self.rules.consecutive_errors = Some(errors);
        self
    }

    /// Ejects after so many 502, 503 and 504 in a row. Default never.
    #[must_use]
    pub fn consecutive_gateway_errors(mut self, errors: u32) -> Self {
        self.rules.consecutive_gateway_errors = Some(errors);
        self
    }

    /// Ejects after so many attempts in a row without an answer. Default 5.
    ///
    /// With active health checks below, 1 is right: a policy that minds failures sends a dead endpoint so
    /// little that five come late, and the first check that passes ends an ejection without cause.
    #[must_use]
    pub fn consecutive_local_errors(mut self, errors: u32) -> Self {
        self.rules.consecutive_local_errors = Some(errors);
        self
    }

    /// Compares success rates with the fleet's. Default 1.9 deviations and 5 percentage points below the mean, 5 nodes,
    /// 100 calls.
    #[must_use]
    pub fn success_rate(mut self, rule: impl Into<Option<SuccessRate>>) -> Self {
        self.rules.success_rate = rule.into();
        self
    }

    /// Sets how many percentage points below the mean of all a success rate must lie, at least, before it counts as
    /// an outlier's. Default 5. See [`SuccessRate::difference_min`].
    ///
    /// With 0, an endpoint that failed one call of a hundred is ejected where the others failed none. It changes
    /// nothing where success rates are not compared.
    #[must_use]
    pub fn success_rate_difference(mut self, points: f64) -> Self {
        if let Some(rule) = &mut self.rules.success_rate {
            rule.difference_min = points;
        }
        self
    }

    /// Ejects who fails too much, whatever the others do. Default never.
    #[must_use]
    pub fn failure_percentage(mut self, rule: FailurePercentage) -> Self {
        self.rules.failure_percentage = Some(rule);
        self
    }

    /// Ejects who is much slower than the others. Default never.
    #[must_use]
    pub fn latency(mut self, rule: SlowerThanOthers) -> Self {
        self.rules.latency = Some(rule);
        self
    }

    /// Sets how often rates and latencies are compared. Default 10 seconds.
    ///
    /// Few calls fall into a short interval, and a rule that wants more of them never holds.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.rules.interval = interval;
        self
    }

    /// Sets how long a first ejection lasts, and any at most. Default 30 and 300 seconds.
    #[must_use]
    pub fn ejection_time(mut self, min: Duration, max: Duration) -> Self {
        (self.rules.ejection_min, self.rules.ejection_max) = (min, max);
        self.rules.ejection_jitter = min / 10;
        self
    }

    /// Sets which share of the nodes may be ejected at most. Default 10 %, but one in any case.
    #[must_use]
    pub fn ejected_max_percent(mut self, percent: u32) -> Self {
        self.rules.ejected_max_percent = percent;
        self
    }

    /// Sets whether one node may be ejected where the share is less than one. Default true.
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

    /// Sets after which time a trial request without an answer has failed. Default 10 s.
    ///
    /// Shorter than the slowest good answer, it keeps endpoints out that work.
    #[must_use]
    pub fn trial_timeout(mut self, timeout: Duration) -> Self {
        self.rules.trial_timeout = timeout;
        self
    }

    /// Sets all rules at once, also those that have no setter here.
    #[must_use]
    pub fn rules(mut self, rules: OutlierRules) -> Self {
        self.rules = rules;
        self
    }

    /// Sets the seed of all random choices, so that a run can be repeated. Default the process's
    /// entropy.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Who is ejected by what this layer and its clones make, to be read and to be told of health
    /// checks.
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

/// Connects, and watches how attempts end. See the [module docs](super).
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
