//! Which nodes are outliers, and what becomes of them.

use std::time::Duration;

/// Which nodes are outliers, and what becomes of them. Defaults are Envoy's where nothing else is said.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct OutlierRules {
    /// Ejects after so many failed answers in a row, gateway failures among them; `None` for never.
    /// Default 5.
    pub consecutive_errors: Option<u32>,
    /// Ejects after so many answers in a row that what stands behind the endpoint failed. Default
    /// `None`.
    pub consecutive_gateway_errors: Option<u32>,
    /// Ejects after so many attempts in a row without an answer: no connection, a reset, or a
    /// [deadline that has passed](crate::cut). Default 5.
    pub consecutive_local_errors: Option<u32>,
    /// Compares success rates at each sweep. Default [`SuccessRate::default`].
    pub success_rate: Option<SuccessRate>,
    /// Looks at each node's failures at each sweep. Default `None`; gRPC has it on.
    pub failure_percentage: Option<FailurePercentage>,
    /// Compares latencies at each sweep, for two clock reads an attempt. Default `None`.
    pub latency: Option<SlowerThanOthers>,
    /// How often the rates are looked at. Default 10 s.
    pub interval: Duration,
    /// How long a first ejection lasts; a later one so much longer for each one before. Default 30 s.
    pub ejection_min: Duration,
    /// How long an ejection lasts at most, before jitter. Default 300 s.
    pub ejection_max: Duration,
    /// Up to so much is added at random. Default 3 s, where Envoy has none: many clients eject a node
    /// in the same moment, and should not all come back in the same moment.
    pub ejection_jitter: Duration,
    /// At most this share of the nodes is ejected, rounded down. Default 10 %.
    pub ejected_max_percent: u32,
    /// Whether one may be ejected where that share is less than one node. Default true, as in gRPC: a
    /// set of five would not be protected at all.
    pub always_eject_one: bool,
    /// While less than this share of the nodes is open for other reasons, nobody is ejected and those
    /// who are come back. One is left open in any case. Default 50 %, Envoy's panic threshold.
    pub panic_percent: u32,
    /// So many trial requests must succeed before a node that comes back gets its full share; 0 for
    /// none. Default 1 (Finagle).
    pub probation_calls: u32,
    /// Trial requests without an answer after this time have failed. It runs from the first of them on, also
    /// where callers give them up one after another. Default 10 s. Shorter than the slowest good answer, it
    /// keeps nodes out that work.
    pub trial_timeout: Duration,
    /// Whether a passing health check ends an ejection, and the next one the probation after it. Default true.
    pub check_ends_ejection: bool,
    /// So many nodes are remembered that left while they were ejected or not long after, and between two
    /// sweeps as many again as are known. Default 1,024.
    pub remembered_max: usize,
}

/// A node is an outlier if its success rate lies far below that of the others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SuccessRate {
    /// So many standard deviations below the mean. Default 1.9.
    pub deviations: f64,
    /// And so many percentage points below the mean, at least. Default 5.
    ///
    /// Where nearly all calls succeed the deviation is next to nothing, and one failed call of a hundred beside four
    /// nodes without any lies two of them below the mean. To leave out a fifth of the capacity for that does more harm
    /// than good. Envoy has no such floor, and its users ask for one (envoy#18752, envoy#37723); 0 is Envoy's rule.
    /// At the default one node of five is left alone from a success rate of 93.75 % on, beside four at 100 %.
    pub difference_min: f64,
    /// So many nodes at least must have enough calls. Default 5.
    pub nodes_min: usize,
    /// So many calls in an interval are enough. Default 100.
    pub calls_min: u32,
}

/// A node is an outlier if too many of its calls fail, whatever the others do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FailurePercentage {
    /// This share of its calls or more. Default 85 %.
    pub percent: u32,
    /// So many nodes at least must have enough calls. Default 5.
    pub nodes_min: usize,
    /// So many calls in an interval are enough. Default 50.
    pub calls_min: u32,
}

/// A node is an outlier if its successes take much longer than those of the others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlowerThanOthers {
    /// Its mean latency is at least so many times the median of all nodes' means. Default 5.
    pub factor: f64,
    /// It is left alone while its mean lies below this. Default 10 ms.
    pub latency_min: Duration,
    /// So many nodes at least must have enough successes. Default 3.
    pub nodes_min: usize,
    /// So many successes in an interval are enough. Default 20: a slow node answers little.
    pub calls_min: u32,
}

impl Default for SuccessRate {
    fn default() -> Self {
        Self { deviations: 1.9, difference_min: 5.0, nodes_min: 5, calls_min: 100 }
    }
}

impl Default for FailurePercentage {
    fn default() -> Self {
        Self { percent: 85, nodes_min: 5, calls_min: 50 }
    }
}

impl Default for SlowerThanOthers {
    fn default() -> Self {
        Self { factor: 5.0, latency_min: Duration::from_millis(10), nodes_min: 3, calls_min: 20 }
    }
}

impl Default for OutlierRules {
    fn default() -> Self {
        Self {
            consecutive_errors: Some(5),
            consecutive_gateway_errors: None,
            consecutive_local_errors: Some(5),
            success_rate: Some(SuccessRate::default()),
            failure_percentage: None,
            latency: None,
            interval: Duration::from_secs(10),
            ejection_min: Duration::from_secs(30),
            ejection_max: Duration::from_secs(300),
            ejection_jitter: Duration::from_secs(3),
            ejected_max_percent: 10,
            always_eject_one: true,
            panic_percent: 50,
            probation_calls: 1,
            trial_timeout: Duration::from_secs(10),
            check_ends_ejection: true,
            remembered_max: 1_024,
        }
    }
}

impl OutlierRules {
    pub(super) fn check(&self) {
        for errors in [
            self.consecutive_errors,
            self.consecutive_gateway_errors,
            self.consecutive_local_errors,
        ] {
            assert!(errors != Some(0), "ejects after no failure at all");
        }
        assert!(Duration::ZERO < self.interval, "a sweep without end");
        assert!(Duration::ZERO < self.trial_timeout, "trials without time for an answer");
        assert!(Duration::ZERO < self.ejection_min, "ejected for no time at all");
        assert!(self.ejection_min <= self.ejection_max, "the least time lies above the greatest");
        assert!(self.ejected_max_percent <= 100, "more than all nodes");
        assert!(self.panic_percent <= 100, "more than all nodes");
        assert!(self.success_rate.is_none_or(|rule| 0.0 < rule.deviations), "half of all nodes");
        let is_share = |rule: SuccessRate| (0.0..=100.0).contains(&rule.difference_min);
        assert!(self.success_rate.is_none_or(is_share), "a difference of more than all calls");
        assert!(self.failure_percentage.is_none_or(|rule| (1..=100).contains(&rule.percent)));
        assert!(self.latency.is_none_or(|rule| 1.0 < rule.factor), "half of all nodes");
    }

    /// How many of so many nodes may be ejected: never all of them.
    pub(super) fn ejected_max(&self, nodes: usize) -> usize {
        let share = nodes * self.ejected_max_percent as usize / 100;
        share.max(usize::from(self.always_eject_one)).min(nodes.saturating_sub(1))
    }
}
