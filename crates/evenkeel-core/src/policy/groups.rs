//! A set of nodes divided into groups, each with its own picker.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    PickContext, Picker, Policy, Visit,
    census::{Census, Roll},
};
use crate::{endpoint::Endpoint, node::Node, time::Timestamp};

/// The nodes in groups by a key, in the order of the keys.
///
/// A group's picker and its counts survive changes of the set, as long as the group exists.
pub(super) struct Groups<K> {
    roll: Arc<Roll>,
    whole: Arc<Census>,
    list: Box<[Group<K>]>,
}

/// The nodes with one key.
pub(super) struct Group<K> {
    pub(super) key: K,
    census: Arc<Census>,
    nodes: Box<[Arc<Node>]>,
    /// The place of each node in the whole set.
    places: Box<[u32]>,
    picker: Box<dyn Picker>,
}

/// Nodes, and the place of each in the whole set.
type Part = (Vec<Arc<Node>>, Vec<u32>);

impl<K: Ord> Groups<K> {
    pub(super) fn new(
        nodes: &[Arc<Node>],
        previous: Option<&Self>,
        policy: &dyn Policy,
        key: impl Fn(&Endpoint) -> K,
    ) -> Self {
        let mut parts: BTreeMap<K, Part> = BTreeMap::new();
        for (place, node) in (0..).zip(nodes) {
            let (nodes, places) = parts.entry(key(&node.endpoint())).or_default();
            nodes.push(node.clone());
            places.push(place);
        }
        let roll = previous.map_or_else(Arc::default, |previous| previous.roll.clone());
        let whole = previous.map_or_else(Arc::default, |previous| previous.whole.clone());
        let group = |(key, (nodes, places)): (K, Part)| {
            let before = previous.and_then(|previous| previous.find(&key));
            let census = before.map(|before| before.census.clone());
            let census = census.unwrap_or_else(|| Census::part_of(&whole));
            nodes.iter().for_each(|node| roll.enlist(node, &census));
            let picker = policy.build(&nodes, before.map(|before| &*before.picker));
            Group { key, census, nodes: nodes.into(), places: places.into(), picker }
        };
        let list = parts.into_iter().map(group).collect();
        if let Some(previous) = previous {
            let mut left: Vec<u64> = nodes.iter().map(|node| node.id()).collect();
            left.sort_unstable();
            let gone = |node: &&Arc<Node>| left.binary_search(&node.id()).is_err();
            let before = previous.list.iter().flat_map(|group| &group.nodes);
            before.filter(gone).for_each(|node| roll.dismiss(node));
        }
        Self { roll, whole, list }
    }

    pub(super) fn find(&self, key: &K) -> Option<&Group<K>> {
        self.position(key).map(|position| &self.list[position])
    }

    pub(super) fn position(&self, key: &K) -> Option<usize> {
        self.list.binary_search_by(|group| group.key.cmp(key)).ok()
    }
}

impl<K> Groups<K> {
    #[inline]
    pub(super) fn list(&self) -> &[Group<K>] {
        &self.list
    }

    /// How many nodes are fit in all groups.
    #[inline]
    pub(super) fn fit(&self) -> u64 {
        self.whole.fit()
    }

    /// Tends each group's picker.
    pub(super) fn tend(&self, now: Timestamp) -> Option<Timestamp> {
        self.list.iter().filter_map(|group| group.picker.tend(now)).min()
    }

    /// Visits the probing of each group's picker.
    pub(super) fn each_probing<'a>(&'a self, visit: &mut Visit<'_, 'a>) {
        self.list.iter().for_each(|group| group.each_probing(visit));
    }

    /// Picks in the first group, in the order of the keys, where `pick` finds a node. Skips
    /// `except`.
    #[cold]
    pub(super) fn pick_in_order(
        &self,
        except: usize,
        cx: &mut PickContext<'_>,
        pick: impl Fn(usize, &mut PickContext<'_>) -> Option<usize>,
    ) -> Option<usize> {
        (0..self.list.len()).filter(|&group| group != except).find_map(|group| pick(group, cx))
    }
}

/// The place of the one that holds `ticket`. Tickets are numbered from zero, and each holds as many
/// as its share says, in order. `None` if there are fewer tickets.
#[inline]
pub(super) fn holder_of(mut ticket: u64, shares: impl IntoIterator<Item = u64>) -> Option<usize> {
    shares.into_iter().position(|share| {
        let is_holder = ticket < share;
        ticket = ticket.saturating_sub(share);
        is_holder
    })
}

impl<K> Group<K> {
    /// How many nodes it has.
    #[inline]
    pub(super) fn len(&self) -> u64 {
        self.nodes.len() as u64
    }

    /// How many of them are fit.
    #[inline]
    pub(super) fn fit(&self) -> u64 {
        // A node that has left the set is counted until it is closed.
        self.census.fit().min(self.len())
    }

    /// The place in the whole set of the node that takes the request.
    #[inline]
    pub(super) fn pick(&self, cx: &mut PickContext<'_>) -> Option<usize> {
        self.picker.pick(&self.nodes, cx).map(|index| self.places[index] as usize)
    }

    pub(super) fn panics(&self, node: &Node) -> bool {
        self.picker.panics(node)
    }

    fn each_probing<'a>(&'a self, visit: &mut Visit<'_, 'a>) {
        self.picker.each_probing(&self.nodes, visit);
    }
}
