//! Uses the endpoints of the caller's own zone while one of them is open.

use std::sync::Arc;

use super::{P2c, PickContext, Picker, Policy, Visit, groups::Groups, previous_as};
use crate::{node::Node, time::Timestamp};

/// Keeps requests in the caller's own zone as long as one of its nodes takes them.
///
/// The zone is an endpoint's [`zone`](crate::endpoint::Endpoint::zone). The caller says which is
/// its own. `child` chooses among the nodes of that zone, and among all nodes if none of those is
/// open and free.
///
/// **Use it** where every zone can carry its own callers, with the failures within it, or where
/// crossing zones costs more than a crowded zone. **Not** where zones are small or uneven: the last
/// open node of the zone gets everything, until it is full or becomes unhealthy, too.
/// [`ZoneAware`](super::ZoneAware) keeps local what the zone can carry.
///
/// A pick costs what the child's does, and twice that if the zone has no node to offer. The set is
/// built twice: a node costs 12 bytes more, besides what the child holds for it.
#[derive(Clone, Debug)]
pub struct PreferZone<P = P2c> {
    child: P,
    own: Option<Arc<str>>,
}

impl<P: Policy> PreferZone<P> {
    /// Prefers the endpoints of the zone `own`. `child` chooses among them.
    #[must_use]
    pub fn new(own: impl Into<Arc<str>>, child: P) -> Self {
        Self { child, own: Some(own.into()) }
    }

    /// For a caller whose zone is unknown.
    pub(super) fn anywhere(child: P) -> Self {
        Self { child, own: None }
    }
}

impl Default for PreferZone {
    /// The less busy of two nodes, from all zones: the caller's zone is unknown.
    fn default() -> Self {
        Self::anywhere(P2c)
    }
}

impl<P: Policy> Policy for PreferZone<P> {
    fn name(&self) -> &'static str {
        "prefer_zone"
    }

    fn build(&self, nodes: &[Arc<Node>], previous: Option<&dyn Picker>) -> Box<dyn Picker> {
        let previous = previous_as::<PreferZonePicker>(previous);
        let is_elsewhere = |zone: &Option<Arc<str>>| self.own.is_none() || *zone != self.own;
        // Only the caller's zone has its own group. All others are chosen from together with it.
        let zones = Groups::new(nodes, previous.map(|p| &p.zones), &self.child, |endpoint| {
            is_elsewhere(&endpoint.zone)
        });
        let everywhere = self.child.build(nodes, previous.map(|p| &*p.everywhere));
        Box::new(PreferZonePicker { zones, everywhere })
    }

    fn latency_decay(&self) -> Option<std::time::Duration> {
        self.child.latency_decay()
    }

    fn reads_time(&self) -> bool {
        self.child.reads_time()
    }
}

struct PreferZonePicker {
    /// Keyed by whether the nodes are in other zones.
    zones: Groups<bool>,
    everywhere: Box<dyn Picker>,
}

impl Picker for PreferZonePicker {
    fn pick(&self, nodes: &[Arc<Node>], cx: &mut PickContext<'_>) -> Option<usize> {
        let near = self.zones.list().first().filter(|zone| !zone.key);
        let picked = near.and_then(|near| near.pick(cx));
        cx.tell(|| match picked {
            Some(_) => "from the own zone".into(),
            None => "from all zones, since none is open in the own zone".into(),
        });
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
    use crate::{endpoint::Endpoint, node::Gate, policy::RoundRobin, rng::Rng};

    fn nodes(zones: &[&'static str]) -> Vec<Arc<Node>> {
        let endpoint = |port| Endpoint::new(std::net::SocketAddr::from(([10, 0, 0, 1], port)));
        (1..)
            .zip(zones)
            .map(|(port, &zone)| Arc::new(Node::new(endpoint(port).zone(zone))))
            .collect()
    }

    /// Sorted, because the first turn is drawn at random.
    fn picks(picker: &dyn Picker, nodes: &[Arc<Node>]) -> Vec<usize> {
        let mut rng = Rng::with_seed(1);
        let pick = |_| picker.pick(nodes, &mut PickContext::new(&mut rng));
        let mut picks: Vec<_> = (0..6).filter_map(pick).collect();
        picks.sort_unstable();
        picks
    }

    #[test]
    fn requests_leave_the_zone_only_while_it_has_no_open_node() {
        let nodes = nodes(&["b", "a", "b", "a"]);
        let picker = PreferZone::new("a", RoundRobin).build(&nodes, None);

        assert_eq!(picks(&*picker, &nodes), [1, 1, 1, 3, 3, 3]);
        nodes[1].close(Gate::Ejected);
        assert_eq!(picks(&*picker, &nodes), [3; 6]);
        nodes[3].close(Gate::Limit);
        assert!(picks(&*picker, &nodes).iter().all(|place| place % 2 == 0));
        nodes[1].open(Gate::Ejected);
        assert_eq!(picks(&*picker, &nodes), [1; 6]);
    }

    #[test]
    fn if_the_zone_has_no_nodes_the_others_share_all_requests() {
        let nodes = nodes(&["b", "b", "c"]);
        let picker = PreferZone::new("a", RoundRobin).build(&nodes, None);
        assert_eq!(picks(&*picker, &nodes), [0, 0, 1, 1, 2, 2]);
    }

    #[test]
    fn a_child_policy_that_probes_does_so_in_every_group() {
        let nodes = nodes(&["b", "a", "b", "a"]);
        let prequal = crate::policy::Prequal::new();
        let picker = PreferZone::new("a", prequal).build(&nodes, None);

        let mut groups = Vec::new();
        picker.each_probing(&nodes, &mut |_, nodes| groups.push(nodes.len()));

        assert_eq!(groups, [4, 2, 2], "the whole, here, elsewhere");
    }
}
