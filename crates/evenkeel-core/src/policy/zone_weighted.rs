//! A share of the traffic for each zone, which shrinks as its nodes become unfit.

use std::sync::Arc;

use super::{
    P2c, PickContext, Picker, Policy, Visit,
    groups::{Groups, holder_of},
    previous_as,
};
use crate::{node::Node, time::Timestamp};

/// Spreads requests over zones by weights that an operator sets. Within a zone, `child` chooses.
///
/// The weight of a zone counts in full while it can carry its share: while 72 of 100 nodes are fit,
/// at a factor of 1.4, as with [`Tiers`](super::Tiers). Below that its weight sinks with the
/// number of fit nodes, and the others get more.
///
/// **Use it** where shares are a decision: a zone that is being drained, one that is paid for, one
/// twice as large. **Not** to keep traffic near its callers, because all callers spread alike.
/// [`ZoneAware`](super::ZoneAware) does that.
///
/// A zone without a set weight has weight 1. Endpoints without a zone form one zone. A zone of
/// weight 0 gets requests only when no other has an open node. A pick reads one more counter for
/// each zone than the child's. The set is built twice: a node costs 12 bytes more, besides what the
/// child holds for it. Source: Envoy's locality weighted load balancing.
///
/// ```
/// use evenkeel::core::policy::{RoundRobin, ZoneWeighted};
///
/// let policy = ZoneWeighted::new(RoundRobin).weight("eu-1a", 80).weight("eu-1b", 20);
/// # let _ = policy;
/// ```
#[derive(Clone, Debug)]
pub struct ZoneWeighted<P = P2c> {
    child: P,
    weights: Vec<(Arc<str>, u32)>,
    overprovisioning: u32,
}

impl<P: Policy> ZoneWeighted<P> {
    /// Makes the policy. All zones have the same weight. `child` chooses within each.
    #[must_use]
    pub fn new(child: P) -> Self {
        Self { child, weights: Vec::new(), overprovisioning: 140 }
    }

    /// Sets the weight of a zone relative to the others. Default: 1.
    #[must_use]
    pub fn weight(mut self, zone: impl Into<Arc<str>>, weight: u32) -> Self {
        let zone = zone.into();
        self.weights.retain(|(known, _)| *known != zone);
        self.weights.push((zone, weight));
        self
    }

    /// Sets how much a fit node can carry, in percent of its share. Default: 140, Envoy's.
    ///
    /// # Panics
    /// If it is less than 100.
    #[must_use]
    pub fn overprovisioning(mut self, percent: u32) -> Self {
        assert!(100 <= percent, "a node carries its own share");
        self.overprovisioning = percent;
        self
    }
}

impl Default for ZoneWeighted {
    fn default() -> Self {
        Self::new(P2c)
    }
}

impl<P: Policy> Policy for ZoneWeighted<P> {
    fn name(&self) -> &'static str {
        "zone_weighted"
    }

    fn build(&self, nodes: &[Arc<Node>], previous: Option<&dyn Picker>) -> Box<dyn Picker> {
        let previous = previous_as::<ZoneWeightedPicker>(previous);
        let zones = previous.map(|previous| &previous.zones);
        let zones = Groups::new(nodes, zones, &self.child, |endpoint| endpoint.zone.clone());
        let weight = |zone: &Option<Arc<str>>| {
            let set = self.weights.iter().find(|(known, _)| Some(known) == zone.as_ref());
            set.map_or(1, |(_, weight)| u64::from(*weight))
        };
        let weights = zones.list().iter().map(|zone| weight(&zone.key)).collect();
        let everywhere = self.child.build(nodes, previous.map(|previous| &*previous.everywhere));
        let overprovisioning = self.overprovisioning.into();
        Box::new(ZoneWeightedPicker { zones, weights, everywhere, overprovisioning })
    }

    fn latency_decay(&self) -> Option<std::time::Duration> {
        self.child.latency_decay()
    }

    fn reads_time(&self) -> bool {
        self.child.reads_time()
    }
}

struct ZoneWeightedPicker {
    zones: Groups<Option<Arc<str>>>,
    weights: Box<[u64]>,
    everywhere: Box<dyn Picker>,
    overprovisioning: u64,
}

impl ZoneWeightedPicker {
    /// The effective weight of a zone at the moment, in hundredths.
    #[inline]
    fn worth(&self, zone: usize) -> u64 {
        let nodes = &self.zones.list()[zone];
        self.weights[zone] * (self.overprovisioning * nodes.fit() / nodes.len()).min(100)
    }
}

impl Picker for ZoneWeightedPicker {
    fn pick(&self, nodes: &[Arc<Node>], cx: &mut PickContext<'_>) -> Option<usize> {
        let zones = self.zones.list();
        if let [zone] = zones {
            return zone.pick(cx);
        }
        let worth = (0..zones.len()).map(|zone| self.worth(zone));
        let sum: u64 = worth.clone().sum();
        let drawn = if sum == 0 { None } else { holder_of(cx.ticket(sum), worth) };
        if let Some(drawn) = drawn {
            let zone = &zones[drawn];
            cx.tell(|| {
                let name = zone.key.as_deref().unwrap_or("unknown");
                format!("zone {name}, which weighs {} of {sum}", self.worth(drawn))
            });
            if let Some(picked) = zone.pick(cx) {
                return Some(picked);
            }
        }
        let heavy = |zone: usize, cx: &mut PickContext<'_>| {
            if self.weights[zone] == 0 { None } else { zones[zone].pick(cx) }
        };
        let picked = self.zones.pick_in_order(usize::MAX, cx, heavy);
        picked.or_else(|| self.everywhere.pick(nodes, cx))
    }

    fn panics(&self, node: &Node) -> bool {
        self.everywhere.panics(node) || self.zones.list().iter().any(|zone| zone.panics(node))
    }

    fn tend(&self, now: Timestamp) -> Option<Timestamp> {
        [self.everywhere.tend(now), self.zones.tend(now)].into_iter().flatten().min()
    }

    fn each_probing<'a>(&'a self, nodes: &'a [Arc<Node>], visit: &mut Visit<'_, 'a>) {
        self.everywhere.each_probing(nodes, visit);
        self.zones.each_probing(visit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        endpoint::{Address, Endpoint},
        node::Gate,
        policy::RoundRobin,
        rng::Rng,
    };

    /// Ten nodes in each of the zones a and b.
    fn nodes() -> Vec<Arc<Node>> {
        let names = (0..20).map(|index| (if index < 10 { "a" } else { "b" }, index));
        names
            .map(|(zone, index)| {
                let address = Address::Name { host: format!("{zone}{index}").into(), port: 80 };
                Arc::new(Node::new(Endpoint::new(address).zone(zone)))
            })
            .collect()
    }

    fn share_of_a(picker: &dyn Picker, nodes: &[Arc<Node>]) -> f64 {
        let mut rng = Rng::with_seed(5);
        let mut in_a = || picker.pick(nodes, &mut PickContext::new(&mut rng)).unwrap() < 10;
        (0..20_000).filter(|_| in_a()).count() as f64 / 20_000.0
    }

    #[test]
    fn zones_get_requests_by_weight_and_fewer_while_they_are_ill() {
        let nodes = nodes();
        let policy = ZoneWeighted::new(RoundRobin).weight("a", 3);
        let picker = policy.build(&nodes, None);

        assert!((share_of_a(&*picker, &nodes) - 0.75).abs() < 0.02);
        nodes[..2].iter().for_each(|node| _ = node.close(Gate::Ejected));
        assert!((share_of_a(&*picker, &nodes) - 0.75).abs() < 0.02, "eight carry it");
        nodes[..5].iter().for_each(|node| _ = node.close(Gate::Ejected));
        let expected = 3.0 * 0.7 / (3.0 * 0.7 + 1.0);
        assert!((share_of_a(&*picker, &nodes) - expected).abs() < 0.02);
    }

    #[test]
    fn a_zone_of_no_weight_is_the_last_resort() {
        let nodes = nodes();
        let picker = ZoneWeighted::new(RoundRobin).weight("a", 0).build(&nodes, None);
        assert_eq!(share_of_a(&*picker, &nodes), 0.0);
        nodes[10..].iter().for_each(|node| _ = node.close(Gate::Limit));
        assert_eq!(share_of_a(&*picker, &nodes), 1.0);
    }
}
