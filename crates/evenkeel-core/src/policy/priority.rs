//! Tiers: the next tier takes over as much as the first cannot carry.

use std::sync::Arc;

use super::{
    P2c, PickContext, Picker, Policy, Visit,
    groups::{Group, Groups, holder_of},
    previous_as,
};
use crate::{node::Node, time::Timestamp};

/// Sends requests to the endpoints of tier 0, and to the next tier only what tier 0 cannot carry.
///
/// The tier is an endpoint's [`priority`](crate::endpoint::Endpoint::priority). Within a tier
/// another policy chooses. What a tier can carry is the share of its nodes that is fit, times a
/// factor of 1.4. So up to 28 of 100 nodes may be unfit before any request goes elsewhere. Beyond
/// that, a tier loses requests as it loses nodes and gets them back in the same way. There is no
/// abrupt switch.
///
/// | fit in tier 0 | fit in tier 1 | tier 0 gets | tier 1 gets |
/// |---|---|---|---|
/// | 72 % | all | 100 % | |
/// | 71 % | all | 99 % | 1 % |
/// | 50 % | all | 70 % | 30 % |
/// | none | all | | 100 % |
/// | 25 % | 25 % | 50 %, in panic | 50 %, in panic |
///
/// If all tiers together cannot carry everything, a tier with fewer than half of its nodes fit
/// panics: its unfit nodes are used, too, since the few fit ones would be overloaded. If all panic,
/// requests spread by the number of nodes in each tier. If a tier has fit nodes but none of them is
/// free, the other tiers are asked in order.
///
/// **Use it** for a stand-by: another region, a smaller fleet, an older version. **Not** to prefer
/// nearby endpoints when all of them serve the same traffic: that is
/// [`ZoneAware`](super::ZoneAware).
///
/// A node is unfit if it is ejected, unhealthy, not checked yet, broken, drained, or its breaker is
/// open. A node that is full for the moment is fit. Requests of one [hash](PickContext::hash) go to
/// the same tier while the loads stay the same. A pick reads one more counter for each tier than
/// the child's, and nothing that grows with the fleet. A gate that changes costs a lock of its
/// node. Formulas and defaults are Envoy's (priority levels, panic threshold). Their gRPC
/// counterpart (A56) switches tiers as a whole.
///
/// ```
/// use std::sync::Arc;
/// use evenkeel::core::{
///     endpoint::Endpoint,
///     node::{Gate, Node},
///     policy::{PickContext, Policy, Tiers, RoundRobin},
///     rng::Rng,
/// };
///
/// let endpoint = |address: &str| address.parse::<Endpoint>().unwrap();
/// let (first, second) = (endpoint("10.0.0.1:80"), endpoint("10.1.0.1:80").priority(1));
/// let nodes = [first, second].map(|endpoint| Arc::new(Node::new(endpoint)));
/// let picker = Tiers::new(RoundRobin).build(&nodes, None);
/// let mut rng = Rng::with_seed(1);
///
/// assert_eq!(picker.pick(&nodes, &mut PickContext::new(&mut rng)), Some(0));
/// nodes[0].close(Gate::Unhealthy);
/// assert_eq!(picker.pick(&nodes, &mut PickContext::new(&mut rng)), Some(1));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Tiers<P = P2c> {
    child: P,
    overprovisioning: u32,
    panic_threshold: u32,
}

impl<P: Policy> Tiers<P> {
    /// Makes the policy. `child` chooses within each tier.
    #[must_use]
    pub fn new(child: P) -> Self {
        Self { child, overprovisioning: 140, panic_threshold: 50 }
    }

    /// Sets how much a fit node can carry, in percent of its share. Default: 140, Envoy's.
    ///
    /// With 100, requests go to the next tier as soon as one node is unfit. With a very high value,
    /// they go there only when nearly all nodes are unfit, and the remaining ones are overloaded.
    ///
    /// # Panics
    /// If it is less than 100.
    #[must_use]
    pub fn overprovisioning(mut self, percent: u32) -> Self {
        assert!(100 <= percent, "a node carries its own share");
        self.overprovisioning = percent;
        self
    }

    /// Sets how many nodes of a tier must be fit, in percent. Below that, its unfit nodes are used,
    /// too, if no tier can take over. Default: 50, Envoy's. 0 turns it off.
    ///
    /// # Panics
    /// If it is more than 100.
    #[must_use]
    pub fn panic_threshold(mut self, percent: u32) -> Self {
        assert!(percent <= 100, "no more than all nodes are fit");
        self.panic_threshold = percent;
        self
    }
}

impl Default for Tiers {
    fn default() -> Self {
        Self::new(P2c)
    }
}

impl<P: Policy> Policy for Tiers<P> {
    fn name(&self) -> &'static str {
        "priority"
    }

    fn build(&self, nodes: &[Arc<Node>], previous: Option<&dyn Picker>) -> Box<dyn Picker> {
        let previous = previous_as::<PriorityPicker>(previous).map(|picker| &picker.tiers);
        let tiers = Groups::new(nodes, previous, &self.child, |endpoint| endpoint.priority);
        Box::new(PriorityPicker {
            tiers,
            overprovisioning: self.overprovisioning.into(),
            panic_threshold: self.panic_threshold.into(),
        })
    }

    fn latency_decay(&self) -> Option<std::time::Duration> {
        self.child.latency_decay()
    }

    fn reads_time(&self) -> bool {
        self.child.reads_time()
    }
}

struct PriorityPicker {
    tiers: Groups<u32>,
    overprovisioning: u64,
    panic_threshold: u64,
}

impl Picker for PriorityPicker {
    fn pick(&self, _: &[Arc<Node>], cx: &mut PickContext<'_>) -> Option<usize> {
        let first = self.tiers.list().first()?;
        let (tier, is_short) =
            if self.capacity(first) == FULL { (0, false) } else { self.draw(cx) };
        let pick = |tier: usize, cx: &mut PickContext<'_>| self.pick_in(tier, is_short, cx);
        pick(tier, cx).or_else(|| self.tiers.pick_in_order(tier, cx, pick))
    }

    fn panics(&self, node: &Node) -> bool {
        let tier = self.tiers.find(&node.endpoint().priority);
        tier.is_some_and(|tier| self.is_short() && self.is_in_panic(tier) || tier.panics(node))
    }

    fn tend(&self, now: Timestamp) -> Option<Timestamp> {
        self.tiers.tend(now)
    }

    fn each_probing<'a>(&'a self, _: &'a [Arc<Node>], visit: &mut Visit<'_, 'a>) {
        self.tiers.each_probing(visit);
    }
}

/// A capacity, or a load, of 100 %.
const FULL: u64 = 100;

impl PriorityPicker {
    /// What a tier can carry, in percent of the total load.
    #[inline]
    fn capacity(&self, tier: &Group<u32>) -> u64 {
        (self.overprovisioning * tier.fit() / tier.len()).min(FULL)
    }

    fn capacities(&self) -> impl Iterator<Item = u64> + Clone {
        self.tiers.list().iter().map(|tier| self.capacity(tier))
    }

    /// Whether all tiers together cannot carry everything, although some node is fit.
    fn is_short(&self) -> bool {
        self.capacities().sum::<u64>() < FULL && 0 < self.tiers.fit()
    }

    fn is_in_panic(&self, tier: &Group<u32>) -> bool {
        FULL * tier.fit() < self.panic_threshold * tier.len()
    }

    /// The tier for this request, and whether capacity is short.
    #[cold]
    fn draw(&self, cx: &mut PickContext<'_>) -> (usize, bool) {
        let is_short = self.is_short();
        let tiers = self.tiers.list();
        let is_lost =
            0 == self.tiers.fit() || is_short && tiers.iter().all(|t| self.is_in_panic(t));
        if is_lost {
            let ticket = cx.ticket(tiers.iter().map(Group::len).sum());
            let tier = holder_of(ticket, tiers.iter().map(Group::len));
            return (tier.unwrap_or(0), is_short);
        }
        (tier_of(cx.ticket(FULL), self.capacities()), is_short)
    }

    fn pick_in(&self, tier: usize, is_short: bool, cx: &mut PickContext<'_>) -> Option<usize> {
        let tier = &self.tiers.list()[tier];
        cx.tell(|| {
            format!(
                "tier {}, of which {} of {} are fit and {} % can be carried",
                tier.key,
                tier.fit(),
                tier.len(),
                self.capacity(tier)
            )
        });
        if !is_short || cx.fails_open || !self.is_in_panic(tier) {
            return tier.pick(cx);
        }
        cx.tell(|| "no tier can take over: in panic, the ill are used, too".into());
        cx.fails_open = true;
        let picked = tier.pick(cx);
        cx.fails_open = false;
        picked
    }
}

/// The tier that has this ticket of a hundred. Loads are filled in order, in whole percent. What is
/// left over by rounding goes to the first tier that can carry anything.
fn tier_of(ticket: u64, capacities: impl Iterator<Item = u64> + Clone) -> usize {
    let sum = capacities.clone().sum::<u64>().clamp(1, FULL);
    let loads = capacities.clone().map(|capacity| capacity * FULL / sum);
    let can_carry = |capacity| 0 < capacity;
    holder_of(ticket, loads).or_else(|| capacities.into_iter().position(can_carry)).unwrap_or(0)
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

    /// Tiers of 100 nodes, with the given numbers of fit ones.
    fn tiers(fit: &[usize]) -> Vec<Arc<Node>> {
        let mut nodes = Vec::new();
        for (tier, &fit) in (0..).zip(fit) {
            for index in 0..100 {
                let address = Address::Name { host: format!("n{tier}-{index}").into(), port: 80 };
                let node = Node::new(Endpoint::new(address).priority(tier));
                if fit <= index {
                    node.close(Gate::Unhealthy);
                }
                nodes.push(Arc::new(node));
            }
        }
        nodes
    }

    fn loads(fit: &[usize]) -> Vec<usize> {
        let nodes = tiers(fit);
        let groups = Groups::new(&nodes, None, &P2c, |endpoint| endpoint.priority);
        let picker = PriorityPicker { tiers: groups, overprovisioning: 140, panic_threshold: 50 };
        let mut loads = vec![0; fit.len()];
        for ticket in 0..100 {
            loads[tier_of(ticket, picker.capacities())] += 1;
        }
        loads
    }

    #[test]
    fn loads_are_those_of_envoy() {
        for (fit, expected) in [
            (100, [100, 0]),
            (72, [100, 0]),
            (71, [99, 1]),
            (50, [70, 30]),
            (25, [35, 65]),
            (0, [0, 100]),
        ] {
            assert_eq!(loads(&[fit, 100]), expected, "{fit} %");
        }
        assert_eq!(loads(&[25, 25]), [50, 50]);
        assert_eq!(loads(&[25, 25, 100]), [35, 35, 30]);
    }

    /// Requests for each tier, and how many went to closed nodes.
    fn picks(nodes: &[Arc<Node>], policy: &dyn Policy) -> (Vec<u32>, u32) {
        let picker = policy.build(nodes, None);
        let mut rng = Rng::with_seed(7);
        let (mut counts, mut closed) = (vec![0; 3], 0);
        for _ in 0..10_000 {
            let picked = picker.pick(nodes, &mut PickContext::new(&mut rng)).unwrap();
            counts[nodes[picked].endpoint().priority as usize] += 1;
            closed += u32::from(!nodes[picked].is_open());
        }
        (counts, closed)
    }

    #[test]
    fn requests_follow_the_loads_as_gates_change() {
        let nodes = tiers(&[100, 100]);
        let policy = Tiers::new(RoundRobin);
        let picker = policy.build(&nodes, None);
        let mut rng = Rng::with_seed(3);
        let mut share = || {
            let mut cx = |_| picker.pick(&nodes, &mut PickContext::new(&mut rng)).unwrap() < 100;
            (0..20_000).filter(|index| cx(*index)).count() as f64 / 20_000.0
        };

        assert_eq!(share(), 1.0);
        nodes[..50].iter().for_each(|node| _ = node.close(Gate::Ejected));
        assert!((share() - 0.7).abs() < 0.02, "half of tier 0 is gone");
        nodes[..50].iter().for_each(|node| _ = node.open(Gate::Ejected));
        assert_eq!(share(), 1.0);
    }

    #[test]
    fn tiers_that_cannot_carry_all_requests_panic_and_use_all_nodes() {
        let (counts, closed) = picks(&tiers(&[25, 25]), &Tiers::new(RoundRobin));
        assert!((4_600..5_400).contains(&counts[0]), "{counts:?}");
        assert!((7_200..7_800).contains(&closed), "{closed} at the ill three quarters");

        let off = Tiers::new(RoundRobin).panic_threshold(0);
        assert_eq!(picks(&tiers(&[25, 25]), &off).1, 0);
    }

    #[test]
    fn no_tier_panics_while_another_can_take_over() {
        let (counts, closed) = picks(&tiers(&[10, 100]), &Tiers::new(RoundRobin));
        assert!((1_200..1_600).contains(&counts[0]), "{counts:?}");
        assert_eq!(closed, 0);
    }

    #[test]
    fn a_picker_panics_for_the_nodes_of_tiers_in_panic_alone() {
        let nodes = tiers(&[5, 65]);
        let picker = Tiers::new(RoundRobin).build(&nodes, None);
        assert!(picker.panics(&nodes[99]));
        assert!(!picker.panics(&nodes[199]), "65 % are enough");
    }

    #[test]
    fn a_tier_that_is_full_leaves_requests_to_the_next() {
        let nodes = tiers(&[100, 100]);
        let picker = Tiers::new(RoundRobin).build(&nodes, None);
        nodes[..100].iter().for_each(|node| _ = node.close(Gate::Limit));
        let picked = picker.pick(&nodes, &mut PickContext::new(&mut Rng::with_seed(1)));
        assert!(100 <= picked.unwrap());
    }

    #[test]
    fn requests_of_one_hash_stay_in_one_tier() {
        let nodes = tiers(&[50, 100]);
        let picker = Tiers::new(RoundRobin).build(&nodes, None);
        let mut rng = Rng::with_seed(1);
        let mut in_first = 0;
        for hash in 0..1_000_u64 {
            let mut tier = || {
                let hash = Some(hash.wrapping_mul(0x9E37_79B9_7F4A_7C15));
                let mut cx = PickContext { hash, ..PickContext::new(&mut rng) };
                nodes[picker.pick(&nodes, &mut cx).unwrap()].endpoint().priority
            };
            let first = tier();
            assert!((0..5).all(|_| tier() == first));
            in_first += u32::from(first == 0);
        }
        assert!((650..750).contains(&in_first), "{in_first} of 1000");
    }

    #[test]
    fn the_turns_of_a_tier_go_on_when_the_set_changes() {
        let nodes = tiers(&[100, 100]);
        let policy = Tiers::new(RoundRobin);
        let mut rng = Rng::with_seed(1);
        let mut picker = policy.build(&nodes, None);
        let mut pick = |picker: &dyn Picker| {
            picker.pick(&nodes, &mut PickContext::new(&mut rng)).expect("all are open")
        };
        let first = pick(&*picker);
        for turn in 1..300 {
            assert_eq!(pick(&*picker), (first + turn) % 100);
            picker = policy.build(&nodes, Some(&*picker));
        }
    }
}
