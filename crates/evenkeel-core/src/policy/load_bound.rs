//! Bounded load: no node has more than its share of the requests in flight, times a factor.

use std::sync::Arc;

use super::PickContext;
use crate::{
    node::Node,
    sync::{AtomicU64, Ordering::Relaxed},
};

/// How much more than its share a node may have in flight, and what is known about all shares.
///
/// A node has room while it has fewer in flight than `factor × (total + 1) × weight / weights`,
/// over the open nodes (Mirrokni, Thorup, Zadimoghaddam 2018).
///
/// The total is kept without adding up all nodes and without a counter that every request writes.
/// It is the sum of the value last seen for each node. Each pick looks at the nodes that it
/// considers and at two more in turn, so the value of a node is at most `n / 2` picks old.
#[derive(Debug)]
pub(super) struct LoadBound {
    factor: f64,
    /// For each open node, the requests in flight in the low half and the weight in the high half.
    seen: Box<[AtomicU64]>,
    sums: Sums,
}

/// On a cache line of their own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Sums {
    in_flight: AtomicU64,
    weight: AtomicU64,
    /// The node to look at next.
    turn: AtomicU64,
}

impl LoadBound {
    /// How many nodes each pick looks at in turn.
    const LOOKS: u64 = 2;

    pub(super) fn new(factor: f64, nodes: &[Arc<Node>]) -> Self {
        let seen = nodes.iter().map(|_| AtomicU64::new(0)).collect();
        let bound = Self { factor, seen, sums: Sums::default() };
        nodes.iter().enumerate().for_each(|(index, node)| bound.look(index, node, 0));
        bound
    }

    /// Begins a pick.
    pub(super) fn search<'a, 'b>(
        &'a self,
        nodes: &'a [Arc<Node>],
        cx: &'a PickContext<'b>,
    ) -> Search<'a, 'b> {
        if !nodes.is_empty() {
            let turn = self.sums.turn.fetch_add(Self::LOOKS, Relaxed);
            for turn in turn..turn.wrapping_add(Self::LOOKS) {
                let index = (turn % nodes.len() as u64) as usize;
                self.look(index, &nodes[index], 0);
            }
        }
        Search { bound: self, nodes, cx, least: None }
    }

    /// Records what `node` has now, and `more` that it is about to get.
    fn look(&self, index: usize, node: &Node, more: u32) {
        let now = if node.is_open() {
            u64::from(node.in_flight().saturating_add(more)) | u64::from(node.weight()) << 32
        } else {
            0
        };
        if self.seen[index].load(Relaxed) == now {
            return;
        }
        // The thread that swaps accounts for the difference, so the sums always match what was
        // seen.
        let before = self.seen[index].swap(now, Relaxed);
        add(&self.sums.in_flight, now & LOW, before & LOW);
        add(&self.sums.weight, now >> 32, before >> 32);
    }

    fn has_room(&self, node: &Node) -> bool {
        let total = self.sums.in_flight.load(Relaxed) as f64 + 1.0;
        let weights = self.sums.weight.load(Relaxed) as f64;
        let share = f64::from(node.weight()) * total * self.factor;
        // While no node is open, there is no bound.
        weights == 0.0 || f64::from(node.in_flight()) * weights < share
    }
}

const LOW: u64 = u32::MAX as u64;

fn add(sum: &AtomicU64, now: u64, before: u64) {
    if now != before {
        sum.fetch_add(now.wrapping_sub(before), Relaxed);
    }
}

/// One pick.
#[derive(Debug)]
pub(super) struct Search<'a, 'b> {
    bound: &'a LoadBound,
    nodes: &'a [Arc<Node>],
    cx: &'a PickContext<'b>,
    /// Of the nodes without room, the one with the least load for its weight.
    least: Option<usize>,
}

impl Search<'_, '_> {
    /// Whether the node may have the request and has room for it.
    pub(super) fn takes(&mut self, index: usize) -> bool {
        let node = &self.nodes[index];
        if !self.cx.admits(node) {
            return false;
        }
        self.bound.look(index, node, 0);
        if self.bound.has_room(node) {
            return true;
        }
        let load = |node: &Node| f64::from(node.in_flight()) / f64::from(node.weight().max(1));
        if self.least.is_none_or(|least| load(node) < load(&self.nodes[least])) {
            self.least = Some(index);
        }
        false
    }

    /// The node to use if none had room: what is known about the others may be old.
    pub(super) fn least_loaded(&self) -> Option<usize> {
        self.least
    }

    /// Ends the pick. The node is about to get the request.
    pub(super) fn end(self, found: Option<usize>) -> Option<usize> {
        let index = found.or(self.least)?;
        self.bound.look(index, &self.nodes[index], 1);
        Some(index)
    }
}

/// Returns the factor if it is valid.
///
/// # Panics
/// If it is less than 1 or not a number.
pub(super) fn checked(factor: f64) -> f64 {
    assert!(1.0 <= factor && factor.is_finite(), "a bound of {factor} times the average");
    factor
}
