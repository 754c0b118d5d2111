//! The peers in the table, and our balancer beside them.

use std::{convert::Infallible, sync::Arc, time::Duration};

use evenkeel_core::{load::ServerLoad, node::Node, policy};
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
    let mut entries = Vec::from_iter(policy::names().map(|name| our_policy(name, leaf.clone())));
    entries.push(our_probing_prequal(leaf.clone()));
    entries
}

/// Prequal with endpoints that answer probes. The probes share the machine with the requests.
fn our_probing_prequal(leaf: impl Leaf) -> Entry {
    Entry::new("prequal, probing", move |count| {
        let probe = |_: Arc<Node>| async {
            Ok::<_, Infallible>(ServerLoad::new(3.0, Duration::from_millis(1)))
        };
        let layer = BalanceLayer::prequal(endpoints(count), probe);
        let leaf = leaf.clone();
        Shared(layer.layer(move |_: &Arc<Node>| leaf.clone()))
    })
}

fn our_policy(name: &'static str, leaf: impl Leaf) -> Entry {
    Entry::new(name, move |count| {
        let policy = policy::by_name(name).expect("it is one of the names");
        let layer = BalanceLayer::with_policy(endpoints(count), policy);
        let leaf = leaf.clone();
        Shared(layer.layer(move |_: &Arc<Node>| leaf.clone()))
    })
}
