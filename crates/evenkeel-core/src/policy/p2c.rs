//! Power of two choices on requests in flight.

use std::{hint::cold_path, sync::Arc};

use super::{PickContext, Picker, Policy, draw};
use crate::node::Node;

/// Chooses the one of two random nodes that has fewer requests in flight.
///
/// The default for most: nearly as good as asking all nodes, at the price of two, and clients do not
/// herd (Mitzenmacher 2001). The two are distinct. Weights other than 0 are ignored, see
/// [`WeightedP2c`](super::WeightedP2c).
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
        cx.tell(|| "of two drawn, the one with fewer in flight".into());
        if nodes[first].in_flight() <= nodes[second].in_flight() {
            return Some(first);
        }
        // A branch and no conditional move: guessed, it lets the processor fetch the service of the
        // chosen node while it still waits for the counters.
        cold_path();
        Some(second)
    }
}
