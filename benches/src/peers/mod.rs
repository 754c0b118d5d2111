//! Who else is in the table, and ours beside them.

use std::sync::Arc;

use evenkeel_core::{node::Node, policy};
use evenkeel_layers::balance::BalanceLayer;
use tower::Layer;

use crate::{
    contender::{Entry, Shared},
    leaf::{Leaf, endpoints},
};

#[cfg(feature = "pingora")]
pub(crate) mod pingora;
pub(crate) mod prototype;
pub(crate) mod tower_balance;

/// The balancer under each of its policies.
pub(crate) fn ours(leaf: &impl Leaf) -> Vec<Entry> {
    policy::NAMES.map(|name| our_policy(name, leaf.clone())).into()
}

fn our_policy(name: &'static str, leaf: impl Leaf) -> Entry {
    Entry::new(name, move |count| {
        let policy = policy::by_name(name).expect("it is one of the names");
        let layer = BalanceLayer::with_policy(endpoints(count), policy);
        let leaf = leaf.clone();
        Shared(layer.layer(move |_: &Arc<Node>| leaf.clone()))
    })
}
