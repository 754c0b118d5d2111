//! Random: any open node.

use std::sync::Arc;

use super::{PickContext, Picker, Policy, draw};
use crate::node::Node;

/// Chooses any open node, each with the same probability.
///
/// Use it where requests are many, small and alike, and nothing must be shared between clients. It
/// does not know load: with few requests it spreads worse than round robin, with slow endpoints
/// worse than [`P2c`](super::P2c).
#[derive(Clone, Copy, Debug, Default)]
pub struct Random;

impl Policy for Random {
    fn name(&self) -> &'static str {
        "random"
    }

    fn build(&self, _: &[Arc<Node>], _: Option<&dyn Picker>) -> Box<dyn Picker> {
        Box::new(RandomPicker)
    }
}

struct RandomPicker;

impl Picker for RandomPicker {
    fn pick(&self, nodes: &[Arc<Node>], cx: &mut PickContext<'_>) -> Option<usize> {
        cx.tell(|| "any that is open".into());
        draw::one(nodes, cx)
    }
}
