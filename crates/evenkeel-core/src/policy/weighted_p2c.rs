//! Power of two choices, drawn and compared by weight.

use std::{cmp::Ordering, sync::Arc};

use super::{PickContext, Picker, Policy, p2c::passed_over, weighted_random::WeightedDraw};
use crate::node::Node;

/// Chooses the one of two nodes, drawn by weight, that has fewer requests in flight for its weight.
///
/// Also known as weighted least request. Drawing by weight keeps the shares right while there is
/// little to compare. Comparing `in_flight / weight` keeps them right under load. Comparing alone
/// distorts them (Finagle, `WeightedP2CPick.scala`). Failures count as in [`P2c`](super::P2c).
#[derive(Clone, Copy, Debug, Default)]
pub struct WeightedP2c;

impl Policy for WeightedP2c {
    fn name(&self) -> &'static str {
        "weighted_p2c"
    }

    fn build(&self, nodes: &[Arc<Node>], _: Option<&dyn Picker>) -> Box<dyn Picker> {
        Box::new(WeightedP2cPicker { draw: WeightedDraw::new(nodes) })
    }
}

struct WeightedP2cPicker {
    draw: WeightedDraw,
}

impl Picker for WeightedP2cPicker {
    fn pick(&self, nodes: &[Arc<Node>], cx: &mut PickContext<'_>) -> Option<usize> {
        let first = self.draw.draw(nodes, cx, None)?;
        if nodes[first].load() == 0 {
            cx.tell(|| "drawn by weight, and idle".into());
            // No node can have fewer.
            return Some(first);
        }
        let Some(second) = self.draw.draw(nodes, cx, Some(first)) else { return Some(first) };
        cx.tell(|| "of two drawn by weight, the one with fewer in flight for its weight".into());
        let is_first = relative_load(&nodes[first], &nodes[second]).is_le();
        let (chosen, other) = if is_first { (first, second) } else { (second, first) };
        passed_over(&nodes[other], cx);
        Some(chosen)
    }
}

/// Compares requests in flight relative to weight, without dividing. Penalties are added if there
/// are any.
#[inline]
pub(super) fn relative_load(a: &Node, b: &Node) -> Ordering {
    if a.penalty() | b.penalty() != 0 {
        return penalised(a, b);
    }
    let load = |node: &Node, other: &Node| u64::from(node.in_flight()) * u64::from(other.weight());
    load(a, b).cmp(&load(b, a))
}

#[cold]
fn penalised(a: &Node, b: &Node) -> Ordering {
    let load = |node: &Node| {
        let in_flight = f64::from(node.in_flight()) / f64::from(node.weight().max(1));
        in_flight + f64::from(node.penalty())
    };
    load(a).total_cmp(&load(b))
}
