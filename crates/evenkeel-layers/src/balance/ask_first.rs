//! Asks some endpoints for their load before a request is sent.

use std::sync::Arc;

use evenkeel_core::{
    endpoint::Address,
    load::ServerLoad,
    node::Node,
    policy::{PickContext, Policy, Random},
};
use futures_util::{StreamExt, stream::FuturesUnordered};

use super::{settings::AskFirst, shared::Shared};

/// What the choice of the endpoints to ask needs to know about a request.
pub(super) struct About<'a> {
    pub(super) hash: Option<u64>,
    pub(super) tried: &'a [u64],
    pub(super) exclude: &'a [Address],
}

impl AskFirst {
    /// The best of the first endpoints that answer. `None` if none answers, or there is none to
    /// ask.
    ///
    /// It waits for all answers but one. Neither a late answer nor those given up delay the request.
    pub(super) async fn best<S>(&self, shared: &Shared<S>, about: About<'_>) -> Option<Address> {
        let nodes = self.draw(shared, &about);
        if let [node] = &nodes[..] {
            return Some(node.address().clone());
        }
        let enough = nodes.len().saturating_sub(1);
        let asked = nodes.into_iter().map(|node| async {
            let load = self.probes.ask(&shared.client, &node, about.hash).await;
            load.map(|load| (node, load))
        });
        let mut asked: FuturesUnordered<_> = asked.collect();
        let mut answers: Vec<(Arc<Node>, ServerLoad)> = Vec::with_capacity(enough);
        while answers.len() < enough
            && let Some(answer) = asked.next().await
        {
            answers.extend(answer);
        }
        let best = self.choice.best(&answers)?;
        Some(answers[best].0.address().clone())
    }

    /// Draws random nodes that may take the request, preferring those it has not tried.
    fn draw<S>(&self, shared: &Shared<S>, about: &About<'_>) -> Vec<Arc<Node>> {
        let snapshot = shared.snapshots.current();
        let picker = Random.build(&snapshot.nodes, None);
        let mut rng = shared.rng();
        let mut avoid = about.tried.to_vec();
        let mut nodes = Vec::with_capacity(self.count);
        while nodes.len() < self.count {
            let mut cx =
                PickContext { avoid: &avoid, exclude: about.exclude, ..PickContext::new(&mut rng) };
            match picker.pick(&snapshot.nodes, &mut cx) {
                Some(index) => {
                    avoid.push(snapshot.nodes[index].id());
                    nodes.push(snapshot.nodes[index].clone());
                }
                None => break,
            }
        }
        nodes
    }
}
