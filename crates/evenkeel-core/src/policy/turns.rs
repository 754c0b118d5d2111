//! Turns that all clones of a balancer take from one counter.

use std::sync::Arc;

use super::{PickContext, draw};
use crate::{
    node::Node,
    rng::Rng,
    sync::{AtomicU64, Ordering},
};

/// Twice the number of the next turn, plus one. Zero until the first is drawn. On its own cache
/// line.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Turns(AtomicU64);

const DRAWN: u64 = 1;

/// The first turn is drawn below this. It is large enough to be as good as uniform over tables of a
/// million, and small because dividing small numbers takes less time.
const MAX_FIRST_TURN: u64 = 1 << 30;

impl Turns {
    /// How many turns may hit closed nodes before the open ones are searched for.
    const MAX_CLOSED_TURNS: usize = 16;

    /// How many turns a pick takes. Enough where turns are skipped by weight, since a weight is at
    /// least a hundredth of the greatest.
    const MAX_TURNS: usize = 128;

    /// Takes turns until one belongs to a node that is admitted. If too many belong to closed
    /// nodes, it draws among the open ones by `weight`.
    ///
    /// `holder` has the index of the node that a turn belongs to, or `None` if the turn is skipped.
    /// It is not called if there are no nodes.
    #[inline]
    pub(super) fn pick(
        &self,
        nodes: &[Arc<Node>],
        cx: &mut PickContext<'_>,
        holder: impl Fn(u64) -> Option<usize>,
        weight: impl Fn(&Node) -> u64,
    ) -> Option<usize> {
        let mut closed = 0;
        let turns = if nodes.is_empty() { 0 } else { Self::MAX_TURNS };
        for _ in 0..turns {
            let Some(index) = holder(self.take(cx.rng)) else { continue };
            if cx.admits(&nodes[index]) {
                return Some(index);
            }
            closed += 1;
            if closed == Self::MAX_CLOSED_TURNS {
                break;
            }
        }
        draw::scan(nodes, cx, None, weight)
    }

    #[inline]
    fn take(&self, rng: &mut Rng) -> u64 {
        let turn = self.0.fetch_add(2, Ordering::Relaxed);
        if turn & DRAWN == 0 { self.begin(rng) } else { turn >> 1 }
    }

    /// Draws the first turn. If several threads come at once, the draw of one of them counts for
    /// all.
    #[cold]
    fn begin(&self, rng: &mut Rng) -> u64 {
        let first = rng.below_u64(MAX_FIRST_TURN) << 1 | DRAWN;
        let begin = |turn| (turn & DRAWN == 0).then_some(first);
        // An error means that another thread has begun.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, begin);
        self.0.fetch_add(2, Ordering::Relaxed) >> 1
    }
}
