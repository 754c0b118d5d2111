//! Pick first: the first open node of the list.

use std::sync::Arc;

use super::{PickContext, Picker, Policy};
use crate::node::Node;

/// Chooses the first open node, in the order in which discovery lists them.
///
/// Use it for a primary with stand-ins: traffic goes to the first endpoint, moves to the next while
/// the first is closed, and comes back. It does not spread.
#[derive(Clone, Copy, Debug, Default)]
pub struct PickFirst;

impl Policy for PickFirst {
    fn name(&self) -> &'static str {
        "pick_first"
    }

    fn build(&self, _: &[Arc<Node>], _: Option<&dyn Picker>) -> Box<dyn Picker> {
        Box::new(PickFirstPicker)
    }
}

struct PickFirstPicker;

impl Picker for PickFirstPicker {
    fn pick(&self, nodes: &[Arc<Node>], cx: &mut PickContext<'_>) -> Option<usize> {
        cx.tell(|| "the first of the list that is open".into());
        nodes.iter().position(|node| cx.admits(node))
    }
}
