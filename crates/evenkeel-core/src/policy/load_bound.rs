//! Bounded load: no node has more than its share of what is in flight, times a factor.

use std::sync::Arc;

use super::PickContext;
use crate::{
    node::Node,
    sync::{AtomicU64, Ordering::Relaxed},
};

/// How much more than its share a node may have in flight, and what is known of all shares.
///
/// A node has room while what it has in flight is less than `factor × (total + 1) × weight / weights`,
/// over those that are open (Mirrokni, Thorup, Zadimoghaddam 2018).
///
/// The total is kept without adding up all nodes and without a counter that every request writes: for
/// each node there is what was last seen of it, and the sums of that. Each pick looks at the nodes that
/// it considers and at two more in turn, so what is known of a node is at most `n / 2` picks old.
#[derive(Debug)]
pub(super) struct LoadBound {
    factor: f64,
    /// Of each open node what is in flight in the low half and its weight in the high half.
    seen: Box<[AtomicU64]>,
    sums: Sums,
}

/// On a cache line of their own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Sums {
    in_flight: AtomicU64,
    weight: AtomicU64,
    /// Who is looked at next.
    turn: AtomicU64,
}

impl LoadBound {
    /// So many nodes are looked at in turn with each pick.
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

    /// Takes down what `node` has now, and `more` that it is about to get.
    fn look(&self, index: usize, node: &Node, more: u32) {
        let now = if node.is_open() {
            u64::from(node.in_flight().saturating_add(more)) | u64::from(node.weight()) << 32
        } else {
            0
        };
        if self.seen[index].load(Relaxed) == now {
            return;
        }
        // Whoever swaps accounts for the difference: the sums are always those of what was seen.
        let before = self.seen[index].swap(now, Relaxed);
        add(&self.sums.in_flight, now & LOW, before & LOW);
        add(&self.sums.weight, now >> 32, before >> 32);
    }

    fn has_room(&self, node: &Node) -> bool {
        let total = self.sums.in_flight.load(Relaxed) as f64 + 1.0;
        let weights = self.sums.weight.load(Relaxed) as f64;
        let share = f64::from(node.weight()) * total * self.factor;
        // Where nothing is open nothing is bounded.
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
    /// Of those that had no room, the one with the least for its weight.
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

    /// Who is asked where nobody had room: what is known of the others may be old.
    pub(super) fn least_loaded(&self) -> Option<usize> {
        self.least
    }

    /// Ends the pick: the node is about to get the request.
    pub(super) fn end(self, found: Option<usize>) -> Option<usize> {
        let index = found.or(self.least)?;
        self.bound.look(index, &self.nodes[index], 1);
        Some(index)
    }
}

/// The factor if it is one.
///
/// # Panics
/// If it is less than 1 or no number.
pub(super) fn checked(factor: f64) -> f64 {
    assert!(1.0 <= factor && factor.is_finite(), "a bound of {factor} times the average");
    factor
}
