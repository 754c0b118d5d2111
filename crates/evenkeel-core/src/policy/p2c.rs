//! Power of two choices on requests in flight.

use std::{hint::cold_path, sync::Arc};

use super::{PickContext, Picker, Policy, draw};
use crate::node::Node;

/// Chooses the one of two random nodes that has fewer requests in flight.
///
/// The default for most uses: nearly as good as looking at all nodes, at the price of two, and
/// clients do not herd (Mitzenmacher 2001). The two are distinct. Weights other than 0 are ignored,
/// see [`WeightedP2c`](super::WeightedP2c).
///
/// Failures count as requests in flight, as [`Node::penalty`] says. Without that, an endpoint that
/// fails at once would look idle and draw twice its share. Here it gets about an eighth of its
/// share, as trials: when a node is passed over because of its penalty, half of the penalty is
/// forgiven one time in sixteen. The same holds for a node that never answers, where requests are
/// [given up](crate::cut). [`PeakEwma`](super::PeakEwma) also sees how long they waited.
#[derive(Clone, Copy, Debug, Default)]
pub struct P2c;

impl Policy for P2c {
    fn name(&self) -> &'static str {
        "p2c"
    }

    fn build(&self, _: &[Arc<Node>], _: Option<&dyn Picker>) -> Box<dyn Picker> {
        Box::new(P2cPicker)
    }
}

struct P2cPicker;

impl Picker for P2cPicker {
    fn pick(&self, nodes: &[Arc<Node>], cx: &mut PickContext<'_>) -> Option<usize> {
        let (first, second) = draw::two(nodes, cx)?;
        let Some(second) = second else { return Some(first) };
        cx.tell(|| "of two drawn, the one with fewer in flight, failures counted".into());
        let (one, other) = (&nodes[first], &nodes[second]);
        if one.load() <= other.load() {
            passed_over(other, cx);
            return Some(first);
        }
        passed_over(one, cx);
        // A branch instead of a conditional move: by guessing it, the processor fetches the service
        // of the chosen node while it still waits for the counters.
        cold_path();
        Some(second)
    }
}

/// Records that this one of two drawn nodes was not chosen.
#[inline]
pub(super) fn passed_over(node: &Node, cx: &mut PickContext<'_>) {
    const TIMES: usize = 16;
    if node.penalty() != 0 {
        node.forgive(cx.rng, TIMES);
    }
}
