//! A share of the traffic for each of several named subsets: canaries, blue and green.

use std::{fmt, sync::Arc};

use super::{
    P2c, PickContext, Picker, Policy, Visit,
    groups::{Groups, holder_of},
    previous_as,
};
use crate::{endpoint::Endpoint, node::Node, time::Timestamp};

/// The name of the subset for endpoints that fit no named subset.
pub const REST: &str = "rest";

/// Gives each named subset of the endpoints its share of the requests. Within a subset, `child`
/// chooses.
///
/// An endpoint belongs to the first subset with a rule that fits it, such as a [`label`] in its metadata,
/// and to [`REST`] if none fits. Weights are relative to each other and do not depend on the number
/// of endpoints: 5 and 95 send one request in twenty to the canary, on one machine or on ten.
///
/// * A request may ask for a subset ([`PickContext::subset`]). It goes there, whatever the weights,
///   as long as a node there takes it. A subset of weight 0 gets only such requests.
/// * Requests of one [hash](PickContext::hash) go to the same subset while weights and subsets stay
///   the same: a user on the canary stays there. If the canary is named first and its weight grows,
///   the users on it stay on it.
/// * If no node of a subset is fit, its share goes to the others, by their weights. So does a
///   request that no node in its subset takes. Subsets of weight 0 take over nothing.
///
/// **Use it** for canaries, blue and green, experiments. **Not** to retire single endpoints (their
/// weight does that), nor for tiers ([`Tiers`](super::Tiers)).
///
/// A pick reads one more counter for each subset than the child's. Compare Envoy's weighted
/// clusters and subsets, Istio's `VirtualService`.
///
/// ```
/// use evenkeel::core::policy::{P2c, Split, split};
///
/// let policy = Split::new(P2c)
///     .subset("canary", 5, split::label("track", "canary"))
///     .rest(95);
/// # let _ = policy;
/// ```
#[derive(Clone)]
pub struct Split<P = P2c> {
    child: P,
    subsets: Vec<Subset>,
    rest: u32,
}

#[derive(Clone)]
struct Subset {
    name: Arc<str>,
    weight: u32,
    fits: Arc<dyn Fn(&Endpoint) -> bool + Send + Sync>,
}

/// A rule for endpoints with this value under this key in their metadata.
pub fn label(
    key: impl Into<String>,
    value: impl Into<String>,
) -> impl Fn(&Endpoint) -> bool + Send + Sync + 'static {
    let (key, value) = (key.into(), value.into());
    move |endpoint| endpoint.metadata.get(&key) == Some(&value)
}

impl<P: Policy> Split<P> {
    /// Makes a policy in which all endpoints belong to [`REST`], of weight 1, until subsets are
    /// named.
    #[must_use]
    pub fn new(child: P) -> Self {
        Self { child, subsets: Vec::new(), rest: 1 }
    }

    /// Adds a subset: its name, its weight relative to the others, and which endpoints belong to
    /// it.
    ///
    /// The rule is called when the set changes, not for each request.
    ///
    /// # Panics
    /// If the name is taken.
    #[must_use]
    pub fn subset(
        mut self,
        name: impl Into<Arc<str>>,
        weight: u32,
        fits: impl Fn(&Endpoint) -> bool + Send + Sync + 'static,
    ) -> Self {
        let name = name.into();
        let is_taken = &*name == REST || self.subsets.iter().any(|subset| subset.name == name);
        assert!(!is_taken, "a subset named `{name}` is there already");
        self.subsets.push(Subset { name, weight, fits: Arc::new(fits) });
        self
    }

    /// Sets the weight of the endpoints that fit no subset. Default: 1.
    #[must_use]
    pub fn rest(mut self, weight: u32) -> Self {
        self.rest = weight;
        self
    }

    fn subset_of(&self, endpoint: &Endpoint) -> usize {
        let fits = |subset: &Subset| (subset.fits)(endpoint);
        self.subsets.iter().position(fits).unwrap_or(self.subsets.len())
    }
}

impl Default for Split {
    fn default() -> Self {
        Self::new(P2c)
    }
}

impl<P: Policy> Policy for Split<P> {
    fn name(&self) -> &'static str {
        "split"
    }

    fn build(&self, nodes: &[Arc<Node>], previous: Option<&dyn Picker>) -> Box<dyn Picker> {
        let previous = previous_as::<SplitPicker>(previous).map(|picker| &picker.subsets);
        let subsets =
            Groups::new(nodes, previous, &self.child, |endpoint| self.subset_of(endpoint));
        let named = subsets.list().iter().map(|group| match self.subsets.get(group.key) {
            Some(subset) => (subset.name.clone(), u64::from(subset.weight)),
            None => (REST.into(), u64::from(self.rest)),
        });
        Box::new(SplitPicker { named: named.collect(), subsets })
    }

    fn latency_decay(&self) -> Option<std::time::Duration> {
        self.child.latency_decay()
    }

    fn reads_time(&self) -> bool {
        self.child.reads_time()
    }
}

impl<P: fmt::Debug> fmt::Debug for Split<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = self.subsets.iter().map(|subset| (&*subset.name, subset.weight));
        f.debug_struct("Split")
            .field("child", &self.child)
            .field("subsets", &named.chain([(REST, self.rest)]).collect::<Vec<_>>())
            .finish()
    }
}

struct SplitPicker {
    /// Keyed by their place in the configuration. Only those that have endpoints.
    subsets: Groups<usize>,
    named: Box<[(Arc<str>, u64)]>,
}

impl SplitPicker {
    /// The weight of a subset, or 0 while none of its nodes is fit.
    #[inline]
    fn worth(&self, subset: usize) -> u64 {
        if self.subsets.list()[subset].fit() == 0 { 0 } else { self.named[subset].1 }
    }

    fn draw(&self, cx: &mut PickContext<'_>) -> usize {
        let worth = (0..self.named.len()).map(|subset| self.worth(subset));
        let sum: u64 = worth.clone().sum();
        if sum == 0 {
            return usize::MAX;
        }
        holder_of(cx.ticket(sum), worth).unwrap_or(usize::MAX)
    }
}

impl Picker for SplitPicker {
    fn pick(&self, _: &[Arc<Node>], cx: &mut PickContext<'_>) -> Option<usize> {
        let groups = self.subsets.list();
        let wished = cx.subset.and_then(|name| self.named.iter().position(|(n, _)| **n == *name));
        if let Some(picked) = wished.and_then(|subset| groups[subset].pick(cx)) {
            cx.tell(|| "the subset that the request wishes for".into());
            return Some(picked);
        }
        let drawn = self.draw(cx);
        cx.tell(|| match self.named.get(drawn) {
            Some((name, weight)) => format!("subset {name}, drawn by its weight of {weight}"),
            None => "no subset has anybody who is fit".into(),
        });
        let picked = groups.get(drawn).and_then(|group| group.pick(cx));
        picked.or_else(|| {
            self.subsets.pick_in_order(drawn, cx, |subset, cx| {
                if self.named[subset].1 == 0 { None } else { groups[subset].pick(cx) }
            })
        })
    }

    fn panics(&self, node: &Node) -> bool {
        self.subsets.list().iter().any(|group| group.panics(node))
    }

    fn tend(&self, now: Timestamp) -> Option<Timestamp> {
        self.subsets.tend(now)
    }

    fn each_probing<'a>(&'a self, _: &'a [Arc<Node>], visit: &mut Visit<'_, 'a>) {
        self.subsets.each_probing(visit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{endpoint::Address, node::Gate, policy::RoundRobin, rng::Rng};

    /// Two canaries and eight others.
    fn nodes() -> Vec<Arc<Node>> {
        (0..10)
            .map(|index| {
                let address = Address::Name { host: format!("n{index}").into(), port: 80 };
                let track = if index < 2 { "canary" } else { "stable" };
                Arc::new(Node::new(Endpoint::new(address).metadata("track", track)))
            })
            .collect()
    }

    fn policy(canary: u32, rest: u32) -> Split<RoundRobin> {
        Split::new(RoundRobin).subset("canary", canary, label("track", "canary")).rest(rest)
    }

    fn share_of_canary(picker: &dyn Picker, nodes: &[Arc<Node>], subset: Option<&str>) -> f64 {
        let mut rng = Rng::with_seed(5);
        let mut pick = || {
            let mut cx = PickContext { subset, ..PickContext::new(&mut rng) };
            picker.pick(nodes, &mut cx).unwrap()
        };
        (0..20_000).filter(|_| pick() < 2).count() as f64 / 20_000.0
    }

    #[test]
    fn a_subset_gets_its_share_whatever_its_size() {
        let nodes = nodes();
        let picker = policy(5, 95).build(&nodes, None);
        assert!((share_of_canary(&*picker, &nodes, None) - 0.05).abs() < 0.005);
    }

    #[test]
    fn the_share_of_a_subset_that_is_ill_goes_to_the_others() {
        let nodes = nodes();
        let picker = policy(50, 50).build(&nodes, None);
        nodes[..2].iter().for_each(|node| _ = node.close(Gate::Unhealthy));
        assert_eq!(share_of_canary(&*picker, &nodes, None), 0.0);
        nodes[..2].iter().for_each(|node| _ = node.open(Gate::Unhealthy));
        nodes[2..].iter().for_each(|node| _ = node.close(Gate::Limit));
        assert_eq!(share_of_canary(&*picker, &nodes, None), 1.0);
    }

    #[test]
    fn a_request_gets_the_subset_that_it_asks_for() {
        let nodes = nodes();
        let picker = policy(0, 1).build(&nodes, None);
        assert_eq!(share_of_canary(&*picker, &nodes, None), 0.0);
        assert_eq!(share_of_canary(&*picker, &nodes, Some("canary")), 1.0);
        assert_eq!(share_of_canary(&*picker, &nodes, Some("rest")), 0.0);
        assert_eq!(share_of_canary(&*picker, &nodes, Some("unheard of")), 0.0);
    }

    #[test]
    fn a_subset_without_weight_takes_over_no_requests() {
        let nodes = nodes();
        let picker = policy(0, 1).build(&nodes, None);
        nodes[2..].iter().for_each(|node| _ = node.close(Gate::Ejected));
        assert_eq!(picker.pick(&nodes, &mut PickContext::new(&mut Rng::with_seed(1))), None);
    }

    #[test]
    fn a_key_on_the_canary_stays_there_while_the_canary_grows() {
        let nodes = nodes();
        let mut rng = Rng::with_seed(1);
        let mut before: Vec<u64> = Vec::new();
        for (canary, rest) in [(5, 95), (20, 80), (60, 40)] {
            let picker = policy(canary, rest).build(&nodes, None);
            let mut is_on = |hash: u64| {
                let hash = Some(hash.wrapping_mul(0x2545_F491_4F6C_DD1D));
                let mut cx = PickContext { hash, ..PickContext::new(&mut rng) };
                picker.pick(&nodes, &mut cx).unwrap() < 2
            };
            assert!(before.iter().all(|&hash| is_on(hash)));
            before = (0..2_000).filter(|&hash| is_on(hash)).collect();
            let share = before.len() as f64 / 2_000.0;
            assert!((share - f64::from(canary) / 100.0).abs() < 0.02, "{share} for {canary}");
        }
    }
}
