//! A custom policy: it depends only on core, passes the policy laws, and balances.
//!
//! It sends each request to the open node whose last pick is the oldest.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use evenkeel::{
    balance::BalanceLayer,
    core::{
        endpoint::Endpoint,
        node::Node,
        policy::{
            PickContext, Picker, Policy,
            laws::{self, Spread},
        },
    },
};
use tower::{Layer, Service, ServiceExt, service_fn};

#[derive(Debug)]
struct LongestAgo;

struct LongestAgoPicker {
    /// The number of each node's last pick.
    picked: Box<[AtomicU64]>,
    picks: AtomicU64,
}

impl Policy for LongestAgo {
    fn name(&self) -> &'static str {
        "longest_ago"
    }

    fn build(&self, nodes: &[Arc<Node>], previous: Option<&dyn Picker>) -> Box<dyn Picker> {
        let previous = previous.and_then(|picker| (picker as &dyn std::any::Any).downcast_ref());
        let picks =
            previous.map_or(1, |picker: &LongestAgoPicker| picker.picks.load(Ordering::Relaxed));
        let picked = (0..nodes.len()).map(|index| {
            // Enough for an example: numbers belong to positions, even if another node takes a
            // position.
            let before = previous.and_then(|picker| picker.picked.get(index));
            AtomicU64::new(before.map_or(0, |pick| pick.load(Ordering::Relaxed)))
        });
        Box::new(LongestAgoPicker { picked: picked.collect(), picks: AtomicU64::new(picks) })
    }
}

impl Picker for LongestAgoPicker {
    fn pick(&self, nodes: &[Arc<Node>], cx: &mut PickContext<'_>) -> Option<usize> {
        if nodes.is_empty() {
            return None;
        }
        // Among nodes without a pick, a random one: clients that start together must not all begin
        // with the same node.
        let start = cx.rng.below(nodes.len());
        let order = (start..nodes.len()).chain(0..start);
        let open = order.filter(|&index| cx.admits(&nodes[index]));
        let chosen = open.min_by_key(|&index| self.picked[index].load(Ordering::Relaxed))?;
        let pick = self.picks.fetch_add(1, Ordering::Relaxed);
        self.picked[chosen].store(pick, Ordering::Relaxed);
        Some(chosen)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    laws::check(&LongestAgo, Spread::Even);

    let endpoints: Vec<Endpoint> = vec!["10.0.0.1:80".parse()?, "10.0.0.2:80".parse()?];
    let mut client = BalanceLayer::with_policy(endpoints, LongestAgo).layer(|node: &Arc<Node>| {
        let address = node.address().to_string();
        service_fn(move |(): ()| {
            let address = address.clone();
            async move { Ok::<_, Infallible>(address) }
        })
    });
    for _ in 0..4 {
        println!("{}", client.ready().await?.call(()).await?);
    }
    Ok(())
}
