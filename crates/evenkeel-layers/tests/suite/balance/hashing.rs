//! A balancer under a policy that hashes: when its table is built, and where retries go.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use evenkeel_core::{
    attempt::Attempt,
    connect::Connect,
    hash::xxh64,
    node::{Gate, Node},
    outcome::Outcome,
    policy::{Picker, Policy, RingHash},
    traffic::{Hints, Traffic, Tried},
};
use evenkeel_layers::balance::{Balance, BalanceLayer};
use tower::{Layer, ServiceExt};

use crate::balance::probe::{Channel, Probe, World, endpoint, tick};

/// A ring that counts how often it is built.
#[derive(Debug, Default)]
struct Counted(Arc<AtomicUsize>);

impl Policy for Counted {
    fn name(&self) -> &'static str {
        "counted"
    }

    fn build(&self, nodes: &[Arc<Node>], previous: Option<&dyn Picker>) -> Box<dyn Picker> {
        self.0.fetch_add(1, SeqCst);
        RingHash::new().build(nodes, previous)
    }
}

#[derive(Clone)]
struct Keyed;

type Request = (&'static str, Tried);

impl<E> Traffic<Request, String, E> for Keyed {
    type Response = String;

    fn hints<'a>(&self, (key, tried): &'a Request) -> Hints<'a> {
        Hints { hash: Some(xxh64(key.as_bytes())), tried: Some(tried), ..Hints::default() }
    }

    fn finish(&self, attempt: Attempt, result: Result<String, E>) -> Result<String, E> {
        attempt.finish(Outcome::Ignored);
        result
    }
}

struct KeyedConnect(World);

impl Connect for KeyedConnect {
    type Service = Probe;
    type Traffic = Keyed;

    fn connect(&self, node: &Arc<Node>) -> Probe {
        self.0.connect(node)
    }

    fn traffic(&self) -> Keyed {
        Keyed
    }
}

async fn served_by(balance: &Balance<KeyedConnect>, key: &'static str, tried: &Tried) -> String {
    balance.clone().oneshot((key, tried.clone())).await.expect("an endpoint is open")
}

#[tokio::test(start_paused = true)]
async fn a_gate_does_not_rebuild_the_table_and_a_weight_does() {
    let (world, channel) = (World::default(), Channel::of(&["a", "b", "c"]));
    let built = Arc::new(AtomicUsize::new(0));
    let layer = BalanceLayer::with_policy(channel.clone(), Counted(built.clone()));
    let balance = layer.layer(KeyedConnect(world));
    let home = served_by(&balance, "alice", &Tried::default()).await;
    let before = built.load(SeqCst);

    let nodes = balance.nodes();
    for gate in [Gate::Ejected, Gate::Breaker, Gate::Limit] {
        for node in &nodes {
            node.close(gate);
            served_by(&balance, "alice", &Tried::default()).await;
            node.open(gate);
            tick().await;
        }
    }
    assert_eq!(served_by(&balance, "alice", &Tried::default()).await, home);
    assert_eq!(built.load(SeqCst), before);

    channel.insert(endpoint("a").weight(2));
    tick().await;
    assert_eq!(built.load(SeqCst), before + 1);
}

#[tokio::test(start_paused = true)]
async fn each_attempt_of_a_call_goes_to_the_next_endpoint_on_the_ring() {
    let (world, channel) = (World::default(), Channel::of(&["a", "b", "c", "d"]));
    let balance = BalanceLayer::ring_hash(channel).layer(KeyedConnect(world));
    let mut orders = HashSet::new();
    for key in ["alice", "bob", "carol", "dave", "eve", "frank", "grace", "heidi"] {
        let mut once = Vec::new();
        for _ in 0..3 {
            let tried = Tried::default();
            let mut order = Vec::new();
            for _ in 0..4 {
                order.push(served_by(&balance, key, &tried).await);
            }
            assert_eq!(order.iter().collect::<HashSet<_>>().len(), 4, "{key}: {order:?}");
            once.push(order);
        }
        assert!(once.iter().all(|order| *order == once[0]), "{key} always goes the same way");
        orders.insert(once.swap_remove(0));
    }
    assert!(1 < orders.len(), "keys have ways of their own");
}
