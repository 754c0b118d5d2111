//! Keeps as much of the traffic in the caller's zone as the zone can carry.

use std::sync::Arc;

use super::{
    P2c, PickContext, Picker, Policy, Visit,
    groups::{Groups, holder_of},
    previous_as,
};
use crate::{node::Node, time::Timestamp};

/// Keeps requests in the caller's zone as far as its share of the nodes can carry them.
///
/// The rest spreads over the zones that have more nodes than callers. If callers are spread over
/// the zones like the nodes, everything stays local. If a zone has half of the callers and a
/// quarter of the nodes, half of its requests stay, and the others go where there is room. So every
/// node gets as many requests as if zones did not exist, and as few requests as possible cross
/// zones. Only fit nodes count: a zone that loses nodes sends away what it can no longer carry,
/// request by request.
///
/// [`callers`](Self::callers) says how callers are spread. Without it, each zone that has nodes is
/// assumed to have the same number of callers.
///
/// **Use it** where crossing zones costs money or milliseconds, and the load of nodes must be even.
/// **Not** for a handful of endpoints: with fewer than [`min_nodes`](Self::min_nodes) fit nodes,
/// zones are ignored. They are also ignored if the caller's zone is unknown or empty. Where nodes
/// differ much in weight, counting them misleads. Use [`ZoneWeighted`](super::ZoneWeighted) there.
///
/// A pick reads two more counters than the child's while everything stays local, and otherwise one
/// for each zone. The set is built twice: a node costs 12 bytes more, besides what the child holds
/// for it. Source: Envoy's zone aware routing, with its default of six nodes. Envoy learns where
/// callers are from a discovery of its own cluster.
///
/// ```
/// use evenkeel::core::policy::{P2c, ZoneAware};
///
/// let policy = ZoneAware::new("eu-1a", P2c).callers("eu-1a", 4).callers("eu-1b", 2);
/// # let _ = policy;
/// ```
#[derive(Clone, Debug)]
pub struct ZoneAware<P = P2c> {
    child: P,
    own: Option<Arc<str>>,
    callers: Vec<(Arc<str>, u32)>,
    min_nodes: u32,
}

impl<P: Policy> ZoneAware<P> {
    /// Makes the policy for a caller in the zone `own`. `child` chooses within a zone.
    #[must_use]
    pub fn new(own: impl Into<Arc<str>>, child: P) -> Self {
        Self { own: Some(own.into()), ..Self::anywhere(child) }
    }

    /// For a caller whose zone is unknown.
    pub(super) fn anywhere(child: P) -> Self {
        Self { child, own: None, callers: Vec::new(), min_nodes: 6 }
    }

    /// Sets how many callers a zone has, relative to the others. Default: the same number in each
    /// zone.
    ///
    /// Once one zone is named, zones that are not named have none.
    #[must_use]
    pub fn callers(mut self, zone: impl Into<Arc<str>>, count: u32) -> Self {
        let zone = zone.into();
        self.callers.retain(|(known, _)| *known != zone);
        self.callers.push((zone, count));
        self
    }

    /// Sets how many nodes must be fit. With fewer, zones are ignored. Default: 6, Envoy's.
    ///
    /// With few nodes, one more or less is a large share of what a zone can carry.
    #[must_use]
    pub fn min_nodes(mut self, nodes: u32) -> Self {
        self.min_nodes = nodes;
        self
    }

    fn callers_in(&self, zone: Option<&Arc<str>>) -> u64 {
        let Some(zone) = zone else { return 0 };
        let known = self.callers.iter().find(|(known, _)| known == zone);
        known.map_or(u64::from(self.callers.is_empty()), |(_, count)| u64::from(*count))
    }
}

impl Default for ZoneAware {
    /// The less busy of two nodes, from all zones: the caller's zone is unknown.
    fn default() -> Self {
        Self::anywhere(P2c)
    }
}

impl<P: Policy> Policy for ZoneAware<P> {
    fn name(&self) -> &'static str {
        "zone_aware"
    }

    fn build(&self, nodes: &[Arc<Node>], previous: Option<&dyn Picker>) -> Box<dyn Picker> {
        let previous = previous_as::<ZoneAwarePicker>(previous);
        let zones = previous.map(|previous| &previous.zones);
        let zones = Groups::new(nodes, zones, &self.child, |endpoint| endpoint.zone.clone());
        let everywhere = self.child.build(nodes, previous.map(|previous| &*previous.everywhere));
        let callers: Box<[u64]> =
            zones.list().iter().map(|zone| self.callers_in(zone.key.as_ref())).collect();
        let own = self.own.as_ref().and_then(|_| zones.position(&self.own));
        // Callers in zones without a node count, too.
        let away =
            self.callers.iter().filter(|(zone, _)| zones.find(&Some(zone.clone())).is_none());
        let callers_sum =
            callers.iter().sum::<u64>() + away.map(|(_, n)| u64::from(*n)).sum::<u64>();
        let min_nodes = self.min_nodes.into();
        Box::new(ZoneAwarePicker { zones, everywhere, own, callers, callers_sum, min_nodes })
    }

    fn latency_decay(&self) -> Option<std::time::Duration> {
        self.child.latency_decay()
    }

    fn reads_time(&self) -> bool {
        self.child.reads_time()
    }
}

struct ZoneAwarePicker {
    zones: Groups<Option<Arc<str>>>,
    everywhere: Box<dyn Picker>,
    /// `None` while the caller's zone has no node.
    own: Option<usize>,
    callers: Box<[u64]>,
    callers_sum: u64,
    min_nodes: u64,
}

impl Picker for ZoneAwarePicker {
    fn pick(&self, nodes: &[Arc<Node>], cx: &mut PickContext<'_>) -> Option<usize> {
        let fit = self.zones.fit();
        let zone = match self.own {
            Some(own) if self.min_nodes <= fit => self.zone(own, fit, cx),
            _ => None,
        };
        cx.tell(|| match zone.map(|zone| &self.zones.list()[zone]) {
            None => "from everywhere: zones are unknown, or nodes too few".into(),
            Some(zone) => {
                let name = zone.key.as_deref().unwrap_or("unknown");
                format!("zone {name}, which has {} of {fit} fit", zone.fit())
            }
        });
        let picked = zone.and_then(|zone| self.zones.list()[zone].pick(cx));
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

impl ZoneAwarePicker {
    /// The zone for this request, out of `fit` nodes in total.
    #[inline]
    fn zone(&self, own: usize, fit: u64, cx: &mut PickContext<'_>) -> Option<usize> {
        // Compares shares of nodes and of callers without dividing: what a zone can carry with what
        // its callers send.
        let carried = self.zones.list()[own].fit() * self.callers_sum;
        let brought = self.callers[own] * fit;
        if brought <= carried { Some(own) } else { self.zone_with_room(own, carried, brought, cx) }
    }

    #[cold]
    fn zone_with_room(
        &self,
        own: usize,
        carried: u64,
        brought: u64,
        cx: &mut PickContext<'_>,
    ) -> Option<usize> {
        let ticket = cx.ticket(brought);
        if ticket < carried {
            return Some(own);
        }
        let fit = self.zones.fit();
        let room = |zone: usize| {
            let carried = self.zones.list()[zone].fit() * self.callers_sum;
            carried.saturating_sub(self.callers[zone] * fit)
        };
        let rooms = (0..self.callers.len()).map(room);
        let sum: u64 = rooms.clone().sum();
        // The rest of the ticket is again uniform, and the same for the same hash.
        let rest = u128::from(ticket - carried) * u128::from(sum) / u128::from(brought - carried);
        holder_of(rest as u64, rooms)
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

    /// Nodes in the zones a, b, c, with the given count for each.
    fn nodes(counts: [usize; 3]) -> Vec<Arc<Node>> {
        let zones = ["a", "b", "c"].into_iter().zip(counts);
        let names = zones.flat_map(|(zone, count)| (0..count).map(move |index| (zone, index)));
        names
            .map(|(zone, index)| {
                let address = Address::Name { host: format!("{zone}{index}").into(), port: 80 };
                Arc::new(Node::new(Endpoint::new(address).zone(zone)))
            })
            .collect()
    }

    /// The shares of the zones a, b, c in percent.
    fn shares(picker: &dyn Picker, nodes: &[Arc<Node>]) -> [f64; 3] {
        let mut rng = Rng::with_seed(11);
        let mut shares = [0.0; 3];
        for _ in 0..20_000 {
            let picked = picker.pick(nodes, &mut PickContext::new(&mut rng)).unwrap();
            let zone = nodes[picked].endpoint().zone.clone().unwrap();
            shares[usize::from(zone.as_bytes()[0] - b'a')] += 100.0 / 20_000.0;
        }
        shares
    }

    fn assert_near(shares: [f64; 3], expected: [f64; 3]) {
        let is_near =
            shares.iter().zip(expected).all(|(share, expected)| (share - expected).abs() < 1.5);
        assert!(is_near, "{shares:?} for {expected:?}");
    }

    #[test]
    fn everything_stays_local_while_the_zone_has_its_share() {
        let nodes = nodes([5, 5, 5]);
        let picker = ZoneAware::new("a", RoundRobin).build(&nodes, None);
        assert_near(shares(&*picker, &nodes), [100.0, 0.0, 0.0]);
    }

    #[test]
    fn what_the_zone_cannot_carry_goes_where_there_is_room() {
        // A third of the callers, a sixth of the nodes: half stays. Zone b is even, c has room.
        let nodes = nodes([2, 4, 6]);
        let picker = ZoneAware::new("a", RoundRobin).build(&nodes, None);
        assert_near(shares(&*picker, &nodes), [50.0, 0.0, 50.0]);
    }

    #[test]
    fn nodes_are_as_busy_as_if_there_were_no_zones() {
        let nodes = nodes([2, 4, 6]);
        let mut sum = [0.0; 3];
        for own in ["a", "b", "c"] {
            let picker = ZoneAware::new(own, RoundRobin).build(&nodes, None);
            let shares = shares(&*picker, &nodes);
            sum.iter_mut().zip(shares).for_each(|(sum, share)| *sum += share / 3.0);
        }
        assert_near(sum, [100.0 / 6.0, 100.0 / 3.0, 50.0]);
    }

    #[test]
    fn a_zone_that_loses_nodes_sends_out_the_rest() {
        let nodes = nodes([6, 6, 6]);
        let picker = ZoneAware::new("a", RoundRobin).build(&nodes, None);
        nodes[..3].iter().for_each(|node| _ = node.close(Gate::Ejected));
        // 3 of 15 for a third of the callers: three fifths stay.
        assert_near(shares(&*picker, &nodes), [60.0, 20.0, 20.0]);
        nodes[..6].iter().for_each(|node| _ = node.close(Gate::Unhealthy));
        assert_near(shares(&*picker, &nodes), [0.0, 50.0, 50.0]);
    }

    #[test]
    fn callers_that_are_spread_like_the_nodes_stay_in_their_zone() {
        let nodes = nodes([1, 4, 7]);
        let policy =
            ZoneAware::new("a", RoundRobin).callers("a", 1).callers("b", 4).callers("c", 7);
        assert_near(shares(&*policy.build(&nodes, None), &nodes), [100.0, 0.0, 0.0]);
    }

    #[test]
    fn zones_are_ignored_where_nodes_are_few_or_the_zone_is_empty() {
        let few = nodes([1, 2, 2]);
        let picker = ZoneAware::new("a", RoundRobin).build(&few, None);
        assert_near(shares(&*picker, &few), [20.0, 40.0, 40.0]);
        let nodes = nodes([0, 5, 5]);
        let picker = ZoneAware::new("a", RoundRobin).build(&nodes, None);
        assert_near(shares(&*picker, &nodes), [0.0, 50.0, 50.0]);
    }
}
