//! What the policies that hash have in common: the nodes' keys, and how a node is found.

use std::sync::Arc;

use super::{PickContext, Picker, load_bound::LoadBound, previous_as};
use crate::{
    hash::{mix, xxh64},
    node::Node,
};

/// How many places are looked at before all nodes are. With nine of ten nodes closed or full, one
/// pick in a thousand looks further.
pub(super) const STEPS: usize = 64;

/// The candidates that a hash leads to.
pub(super) trait Table: Send + Sync + 'static {
    /// Indices of nodes in the order in which they are tried, the same for the same hash. At most
    /// [`STEPS`]. An index may appear more than once.
    fn candidates(&self, hash: u64) -> impl Iterator<Item = u32>;
}

/// A node with a weight above 0, and the key by which it is hashed.
#[derive(Debug)]
pub(super) struct Keyed {
    pub(super) key: String,
    pub(super) weight: u32,
    pub(super) index: u32,
}

/// Picks by a table, optionally with bounded load.
pub(super) struct HashedPicker<T> {
    table: Arc<T>,
    members: Arc<Members>,
    bound: Option<LoadBound>,
}

impl<T: Table> HashedPicker<T> {
    /// Reuses the table of the `previous` picker if nodes and weights are the same, so a service
    /// that was only made again changes nothing.
    ///
    /// `make` gets the nodes in the order of their keys. So all clients have the same table,
    /// whatever the order in which their discoveries list the nodes.
    pub(super) fn build(
        nodes: &[Arc<Node>],
        previous: Option<&dyn Picker>,
        factor: Option<f64>,
        make: impl FnOnce(&[Keyed]) -> T,
    ) -> Box<dyn Picker> {
        let keys: Vec<_> = nodes.iter().map(|node| key(node)).collect();
        let members = Members::new(nodes, &keys);
        let bound = factor.map(|factor| LoadBound::new(factor, nodes));
        let same = previous_as::<Self>(previous).filter(|previous| *previous.members == members);
        Box::new(match same {
            Some(same) => Self { table: same.table.clone(), members: same.members.clone(), bound },
            None => {
                let table = Arc::new(make(&in_order(nodes, keys)));
                Self { table, members: Arc::new(members), bound }
            }
        })
    }
}

impl<T: Table> Picker for HashedPicker<T> {
    fn pick(&self, nodes: &[Arc<Node>], cx: &mut PickContext<'_>) -> Option<usize> {
        let hash = hash_of(cx);
        cx.tell(|| format!("the first that is open for the hash {hash:016x}"));
        let mut candidates = self.table.candidates(hash).map(|index| index as usize);
        let Some(bound) = &self.bound else {
            return candidates
                .find(|&index| cx.admits(&nodes[index]))
                .or_else(|| self.members.best(hash, |index| cx.admits(&nodes[index])));
        };
        let mut search = bound.search(nodes, cx);
        let found = candidates.find(|&index| search.takes(index)).or(search.least_loaded());
        let found = found.or_else(|| self.members.best(hash, |index| search.takes(index)));
        search.end(found)
    }
}

/// The request's hash. A request without one is tied to no other, so it gets a random one.
#[inline]
pub(super) fn hash_of(cx: &mut PickContext<'_>) -> u64 {
    cx.hash.unwrap_or_else(|| cx.rng.below_u64(u64::MAX))
}

/// All nodes, in the form that rendezvous hashing uses.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Members {
    all: Box<[Member]>,
    is_even: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Member {
    /// The hash of its key.
    hash: u64,
    weight: u32,
}

impl Members {
    pub(super) fn of(nodes: &[Arc<Node>]) -> Self {
        Self::new(nodes, &nodes.iter().map(|node| key(node)).collect::<Vec<_>>())
    }

    fn new(nodes: &[Arc<Node>], keys: &[String]) -> Self {
        let member = |(node, key): (&Arc<Node>, &String)| Member {
            hash: xxh64(key.as_bytes()),
            // A node that has no weight now, but gets some before the next build, is better than
            // none.
            weight: node.weight().max(1),
        };
        let all: Box<[_]> = nodes.iter().zip(keys).map(member).collect();
        let is_even = all.windows(2).all(|pair| pair[0].weight == pair[1].weight);
        Self { all, is_even }
    }

    /// The node ranked first for `hash`, by weight, among those for which `takes` is true. O(n).
    pub(super) fn best(&self, hash: u64, takes: impl FnMut(usize) -> bool) -> Option<usize> {
        if self.is_even {
            // The logarithm keeps the order, so it is not needed.
            self.least(|member| !mix(hash ^ member.hash), takes)
        } else {
            self.least(|member| cost(hash, member), takes)
        }
    }

    #[inline]
    fn least<C: PartialOrd>(
        &self,
        cost: impl Fn(&Member) -> C,
        mut takes: impl FnMut(usize) -> bool,
    ) -> Option<usize> {
        let mut least: Option<(C, usize)> = None;
        for (index, member) in self.all.iter().enumerate() {
            let cost = cost(member);
            let is_less = least.as_ref().is_none_or(|(least, _)| cost < *least);
            if is_less && takes(index) {
                least = Some((cost, index));
            }
        }
        least.map(|(_, index)| index)
    }
}

/// An exponentially distributed number with the weight as its rate. Each node has the least of
/// several with a probability equal to its share (Schindelhauer and Schomaker 2005).
fn cost(hash: u64, member: &Member) -> f64 {
    const UNIT: f64 = 1.0 / (1_u64 << 53) as f64;
    let uniform = ((mix(hash ^ member.hash) >> 11) as f64 + 0.5) * UNIT;
    -uniform.ln() / f64::from(member.weight)
}

/// The value of `hash_key` in the endpoint's metadata, else its address as it is written.
fn key(node: &Node) -> String {
    let named = node.endpoint().metadata.get("hash_key").filter(|key| !key.is_empty()).cloned();
    named.unwrap_or_else(|| node.address().to_string())
}

/// The nodes with a weight above 0, in the order of their keys.
fn in_order(nodes: &[Arc<Node>], keys: Vec<String>) -> Vec<Keyed> {
    let mut keyed: Vec<_> = (0..)
        .zip(nodes)
        .zip(keys)
        .map(|((index, node), key)| Keyed { key, weight: node.weight(), index })
        .filter(|node| 0 < node.weight)
        .collect();
    keyed.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    keyed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{endpoint::Endpoint, node::Gate, rng::Rng};

    struct First;

    impl Table for First {
        fn candidates(&self, _: u64) -> impl Iterator<Item = u32> {
            std::iter::once(0)
        }
    }

    fn nodes() -> [Arc<Node>; 3] {
        ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]
            .map(|address| Arc::new(Node::new(address.parse().unwrap())))
    }

    /// Whether a table is built for `nodes` after `previous`.
    fn is_made(nodes: &[Arc<Node>], previous: Option<&dyn Picker>) -> bool {
        let mut is_made = false;
        HashedPicker::build(nodes, previous, None, |_| {
            is_made = true;
            First
        });
        is_made
    }

    #[test]
    fn a_table_is_rebuilt_only_if_nodes_or_weights_change() {
        let nodes = nodes();
        let picker = HashedPicker::build(&nodes, None, Some(1.25), |_| First);
        assert!(!is_made(&nodes, Some(&*picker)));
        nodes[1].close(Gate::Ejected);
        assert!(!is_made(&nodes, Some(&*picker)));

        assert!(is_made(&nodes[..2], Some(&*picker)));
        let [a, b, c] = &nodes;
        assert!(is_made(&[b.clone(), a.clone(), c.clone()], Some(&*picker)), "other indices");
        a.update((*a.endpoint()).clone().weight(2));
        assert!(is_made(&nodes, Some(&*picker)));
    }

    #[test]
    fn a_table_gets_its_nodes_in_the_order_of_their_keys() {
        let [a, b, c] = nodes();
        c.update(Endpoint::new(c.address().clone()).metadata("hash_key", "1"));
        b.update((*b.endpoint()).clone().weight(0));
        HashedPicker::build(&[a, b, c], None, None, |keyed| {
            let keys: Vec<_> = keyed.iter().map(|node| (&*node.key, node.index)).collect();
            assert_eq!(keys, [("1", 2), ("10.0.0.1:80", 0)]);
            First
        });
    }

    #[test]
    fn if_no_candidate_is_open_the_best_of_all_other_nodes_is_picked() {
        let nodes = nodes();
        let picker = HashedPicker::build(&nodes, None, None, |_| First);
        nodes[0].close(Gate::Ejected);
        let mut rng = Rng::with_seed(1);
        let mut seen = [0; 3];
        for hash in 0..100 {
            let mut cx = PickContext { hash: Some(mix(hash)), ..PickContext::new(&mut rng) };
            seen[picker.pick(&nodes, &mut cx).unwrap()] += 1;
        }
        assert!(seen[0] == 0 && 30 < seen[1] && 30 < seen[2], "{seen:?}");
    }
}
