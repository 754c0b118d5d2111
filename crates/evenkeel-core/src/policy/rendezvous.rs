//! Rendezvous: requests of the same key to the node that ranks highest for it.

use std::sync::Arc;

use super::{
    PickContext, Picker, Policy,
    hashed::{Members, hash_of},
    load_bound::{LoadBound, checked},
};
use crate::node::Node;

/// Ranks all nodes for the request's hash, by weight, and chooses the first that takes it.
///
/// Highest random weight (Thaler and Ravishankar 1998), weighted by the logarithmic method
/// (Schindelhauer and Schomaker 2005). Whether one node ranks before another depends on those two
/// alone. So when a node leaves, exactly its keys move, to all others by their weights. When a node
/// joins, exactly the keys that it gains move.
///
/// **Use it** for up to some hundred endpoints, where no key may move unnecessarily and shares must
/// be exact. **Not** for thousands: a pick costs O(n), about five nanoseconds for each node where
/// weights differ, which is 5 µs for 1,000. There [`Maglev`](super::Maglev) and
/// [`Ketama`](super::Ketama) cost the same for any number.
///
/// If a request's node is closed, full or already tried, it goes to the next in its ranking. A
/// request without a hash gets a random one: see [`Hints::hash`](crate::traffic::Hints::hash).
/// Nothing has to be built but 16 bytes a node. An endpoint's key is the value of `hash_key` in its
/// metadata, else its address as it is written.
///
/// ```
/// use std::sync::Arc;
/// use evenkeel::core::{hash::xxh64, node::Node, policy::{PickContext, Policy, Rendezvous}, rng::Rng};
///
/// let nodes: Vec<_> = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]
///     .map(|address| Arc::new(Node::new(address.parse().unwrap())))
///     .into();
/// let picker = Rendezvous::new().build(&nodes, None);
/// let mut rng = Rng::with_seed(1);
/// let mut cx = PickContext { hash: Some(xxh64(b"alice")), ..PickContext::new(&mut rng) };
/// assert_eq!(picker.pick(&nodes, &mut cx), picker.pick(&nodes, &mut cx));
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Rendezvous {
    factor: Option<f64>,
}

impl Rendezvous {
    /// Ranks without a bound.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bounds what a node may have in flight to `factor` times its share. Default: no bound. 1.25
    /// is usual.
    ///
    /// See [`RingHash::bounded_load`](super::RingHash::bounded_load).
    ///
    /// # Panics
    /// If `factor` is less than 1 or not a number.
    #[must_use]
    pub fn bounded_load(mut self, factor: f64) -> Self {
        self.factor = Some(checked(factor));
        self
    }
}

impl Policy for Rendezvous {
    fn name(&self) -> &'static str {
        "rendezvous"
    }

    fn build(&self, nodes: &[Arc<Node>], _: Option<&dyn Picker>) -> Box<dyn Picker> {
        let bound = self.factor.map(|factor| LoadBound::new(factor, nodes));
        Box::new(RendezvousPicker { members: Members::of(nodes), bound })
    }
}

struct RendezvousPicker {
    members: Members,
    bound: Option<LoadBound>,
}

impl Picker for RendezvousPicker {
    fn pick(&self, nodes: &[Arc<Node>], cx: &mut PickContext<'_>) -> Option<usize> {
        let hash = hash_of(cx);
        let Some(bound) = &self.bound else {
            return self.members.best(hash, |index| cx.admits(&nodes[index]));
        };
        let mut search = bound.search(nodes, cx);
        let found = self.members.best(hash, |index| search.takes(index));
        search.end(found)
    }
}
