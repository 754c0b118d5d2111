//! Round robin: each open node in turn.

use std::sync::Arc;

use super::{PickContext, Picker, Policy, previous_as, turns::Turns};
use crate::node::Node;

/// Chooses each open node in turn, across all clones of the balancer together.
///
/// Use it where endpoints and requests are alike. If the next node is closed, another turn is
/// taken, so the share of a closed node spreads over all others instead of going to its neighbour.
/// The position survives changes of the set.
///
/// The first turn is drawn at the first pick, from the randomness of that pick, as in grpc-go and
/// Envoy. Otherwise clients that start together, or live for only a few requests, would all begin
/// at the first node.
#[derive(Clone, Copy, Debug, Default)]
pub struct RoundRobin;

impl Policy for RoundRobin {
    fn name(&self) -> &'static str {
        "round_robin"
    }

    fn build(&self, _: &[Arc<Node>], previous: Option<&dyn Picker>) -> Box<dyn Picker> {
        let turns = previous_as::<RoundRobinPicker>(previous).map(|picker| picker.turns.clone());
        Box::new(RoundRobinPicker { turns: turns.unwrap_or_default() })
    }
}

struct RoundRobinPicker {
    turns: Arc<Turns>,
}

impl Picker for RoundRobinPicker {
    fn pick(&self, nodes: &[Arc<Node>], cx: &mut PickContext<'_>) -> Option<usize> {
        cx.tell(|| "the next in turn that is open".into());
        let in_turn = |turn| Some((turn % nodes.len() as u64) as usize);
        self.turns.pick(nodes, cx, in_turn, |_| 1)
    }
}
