//! A panic threshold: if too few nodes are fit, the unfit ones are used, too.

use std::sync::Arc;

use super::{
    P2c, PickContext, Picker, Policy, Visit,
    census::{Census, Roll},
    previous_as,
};
use crate::{node::Node, time::Timestamp};

/// Uses nodes that only their health closes, while less than a given share of all nodes is fit.
///
/// Health checks and ejections protect from a few bad endpoints. When most look bad at once, either
/// the judgement is wrong, or the few that are left will be overloaded by all the requests and fail
/// as well. So below the threshold, requests spread over all usable nodes, and some fail. That is
/// better than all of them failing a moment later.
///
/// **Use it** for fleets that are loaded near their capacity. **Not** where a request to an
/// unhealthy endpoint does harm, or where half of the fleet can carry all of the load. There, keep
/// the balancer's default, which uses unhealthy nodes only while no other is open.
/// [`Tiers`](super::Tiers) has its own threshold for each of its tiers.
///
/// A pick reads one more counter than the child's. The rule and its default of 50 % are Envoy's.
#[derive(Clone, Copy, Debug)]
pub struct PanicThreshold<P = P2c> {
    child: P,
    percent: u32,
}

impl<P: Policy> PanicThreshold<P> {
    /// Panics while fewer than `percent` of all nodes are fit. With 0 it never does. `child`
    /// chooses.
    ///
    /// # Panics
    /// If `percent` is more than 100.
    #[must_use]
    pub fn new(percent: u32, child: P) -> Self {
        assert!(percent <= 100, "no more than all nodes are fit");
        Self { child, percent }
    }

    /// With a threshold of half of the nodes.
    pub(super) fn over(child: P) -> Self {
        Self::new(50, child)
    }
}

impl Default for PanicThreshold {
    /// A threshold of half of the nodes, over the less busy of two.
    fn default() -> Self {
        Self::over(P2c)
    }
}

impl<P: Policy> Policy for PanicThreshold<P> {
    fn name(&self) -> &'static str {
        "panic_threshold"
    }

    fn build(&self, nodes: &[Arc<Node>], previous: Option<&dyn Picker>) -> Box<dyn Picker> {
        let previous = previous_as::<PanicPicker>(previous);
        let roll = previous.map_or_else(Arc::default, |previous| previous.roll.clone());
        let census = previous.map_or_else(Arc::default, |previous| previous.census.clone());
        // Nodes that have left are closed for good, so they no longer count.
        nodes.iter().for_each(|node| roll.enlist(node, &census));
        let child = self.child.build(nodes, previous.map(|previous| &*previous.child));
        let min_fit = (nodes.len() as u64 * u64::from(self.percent)).div_ceil(100);
        Box::new(PanicPicker { roll, census, min_fit, child })
    }

    fn latency_decay(&self) -> Option<std::time::Duration> {
        self.child.latency_decay()
    }

    fn reads_time(&self) -> bool {
        self.child.reads_time()
    }
}

struct PanicPicker {
    roll: Arc<Roll>,
    census: Arc<Census>,
    /// It panics if fewer are fit.
    min_fit: u64,
    child: Box<dyn Picker>,
}

impl PanicPicker {
    #[inline]
    fn is_in_panic(&self) -> bool {
        // If no node is fit, whether to fail open is up to the balancer.
        (1..self.min_fit).contains(&self.census.fit())
    }
}

impl Picker for PanicPicker {
    fn pick(&self, nodes: &[Arc<Node>], cx: &mut PickContext<'_>) -> Option<usize> {
        if cx.fails_open || !self.is_in_panic() {
            return self.child.pick(nodes, cx);
        }
        cx.tell(|| {
            let (fit, min_fit) = (self.census.fit(), self.min_fit);
            format!("{fit} are fit where {min_fit} have to be: in panic, the ill are used, too")
        });
        cx.fails_open = true;
        let picked = self.child.pick(nodes, cx);
        cx.fails_open = false;
        picked
    }

    fn panics(&self, node: &Node) -> bool {
        self.is_in_panic() || self.child.panics(node)
    }

    fn tend(&self, now: Timestamp) -> Option<Timestamp> {
        self.child.tend(now)
    }

    fn each_probing<'a>(&'a self, nodes: &'a [Arc<Node>], visit: &mut Visit<'_, 'a>) {
        self.child.each_probing(nodes, visit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{endpoint::Endpoint, node::Gate, policy::RoundRobin, rng::Rng};

    fn nodes(count: u16) -> Vec<Arc<Node>> {
        let endpoint = |port| Endpoint::new(std::net::SocketAddr::from(([10, 0, 0, 1], port)));
        (1..=count).map(|port| Arc::new(Node::new(endpoint(port)))).collect()
    }

    fn picked(picker: &dyn Picker, nodes: &[Arc<Node>]) -> usize {
        let mut rng = Rng::with_seed(1);
        let mut seen: Vec<_> =
            (0..200).filter_map(|_| picker.pick(nodes, &mut PickContext::new(&mut rng))).collect();
        seen.sort_unstable();
        seen.dedup();
        seen.len()
    }

    #[test]
    fn below_the_threshold_all_nodes_are_used_and_at_it_only_the_fit_ones() {
        let nodes = nodes(10);
        let picker = PanicThreshold::new(50, RoundRobin).build(&nodes, None);

        nodes[..5].iter().for_each(|node| _ = node.close(Gate::Ejected));
        assert_eq!(picked(&*picker, &nodes), 5);
        nodes[5].close(Gate::Unhealthy);
        assert_eq!(picked(&*picker, &nodes), 10);
        assert!(picker.panics(&nodes[0]));
        nodes[5].open(Gate::Unhealthy);
        assert_eq!(picked(&*picker, &nodes), 5);
    }

    #[test]
    fn gates_that_are_not_of_health_stay_closed_in_panic() {
        let nodes = nodes(10);
        let picker = PanicThreshold::new(50, RoundRobin).build(&nodes, None);
        nodes[..4].iter().for_each(|node| _ = node.close(Gate::Ejected));
        nodes[4..8].iter().for_each(|node| _ = node.close(Gate::Broken));
        assert_eq!(picked(&*picker, &nodes), 6);
    }

    #[test]
    fn without_a_fit_node_the_policy_does_not_panic_by_itself() {
        let nodes = nodes(3);
        let picker = PanicThreshold::new(50, RoundRobin).build(&nodes, None);
        nodes.iter().for_each(|node| _ = node.close(Gate::Ejected));
        assert_eq!(picked(&*picker, &nodes), 0);
    }

    #[test]
    fn a_threshold_of_zero_turns_panic_off() {
        let nodes = nodes(10);
        let picker = PanicThreshold::new(0, RoundRobin).build(&nodes, None);
        nodes[1..].iter().for_each(|node| _ = node.close(Gate::Ejected));
        assert_eq!(picked(&*picker, &nodes), 1);
    }

    #[test]
    fn a_node_that_has_left_does_not_count() {
        let nodes = nodes(4);
        let policy = PanicThreshold::new(50, RoundRobin);
        let picker = policy.build(&nodes, None);
        let picker = policy.build(&nodes[..2], Some(&*picker));
        nodes[2..].iter().for_each(|node| _ = node.close(Gate::Retired));
        nodes[0].close(Gate::Ejected);
        assert_eq!(picked(&*picker, &nodes[..2]), 1, "half of two are fit");
    }
}
