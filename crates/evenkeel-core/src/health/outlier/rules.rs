//! Which nodes are outliers, and what becomes of them.

use std::time::Duration;

/// Which nodes are outliers, and what becomes of them. Defaults are Envoy's unless stated
/// otherwise.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct OutlierRules {
    /// Ejects after this many failed answers in a row, including gateway failures; `None` for
    /// never. Default 5.
    pub consecutive_errors: Option<u32>,
    /// Ejects after this many gateway failures in a row: answers that a server behind the endpoint
    /// failed. Default `None`.
    pub consecutive_gateway_errors: Option<u32>,
    /// Ejects after this many attempts in a row without an answer: no connection, a reset, or a
    /// [deadline that has passed](crate::cut). Default 5.
    pub consecutive_local_errors: Option<u32>,
    /// Compares success rates at each sweep. Default [`SuccessRate::default`].
    pub success_rate: Option<SuccessRate>,
    /// Judges each node's share of failures at each sweep. Default `None`; gRPC has it on.
    pub failure_percentage: Option<FailurePercentage>,
    /// Compares latencies at each sweep. Costs two clock reads for each attempt. Default `None`.
    pub latency: Option<SlowerThanOthers>,
    /// The time between sweeps that compare rates. Default 10 s.
    pub interval: Duration,
    /// How long the first ejection lasts. Each later one lasts longer by this much. Default 30 s.
    pub min_ejection: Duration,
    /// How long an ejection lasts at most, before jitter. Default 300 s.
    pub max_ejection: Duration,
    /// Up to this much is added at random. Default 3 s; Envoy's is none. Many clients eject a node
    /// at the same moment, and should not all let it back at the same moment.
    pub ejection_jitter: Duration,
    /// The largest share of the nodes that may be ejected, rounded down. Default 10 %.
    pub max_ejected_percent: u32,
    /// Whether one node may be ejected if that share is less than one node. Default true, as in
    /// gRPC: otherwise a set of five would not be protected at all.
    pub always_eject_one: bool,
    /// While less than this share of the nodes is open, no node is ejected and all ejected nodes
    /// come back. One node is left open in any case. Default 50 %, Envoy's panic threshold.
    pub panic_percent: u32,
    /// How many trial requests must succeed before a node that comes back gets its full share; 0
    /// for none. Default 1 (Finagle).
    pub probation_calls: u32,
    /// Trial requests without an answer after this time have failed. The time runs from the first
    /// of them, even if callers give them up one after another. Default 10 s. If it is shorter than
    /// the slowest good answer, it keeps out nodes that work.
    pub trial_timeout: Duration,
    /// Whether a passing health check ends an ejection, and the next one ends the probation after
    /// it. Default true.
    pub check_ends_ejection: bool,
    /// How many nodes are remembered that left while they were ejected or soon after. Between two
    /// sweeps, as many again as are known. Default 1,024.
    pub max_remembered: usize,
}

/// A node is an outlier if its success rate lies far below that of the others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SuccessRate {
    /// How many standard deviations below the mean its success rate lies, at least. Default 1.9.
    pub deviations: f64,
    /// How many percentage points below the mean it also lies, at least. Default 5.
    ///
    /// If nearly all calls succeed, the deviation is almost zero: one failed call of a hundred,
    /// beside four nodes without any, is two deviations below the mean. Ejecting a fifth of the
    /// capacity for that does more harm than good. Envoy has no such floor, and its users ask for
    /// one (envoy#18752, envoy#37723); 0 is Envoy's rule. At the default, one node of five is not
    /// ejected at a success rate of 93.75 % or more, beside four at 100 %.
    pub min_difference: f64,
    /// How many nodes must have enough calls. Default 5.
    pub min_nodes: usize,
    /// How many calls in an interval are enough. Default 100.
    pub min_calls: u32,
}

/// A node is an outlier if too many of its calls fail, whatever the others do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FailurePercentage {
    /// The share of its calls that fail, at least. Default 85 %.
    pub percent: u32,
    /// How many nodes must have enough calls. Default 5.
    pub min_nodes: usize,
    /// How many calls in an interval are enough. Default 50.
    pub min_calls: u32,
}

/// A node is an outlier if its successes take much longer than those of the others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlowerThanOthers {
    /// How many times the median of all nodes' means its mean latency is, at least. Default 5.
    pub factor: f64,
    /// A node with a mean below this is never an outlier. Default 10 ms.
    pub min_latency: Duration,
    /// How many nodes must have enough successes. Default 3.
    pub min_nodes: usize,
    /// How many successes in an interval are enough. Default 20: a slow node answers little.
    pub min_calls: u32,
}

impl Default for SuccessRate {
    fn default() -> Self {
        Self { deviations: 1.9, min_difference: 5.0, min_nodes: 5, min_calls: 100 }
    }
}

impl Default for FailurePercentage {
    fn default() -> Self {
        Self { percent: 85, min_nodes: 5, min_calls: 50 }
    }
}

impl Default for SlowerThanOthers {
    fn default() -> Self {
        Self { factor: 5.0, min_latency: Duration::from_millis(10), min_nodes: 3, min_calls: 20 }
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
            min_ejection: Duration::from_secs(30),
            max_ejection: Duration::from_secs(300),
            ejection_jitter: Duration::from_secs(3),
            max_ejected_percent: 10,
            always_eject_one: true,
            panic_percent: 50,
            probation_calls: 1,
            trial_timeout: Duration::from_secs(10),
            check_ends_ejection: true,
            max_remembered: 1_024,
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
        assert!(Duration::ZERO < self.min_ejection, "ejected for no time at all");
        assert!(self.min_ejection <= self.max_ejection, "the least time lies above the greatest");
        assert!(self.max_ejected_percent <= 100, "more than all nodes");
        assert!(self.panic_percent <= 100, "more than all nodes");
        assert!(self.success_rate.is_none_or(|rule| 0.0 < rule.deviations), "half of all nodes");
        let is_share = |rule: SuccessRate| (0.0..=100.0).contains(&rule.min_difference);
        assert!(self.success_rate.is_none_or(is_share), "a difference of more than all calls");
        assert!(self.failure_percentage.is_none_or(|rule| (1..=100).contains(&rule.percent)));
        assert!(self.latency.is_none_or(|rule| 1.0 < rule.factor), "half of all nodes");
    }

    /// How many of `nodes` nodes may be ejected: never all of them.
    pub(super) fn max_ejected(&self, nodes: usize) -> usize {
        let share = nodes * self.max_ejected_percent as usize / 100;
        share.max(usize::from(self.always_eject_one)).min(nodes.saturating_sub(1))
    }
}
