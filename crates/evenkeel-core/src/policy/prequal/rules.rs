//! How many probes are sent, how long they count, and for how many requests each.

use std::{fmt, sync::Arc, time::Duration};

use crate::{load::ServerLoad, node::Node};

/// The maximum number of probes in the pool.
pub(super) const POOL: usize = 16;

/// A score that replaces the rule of hot and cold.
pub(super) type Score = Arc<dyn Fn(&Node, ServerLoad) -> f64 + Send + Sync>;

/// The configuration of [`Prequal`](super::Prequal). The defaults are the paper's.
#[derive(Clone)]
pub(super) struct Rules {
    pub(super) probe_rate: f64,
    pub(super) remove_rate: f64,
    pub(super) delta: f64,
    pub(super) quantile: f64,
    pub(super) max_age: Duration,
    pub(super) idle_interval: Duration,
    pub(super) max_probes: u32,
    pub(super) score: Option<Score>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            probe_rate: 3.0,
            remove_rate: 1.0,
            delta: 1.0,
            // 2^(-1/4), the paper's baseline.
            quantile: 0.840_896_415_253_714_6,
            max_age: Duration::from_secs(1),
            idle_interval: Duration::from_millis(100),
            max_probes: 64,
            score: None,
        }
    }
}

impl Rules {
    /// How many requests one probe may decide, on average, in a set of `nodes`.
    ///
    /// The paper's `max{1, (1+δ) / ((1−m/n)·r_probe − r_remove)}`, but never more than
    /// `(1+δ)·n/r_probe`, which also applies where the formula is undefined. Each request draws
    /// `r_probe` of `n` nodes, so a probe is replaced by one of the same node after `n/r_probe`
    /// requests on average. To let it count for much longer gains nothing.
    pub(super) fn reuse(&self, nodes: usize) -> f64 {
        let n = nodes.max(1) as f64;
        let m = n.min(POOL as f64);
        let gained = (1.0 - m / n) * self.probe_rate - self.remove_rate;
        let replaced = (1.0 + self.delta) * n / self.probe_rate.max(0.01);
        let reuse = if 0.0 < gained { (1.0 + self.delta) / gained } else { f64::INFINITY };
        reuse.min(replaced).max(1.0)
    }

    /// The quantile that separates cold from hot in a set of `nodes`, rounded down to one that
    /// exists for that number of values.
    ///
    /// Of three nodes, none is above the 84th percentile, however busy it is: there the median
    /// separates them. Of two nodes, the busier one is hot.
    pub(super) fn quantile_of(&self, nodes: usize) -> f64 {
        let others = nodes.saturating_sub(1) as f64;
        if 1.0 <= self.quantile || others == 0.0 {
            return self.quantile;
        }
        (self.quantile * others).floor() / others
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules")
            .field("probe_rate", &self.probe_rate)
            .field("remove_rate", &self.remove_rate)
            .field("delta", &self.delta)
            .field("quantile", &self.quantile)
            .field("max_age", &self.max_age)
            .field("idle_interval", &self.idle_interval)
            .field("max_probes", &self.max_probes)
            .field("is_scored", &self.score.is_some())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reuse(probe_rate: f64, remove_rate: f64, nodes: usize) -> f64 {
        Rules { probe_rate, remove_rate, ..Rules::default() }.reuse(nodes)
    }

    fn assert_near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-9, "{found} instead of {expected}");
    }

    #[test]
    fn reuse_in_a_large_fleet_is_that_of_the_paper() {
        assert_near(reuse(3.0, 1.0, 100), 1.315_789_473_684_210_6);
        assert_near(reuse(2.0, 0.25, 100), 1.398_601_398_601_398_6);
        assert_near(reuse(1.0, 0.25, 100), 3.389_830_508_474_576);
        assert_near(reuse(0.5, 0.25, 100), 11.764_705_882_352_942);
        assert_near(reuse(4.0, 0.25, 100), 1.0);
    }

    #[test]
    fn reuse_in_a_small_fleet_is_bounded_by_when_a_probe_is_replaced() {
        assert_near(reuse(3.0, 1.0, 3), 2.0);
        assert_near(reuse(3.0, 1.0, 16), 32.0 / 3.0);
        assert_near(reuse(3.0, 1.0, 24), 16.0);
        assert_near(reuse(3.0, 1.0, 1), 1.0);
        assert_near(reuse(3.0, 1.0, 0), 1.0);
    }

    #[test]
    fn in_a_small_fleet_one_node_may_be_hot() {
        let rules = Rules::default();
        assert_near(rules.quantile_of(1), rules.quantile);
        assert_near(rules.quantile_of(2), 0.0);
        assert_near(rules.quantile_of(3), 0.5);
        assert_near(rules.quantile_of(5), 0.75);
        assert_near(rules.quantile_of(100), 83.0 / 99.0);
        assert_near(Rules { quantile: 1.0, ..rules }.quantile_of(2), 1.0);
    }

    #[test]
    fn reuse_is_finite_and_at_least_one_in_every_fleet() {
        for nodes in 0..500 {
            for rate in [0.0, 0.25, 0.5, 1.0, 3.0, 16.0] {
                let reuse = reuse(rate, 1.0, nodes);
                assert!((1.0..1e6).contains(&reuse), "{reuse} at {nodes} nodes, rate {rate}");
            }
        }
    }
}
