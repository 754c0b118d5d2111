//! Round robin: each open node in turn.

use std::sync::Arc;

use super::{PickContext, Picker, Policy, draw, previous_as};
use crate::{
    node::Node,
    sync::{AtomicU64, Ordering},
};

/// Chooses each open node in turn, over all clones of the balancer together.
///
/// Use it where endpoints and requests are alike. A closed node is passed over by taking the next
/// turn, so its share is spread over all others and not given to its neighbour. The position lives on
/// through changes of the set.
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
        for _ in 0..nodes.len().min(Turns::PASSES) {
            let index = (self.turns.take() % nodes.len() as u64) as usize;
            if cx.admits(&nodes[index]) {
                return Some(index);
            }
        }
        draw::scan(nodes, cx, None, |_| 1)
    }
}

/// The number of the next turn, on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Turns(AtomicU64);

impl Turns {
    /// So many turns may fall on closed nodes before the open ones are looked for.
    pub(super) const PASSES: usize = 16;

    pub(super) fn take(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}
