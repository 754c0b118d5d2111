//! Least loaded: the least busy of all nodes.

use std::sync::Arc;

use super::{PickContext, Picker, Policy, weighted_p2c::relative_load};
use crate::node::Node;

/// Chooses the node with the fewest requests in flight for its weight, looking at all of them.
///
/// Use it for few endpoints and long requests. A pick costs O(n), by definition. From some tens of
/// endpoints on, [`P2c`](super::P2c) is as good, and many clients that all choose the least loaded
/// node herd. Among equals the choice is random, by weight.
///
/// Failures count as requests in flight, as [`Node::penalty`] says. They are forgiven so slowly
/// that a node that fails gets about an eighth of its share. The same holds for one that never
/// answers.
#[derive(Clone, Copy, Debug, Default)]
pub struct LeastLoaded;

impl Policy for LeastLoaded {
    fn name(&self) -> &'static str {
        "least_loaded"
    }

    fn build(&self, _: &[Arc<Node>], _: Option<&dyn Picker>) -> Box<dyn Picker> {
        Box::new(LeastLoadedPicker)
    }
}

struct LeastLoadedPicker;

impl Picker for LeastLoadedPicker {
    fn pick(&self, nodes: &[Arc<Node>], cx: &mut PickContext<'_>) -> Option<usize> {
        let mut chosen: Option<usize> = None;
        let mut equals = 0;
        cx.tell(|| "of all, the one with fewest in flight for its weight".into());
        for (index, node) in nodes.iter().enumerate() {
            if !cx.admits(node) {
                continue;
            }
            if node.penalty() != 0 {
                node.forgive(cx.rng, 8 * nodes.len());
            }
            let order = chosen.map(|chosen| relative_load(node, &nodes[chosen]));
            let weight = u64::from(node.weight()).max(1);
            match order {
                Some(std::cmp::Ordering::Greater) => {}
                Some(std::cmp::Ordering::Equal) => {
                    // Reservoir sampling among equals.
                    equals += weight;
                    if cx.rng.below_u64(equals) < weight {
                        chosen = Some(index);
                    }
                }
                Some(std::cmp::Ordering::Less) | None => {
                    equals = weight;
                    chosen = Some(index);
                }
            }
        }
        chosen
    }
}
