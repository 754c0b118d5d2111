//! Round robin: each open node in turn.

use std::sync::Arc;

use super::{PickContext, Picker, Policy, draw, previous_as};
use crate::{
    node::Node,
    rng::Rng,
    sync::{AtomicU64, Ordering},
};

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
        for _ in 0..nodes.len().min(Turns::PASSES) {
            let index = (self.turns.take(cx.rng) % nodes.len() as u64) as usize;
            if cx.admits(&nodes[index]) {
                return Some(index);
            }
        }
        draw::scan(nodes, cx, None, |_| 1)
    }
}

/// Twice the number of the next turn, plus one. Zero until the first is drawn. On its own cache
/// line.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Turns(AtomicU64);

const DRAWN: u64 = 1;

/// The first turn is drawn below this. It is large enough to be as good as uniform over tables of a
/// million, and small because dividing small numbers takes less time.
const FIRST_MAX: u64 = 1 << 30;

impl Turns {
    /// How many turns may hit closed nodes before the open ones are searched for.
    pub(super) const PASSES: usize = 16;

    #[inline]
    pub(super) fn take(&self, rng: &mut Rng) -> u64 {
        let turn = self.0.fetch_add(2, Ordering::Relaxed);
        if turn & DRAWN == 0 { self.begin(rng) } else { turn >> 1 }
    }

    /// Draws the first turn. If several threads come at once, the draw of one of them counts for
    /// all.
    #[cold]
    fn begin(&self, rng: &mut Rng) -> u64 {
        let first = rng.below_u64(FIRST_MAX) << 1 | DRAWN;
        let begin = |turn| (turn & DRAWN == 0).then_some(first);
        // An error means that another thread has begun.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, begin);
        self.0.fetch_add(2, Ordering::Relaxed) >> 1
    }
}
