//! Slow start: a node that is new, or just back, gets less at first.

use std::{sync::Arc, time::Duration};

use super::{P2c, PickContext, Picker, Policy, Visit, previous_as};
use crate::{node::Node, time::Timestamp};

/// How many nodes may be turned down for one request.
const MAX_TURNED_DOWN: usize = 8;

/// Room for nodes that must be avoided in any case, and for those that are turned down.
const MAX_AVOIDED: usize = 32;

/// Gives a node that is new, or back from an ejection, a growing share of what `child` would give
/// it.
///
/// A cold endpoint has empty caches, no connections to its database and code that is not compiled
/// yet. Policies that look at load make it worse: the endpoint is idle, so everything goes there.
/// When `child` chooses a node that is warming up, the choice stands with a probability that grows
/// over the window. Otherwise the child chooses again without that node. The probability is:
///
/// `max(min_share, (elapsed / window) ^ (1 / aggression))`
///
/// So this works over every policy. Over those that use weights, it is as if the weight grew. Over
/// `p2c`, `least_loaded` and `peak_ewma`, which do not use weights, the share grows just the same.
/// (Curve and defaults are Envoy's. Envoy changes weights, which its random and hashing balancers
/// do not have.) A request with a [hash](PickContext::hash) moves to a node once, when the node is
/// warm enough for it, and stays.
///
/// The window begins with the first request that might go to the node: after it has joined, and
/// after one of its gates [of health](crate::node::Gate::is_of_health) has opened. The endpoints
/// present when a client starts are warm, since none of them is newer than the others. A node is
/// not turned down if there is no better one.
///
/// **Use it** where endpoints are slow at first: a JIT, caches, lazy connections. **Not** where
/// they come and go faster than the window: the few warm ones would carry the others' share.
///
/// A pick reads the clock once more than the child's. While nodes warm up, each node that is turned
/// down costs another pick by the child, up to eight times.
///
/// ```
/// use std::time::Duration;
/// use evenkeel::core::policy::{LeastLoaded, SlowStart};
///
/// let policy = SlowStart::new(Duration::from_secs(60), LeastLoaded).aggression(1.5).min_share(0.05);
/// # let _ = policy;
/// ```
#[derive(Clone, Copy, Debug)]
pub struct SlowStart<P = P2c> {
    child: P,
    curve: Curve,
}

#[derive(Clone, Copy, Debug)]
struct Curve {
    window: Duration,
    aggression: f64,
    min_share: f64,
}

impl<P: Policy> SlowStart<P> {
    /// Makes the policy. A node has its full share after `window`. `child` chooses.
    ///
    /// # Panics
    /// If `window` is zero, or longer than 30 days.
    #[must_use]
    pub fn new(window: Duration, child: P) -> Self {
        assert!(Duration::ZERO < window, "a start takes time");
        assert!(window <= Duration::from_secs(30 * 86_400), "ticks wrap after 52 days");
        Self { child, curve: Curve { window, aggression: 1.0, min_share: 0.1 } }
    }

    /// With a window of 30 seconds.
    pub(super) fn over(child: P) -> Self {
        Self::new(Duration::from_secs(30), child)
    }

    /// Sets how steeply the share grows at first. Default: 1, evenly.
    ///
    /// Above 1 most of the growth comes early, below 1 late.
    ///
    /// # Panics
    /// If it is not above 0, or not a number.
    #[must_use]
    pub fn aggression(mut self, aggression: f64) -> Self {
        assert!(0.0 < aggression && aggression.is_finite(), "an exponent is 1 / aggression");
        self.curve.aggression = aggression;
        self
    }

    /// Sets the share with which a node begins. Default: 0.1.
    ///
    /// With 0, a node gets nothing until some time has passed, and its connections are not made
    /// before then.
    ///
    /// # Panics
    /// If it is not in `0.0..=1.0`.
    #[must_use]
    pub fn min_share(mut self, share: f64) -> Self {
        assert!((0.0..=1.0).contains(&share), "a share of what others get");
        self.curve.min_share = share;
        self
    }
}

impl Default for SlowStart {
    /// 30 seconds, over the less busy of two.
    fn default() -> Self {
        Self::over(P2c)
    }
}

impl Curve {
    /// The share of a node that began `elapsed` ago. `None` once it is warm.
    fn share(&self, elapsed: Duration) -> Option<f64> {
        if self.window <= elapsed {
            return None;
        }
        // As in Envoy, this does not begin at zero: with an aggression far above 1 the curve is too
        // steep there.
        let elapsed = elapsed.max(Duration::from_secs(1).min(self.window));
        let passed = elapsed.as_secs_f64() / self.window.as_secs_f64();
        Some(passed.powf(1.0 / self.aggression).max(self.min_share))
    }
}

impl<P: Policy> Policy for SlowStart<P> {
    fn name(&self) -> &'static str {
        "slow_start"
    }

    fn build(&self, nodes: &[Arc<Node>], previous: Option<&dyn Picker>) -> Box<dyn Picker> {
        let previous = previous_as::<SlowStartPicker>(previous);
        if previous.is_none_or(|previous| previous.is_empty) {
            nodes.iter().for_each(|node| node.warmed_up());
        }
        let child = self.child.build(nodes, previous.map(|previous| &*previous.child));
        Box::new(SlowStartPicker { curve: self.curve, is_empty: nodes.is_empty(), child })
    }

    fn latency_decay(&self) -> Option<Duration> {
        self.child.latency_decay()
    }

    fn reads_time(&self) -> bool {
        true
    }
}

struct SlowStartPicker {
    curve: Curve,
    is_empty: bool,
    child: Box<dyn Picker>,
}

impl Picker for SlowStartPicker {
    fn pick(&self, nodes: &[Arc<Node>], cx: &mut PickContext<'_>) -> Option<usize> {
        let picked = self.child.pick(nodes, cx)?;
        if nodes[picked].is_warm() {
            Some(picked)
        } else {
            Some(self.pick_again(nodes, picked, cx))
        }
    }

    fn panics(&self, node: &Node) -> bool {
        self.child.panics(node)
    }

    fn tend(&self, now: Timestamp) -> Option<Timestamp> {
        self.child.tend(now)
    }

    fn each_probing<'a>(&'a self, nodes: &'a [Arc<Node>], visit: &mut Visit<'_, 'a>) {
        self.child.each_probing(nodes, visit);
    }
}

impl SlowStartPicker {
    /// Returns the first node that is not turned down.
    #[cold]
    fn pick_again(&self, nodes: &[Arc<Node>], first: usize, cx: &mut PickContext<'_>) -> usize {
        let mut avoid = [0; MAX_AVOIDED];
        let given = cx.avoid.len();
        if MAX_AVOIDED < given + MAX_TURNED_DOWN {
            return first;
        }
        avoid[..given].copy_from_slice(cx.avoid);
        let mut picked = first;
        for count in given..given + MAX_TURNED_DOWN {
            if self.lets_in(&nodes[picked], cx) {
                return picked;
            }
            cx.tell(|| format!("{} warms up, and is turned down", nodes[picked].address()));
            avoid[count] = nodes[picked].id();
            let mut others = PickContext { rng: &mut *cx.rng, avoid: &avoid[..=count], ..*cx };
            match self.child.pick(nodes, &mut others) {
                Some(other) => picked = other,
                None => return first,
            }
        }
        // No node is warm, so they share as the child says.
        first
    }

    fn lets_in(&self, node: &Node, cx: &mut PickContext<'_>) -> bool {
        const TICKETS: u64 = 1 << 32;
        let share = node.warming_for(cx.now).map(|elapsed| self.curve.share(elapsed));
        match share {
            None => true,
            Some(None) => {
                node.warmed_up();
                true
            }
            Some(Some(share)) => (cx.ticket(TICKETS) as f64) < share * TICKETS as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        endpoint::Endpoint,
        node::Gate,
        policy::{BUILT_IN, BuiltIn, LeastLoaded, laws::Spread},
        rng::Rng,
        time::Timestamp,
    };

    const WINDOW: Duration = Duration::from_secs(60);

    fn nodes(count: u16) -> Vec<Arc<Node>> {
        let endpoint = |port| Endpoint::new(std::net::SocketAddr::from(([10, 0, 0, 1], port)));
        (1..=count).map(|port| Arc::new(Node::new(endpoint(port)))).collect()
    }

    fn at(seconds: f64) -> Timestamp {
        Timestamp::from_nanos((1 << 50) + (seconds * 1e9) as u64)
    }

    /// The share of node `index`, in percent of an even share.
    fn share(picker: &dyn Picker, nodes: &[Arc<Node>], index: usize, now: Timestamp) -> f64 {
        let mut rng = Rng::with_seed(9);
        let mut pick =
            || picker.pick(nodes, &mut PickContext { now, ..PickContext::new(&mut rng) }).unwrap();
        (0..8_000).filter(|_| pick() == index).count() as f64 / 80.0 * nodes.len() as f64
    }

    #[test]
    fn the_curve_is_that_of_envoy() {
        let curve = |aggression| Curve { window: WINDOW, aggression, min_share: 0.1 };
        let share = |aggression, seconds| curve(aggression).share(Duration::from_secs(seconds));
        assert_eq!(share(1.0, 0), Some(0.1));
        assert_eq!(share(1.0, 30), Some(0.5));
        assert_eq!(share(2.0, 15), Some(0.5));
        assert_eq!(share(0.5, 30), Some(0.25));
        assert_eq!(share(1.0, 60), None);
    }

    #[test]
    fn a_node_that_comes_back_grows_into_its_share_under_every_policy() {
        // Those that hash give some nodes more than others, and a slow start over another has the
        // share of the share.
        let spreads = |policy: &&BuiltIn| policy.spread != Spread::Not && !policy.hashes();
        let fits = |policy: &&BuiltIn| spreads(policy) && policy.name != "slow_start";
        for policy in BUILT_IN.iter().filter(fits) {
            let (nodes, name) = (nodes(10), policy.name);
            let policy = SlowStart::new(WINDOW, policy.make());
            let picker = policy.build(&nodes, None);
            assert!((share(&*picker, &nodes, 4, at(0.0)) - 100.0).abs() < 10.0, "{name}");

            nodes[4].close(Gate::Ejected);
            nodes[4].open(Gate::Ejected);

            let shares = [1.0, 31.0, 62.0].map(|second| share(&*picker, &nodes, 4, at(second)));
            let expected = [10.0, 50.0, 100.0];
            let fits = shares.iter().zip(expected).all(|(share, e)| (share - e).abs() < 12.0);
            assert!(fits, "{name}: {shares:?}");
        }
    }

    #[test]
    fn least_loaded_does_not_flood_an_idle_newcomer() {
        let nodes = nodes(10);
        let policy = SlowStart::new(WINDOW, LeastLoaded);
        let picker = policy.build(&nodes[..9], None);
        nodes[..9].iter().for_each(|node| node.enter());
        let picker = policy.build(&nodes, Some(&*picker));

        // Without a slow start it would get everything: ten times its share.
        let share = share(&*picker, &nodes, 9, at(0.0));
        assert!((80.0..120.0).contains(&share), "{share} of 1000");
    }

    #[test]
    fn nodes_that_were_there_at_the_start_are_warm() {
        let nodes = nodes(10);
        let policy = SlowStart::new(WINDOW, P2c);
        let empty = policy.build(&[], None);
        policy.build(&nodes[..8], Some(&*empty));
        assert!(nodes[..8].iter().all(|node| node.is_warm()));
        assert!(!nodes[8].is_warm());
    }

    #[test]
    fn if_no_node_is_warm_all_share_equally() {
        let nodes = nodes(4);
        let policy = SlowStart::new(WINDOW, P2c);
        let picker = policy.build(&nodes, None);
        for node in &nodes {
            node.close(Gate::Unhealthy);
            node.open(Gate::Unhealthy);
        }
        let shares: Vec<_> = (0..4).map(|index| share(&*picker, &nodes, index, at(1.0))).collect();
        assert!(shares.iter().all(|share| (share - 100.0).abs() < 10.0), "{shares:?}");
    }

    #[test]
    fn a_key_moves_to_a_warming_node_once_and_stays() {
        let nodes = nodes(2);
        let policy = SlowStart::new(WINDOW, crate::policy::PickFirst);
        let picker = policy.build(&nodes, None);
        nodes[0].close(Gate::Ejected);
        nodes[0].open(Gate::Ejected);
        let mut rng = Rng::with_seed(1);
        let mut came = 0;
        for hash in 0..200_u64 {
            let mut is_there = false;
            for second in 0..70 {
                let hash = Some(hash.wrapping_mul(0x2545_F491_4F6C_DD1D));
                let now = at(f64::from(second));
                let mut cx = PickContext { hash, now, ..PickContext::new(&mut rng) };
                let is_there_now = picker.pick(&nodes, &mut cx) == Some(0);
                assert!(is_there_now || !is_there);
                came += u32::from(is_there_now && !is_there);
                is_there = is_there_now;
            }
            nodes[0].close(Gate::Ejected);
            nodes[0].open(Gate::Ejected);
        }
        assert_eq!(came, 200);
    }

    #[test]
    fn a_clock_that_stops_or_goes_back_does_no_harm() {
        let nodes = nodes(3);
        let policy = SlowStart::new(WINDOW, P2c);
        let picker = policy.build(&nodes, None);
        nodes[0].close(Gate::Ejected);
        nodes[0].open(Gate::Ejected);
        for now in [at(5.0), at(0.0), Timestamp::default(), Timestamp::from_nanos(u64::MAX)] {
            assert!(share(&*picker, &nodes, 1, now) > 0.0);
        }
    }
}
