//! Client-side weighted round robin: weights from the load that servers report.

use std::{collections::HashMap, sync::Arc, time::Duration};

use self::{reported::Reported, rules::WeightRules, stride::Strides};
use super::{PickContext, Picker, Policy, previous_as, turns::Turns};
use crate::{
    node::Node,
    sync::{AtomicU64, Ordering},
    time::Timestamp,
};

mod reported;
mod rules;
mod stride;

/// Chooses each node in turn, as often as its reports say that it can answer requests.
///
/// gRPC's `weighted_round_robin` (gRFC A58), `client_side_weighted_round_robin` in Envoy. The
/// weight of a node is `rps / (utilization + eps/rps · penalty)` of its last report, so that all
/// nodes come to about the same utilization. Reports come with responses or beside them, see
/// [`LoadReport`]. evenkeel-http reads them.
///
/// **Use it** where servers report and differ in size, and requests are many and short: it needs no
/// probes, and follows changes of capacity within seconds. **Not** for load that changes faster,
/// such as that of noisy neighbours: it decides by what it knew a second ago
/// ([`Prequal`](super::Prequal) does not). Nor with few requests in flight at a time.
///
/// * A report counts once the server has reported for the *blackout*, until the report *expires*.
///   The blackout keeps a process that has just started, and reports little load, from being
///   flooded.
/// * A node of unknown weight gets the mean of the others. If fewer than two weights are known,
///   this is [`RoundRobin`](super::RoundRobin).
/// * Weights take effect together, once in an update interval. Weights above ten times the mean, or
///   below a tenth of it, are cut to that limit.
/// * The weights that discovery gives are ignored, except 0.
///
/// Turns are gRPC's static stride, and the first turn is drawn at random. A pick takes at most
/// about ten turns on average, and reads one word for each.
///
/// [`LoadReport`]: crate::load::LoadReport
#[derive(Clone, Debug, Default)]
pub struct ClientSideWeighted {
    rules: WeightRules,
}

impl ClientSideWeighted {
    /// gRPC's defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how long a node must have reported before its weight counts. Default: 10 seconds.
    ///
    /// Zero trusts the first report, which comes from a server with cold caches.
    #[must_use]
    pub fn blackout(mut self, blackout: Duration) -> Self {
        self.rules.blackout = blackout;
        self
    }

    /// Sets how long the last report counts if no other follows. Default: 3 minutes.
    ///
    /// # Panics
    /// If it is zero.
    #[must_use]
    pub fn expiration(mut self, expiration: Duration) -> Self {
        assert!(Duration::ZERO < expiration, "a report that never counts");
        self.rules.expiration = expiration;
        self
    }

    /// Sets how often weights take effect. Default: 1 second. Less than 100 ms counts as 100 ms.
    #[must_use]
    pub fn update_interval(mut self, interval: Duration) -> Self {
        self.rules.update = interval.max(Duration::from_millis(100));
        self
    }

    /// Sets how much errors lower a weight. Default: 1.0, as if each were a request at full load.
    ///
    /// # Panics
    /// If it is negative or not a number.
    #[must_use]
    pub fn error_penalty(mut self, penalty: f64) -> Self {
        assert!((0.0..=1e9).contains(&penalty), "a penalty of {penalty}");
        self.rules.error_penalty = penalty;
        self
    }
}

impl Policy for ClientSideWeighted {
    fn name(&self) -> &'static str {
        "client_side_weighted_round_robin"
    }

    fn build(&self, nodes: &[Arc<Node>], previous: Option<&dyn Picker>) -> Box<dyn Picker> {
        let previous = previous_as::<ClientSideWeightedPicker>(previous);
        let known: HashMap<u64, &Arc<Reported>> = previous
            .iter()
            .flat_map(|picker| picker.reported.iter().map(|reported| (reported.id(), reported)))
            .collect();
        let reported = |node: &Arc<Node>| match known.get(&node.id()) {
            Some(&reported) => reported.clone(),
            None => {
                let reported = Arc::new(Reported::new(node, &self.rules));
                node.observe(reported.clone());
                reported
            }
        };
        let picker = ClientSideWeightedPicker {
            rules: self.rules,
            turns: previous.map_or_else(Arc::default, |picker| picker.turns.clone()),
            reported: nodes.iter().map(reported).collect(),
            strides: Strides::even(nodes.len()),
            updated: AtomicU64::new(0),
        };
        if let Some(previous) = previous {
            picker.update(Timestamp::from_nanos(previous.updated.load(Ordering::Relaxed)));
        }
        Box::new(picker)
    }
}

struct ClientSideWeightedPicker {
    rules: WeightRules,
    turns: Arc<Turns>,
    reported: Box<[Arc<Reported>]>,
    strides: Strides,
    /// When weights last took effect.
    updated: AtomicU64,
}

impl ClientSideWeightedPicker {
    fn update(&self, now: Timestamp) {
        self.updated.store(now.as_nanos(), Ordering::Relaxed);
        self.strides.set(self.reported.iter().map(|reported| reported.weight(&self.rules, now)));
    }
}

impl Picker for ClientSideWeightedPicker {
    fn pick(&self, nodes: &[Arc<Node>], cx: &mut PickContext<'_>) -> Option<usize> {
        self.turns.pick(nodes, cx, |turn| self.strides.at(turn), |_| 1)
    }

    fn tend(&self, now: Timestamp) -> Option<Timestamp> {
        let updated = Timestamp::from_nanos(self.updated.load(Ordering::Relaxed));
        if self.rules.update <= now.since(updated) || now < updated {
            self.update(now);
            return Some(now + self.rules.update);
        }
        Some(updated + self.rules.update)
    }
}

#[cfg(test)]
mod tests;
