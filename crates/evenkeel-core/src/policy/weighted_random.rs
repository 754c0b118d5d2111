//! Weighted random: any open node, by weight.

use std::sync::Arc;

use super::{PickContext, Picker, Policy, alias::AliasTable, draw};
use crate::node::Node;

/// Chooses any open node, with a probability equal to its share of the weights.
///
/// Use it for shares that must hold over many clients that know nothing of each other, for example
/// a canary of one in a million.
#[derive(Clone, Copy, Debug, Default)]
pub struct WeightedRandom;

impl Policy for WeightedRandom {
    fn name(&self) -> &'static str {
        "weighted_random"
    }

    fn build(&self, nodes: &[Arc<Node>], _: Option<&dyn Picker>) -> Box<dyn Picker> {
        Box::new(WeightedDraw::new(nodes))
    }
}

impl Picker for WeightedDraw {
    fn pick(&self, nodes: &[Arc<Node>], cx: &mut PickContext<'_>) -> Option<usize> {
        cx.tell(|| "any that is open, by weight".into());
        self.draw(nodes, cx, None)
    }
}

/// Draws nodes by weight, fairly among those that are admitted.
#[derive(Debug)]
pub(super) struct WeightedDraw(Option<AliasTable>);

impl WeightedDraw {
    const DRAWS: usize = 8;

    pub(super) fn new(nodes: &[Arc<Node>]) -> Self {
        Self(AliasTable::new(nodes.iter().map(|node| node.weight())))
    }

    /// A draw by weight among the admitted nodes other than `except`.
    pub(super) fn draw(
        &self,
        nodes: &[Arc<Node>],
        cx: &mut PickContext<'_>,
        except: Option<usize>,
    ) -> Option<usize> {
        let table = self.0.as_ref()?;
        for _ in 0..Self::DRAWS {
            let index = table.draw(cx.rng);
            if Some(index) != except && cx.admits(&nodes[index]) {
                return Some(index);
            }
        }
        draw::scan(nodes, cx, except, |node| node.weight().into())
    }
}
