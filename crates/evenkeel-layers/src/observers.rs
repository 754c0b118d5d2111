//! Finds what a layer has put at a node before.

use std::{any::Any, sync::Arc};

use evenkeel_core::{node::Node, observe::Observer};

/// The observers of `node` that are of one type, also those of other layers.
pub(crate) fn observers_of<M: Observer>(node: &Node) -> impl Iterator<Item = Arc<M>> {
    node.observers().filter_map(|observer| {
        let observer: Arc<dyn Any + Send + Sync> = observer.clone();
        observer.downcast().ok()
    })
}
