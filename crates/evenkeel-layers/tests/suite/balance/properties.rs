//! Properties of sets and weights, for any random sequence.

use std::collections::BTreeMap;

use evenkeel_core::{
    discover::Update,
    node::Gate,
    policy::{self, BuiltIn, laws::Spread},
    rng::Rng,
};
use evenkeel_layers::balance::BalanceLayer;
use proptest::{collection::vec, prelude::*, test_runner::RngSeed};
use tower::ServiceExt;

use crate::balance::probe::{Channel, World, address, endpoint, ready, tick};

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

fn config() -> ProptestConfig {
    // Seeded, so that a run is the same everywhere. Nothing is written beside the source.
    ProptestConfig {
        cases: 96,
        rng_seed: RngSeed::Fixed(0x0EE1),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

fn name() -> impl Strategy<Value = &'static str> {
    (0..NAMES.len()).prop_map(|index| NAMES[index])
}

fn weight() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), Just(1), 1..100_u32, Just(1_000_000), Just(u32::MAX)]
}

/// An update as a test can compare it.
#[derive(Clone, Debug)]
enum Step {
    Set(Vec<(&'static str, u32)>),
    Insert(&'static str, u32),
    Remove(&'static str),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        vec((name(), weight()), 0..8).prop_map(Step::Set),
        (name(), weight()).prop_map(|(name, weight)| Step::Insert(name, weight)),
        name().prop_map(Step::Remove),
    ]
}

impl Step {
    fn update(&self) -> Update {
        match self {
            Self::Set(set) => {
                let endpoints = set.iter().map(|(name, weight)| endpoint(name).weight(*weight));
                Update::Set(endpoints.collect())
            }
            Self::Insert(name, weight) => Update::Insert(endpoint(name).weight(*weight)),
            Self::Remove(name) => Update::Remove(address(name)),
        }
    }

    /// Applies the update to a set: names in order, each with its weight.
    fn apply(&self, model: &mut Vec<(&'static str, u32)>) {
        match self {
            Self::Set(set) => {
                model.clear();
                set.iter().for_each(|&(name, weight)| insert(model, name, weight));
            }
            Self::Insert(name, weight) => insert(model, name, *weight),
            Self::Remove(name) => model.retain(|(known, _)| known != name),
        }
    }
}

fn insert(model: &mut Vec<(&'static str, u32)>, name: &'static str, weight: u32) {
    match model.iter_mut().find(|(known, _)| *known == name) {
        Some((_, known)) => *known = weight,
        None => model.push((name, weight)),
    }
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().expect("a runtime")
}

/// Applies steps, in batches, to a balancer and to a model, and compares them after each batch.
async fn follows_the_model(policy: &str, batches: Vec<Vec<Step>>) {
    let world = World::default();
    let discovery = Channel::of(&[]);
    let policy = policy::by_name(policy).expect("a built-in policy");
    let layer = BalanceLayer::with_policy(discovery.clone(), policy);
    let mut balance = world.balance(&layer.seed(1));
    let waiting = tokio_test::task::spawn(ready(&mut balance)).poll().is_pending();
    assert!(waiting);
    tick().await;
    let mut model = Vec::new();
    let mut ids = BTreeMap::new();
    for batch in batches {
        for step in &batch {
            step.apply(&mut model);
            discovery.send(step.update());
        }
        tick().await;

        let nodes = balance.nodes();
        let seen: Vec<_> =
            nodes.iter().map(|node| (node.address().clone(), node.weight())).collect();
        let expected: Vec<_> =
            model.iter().map(|&(name, weight)| (address(name), weight)).collect();
        assert_eq!(seen, expected);
        assert_eq!(world.connections(), model.len(), "one connection each, and none left over");
        for node in &nodes {
            assert_eq!(node.is_open(), 0 < node.weight());
            assert!(!node.is_closed_by(Gate::Retired));
        }
        let is_kept = |name: &str| batch.iter().all(|step| keeps(step, name));
        for (&(name, _), node) in model.iter().zip(&nodes) {
            if let Some(&id) = ids.get(name) {
                assert!(!is_kept(name) || id == node.id(), "{name} lives on");
            }
        }
        ids = model.iter().zip(&nodes).map(|(&(name, _), node)| (name, node.id())).collect();
        if model.iter().any(|&(_, weight)| 0 < weight) {
            let answer = balance.clone().oneshot(1).await.expect("one is open");
            let is_open =
                |&(name, weight): &(&str, u32)| 0 < weight && answer == format!("{name}:80");
            assert!(model.iter().any(is_open), "{answer}");
        }
    }
}

/// Whether an endpoint that was there is still the same after `step`.
fn keeps(step: &Step, name: &str) -> bool {
    match step {
        Step::Set(set) => set.iter().any(|(named, _)| *named == name),
        Step::Insert(..) => true,
        Step::Remove(removed) => *removed != name,
    }
}

/// Picks by weight follow the weights: within five standard deviations, for each node.
fn follows_the_weights(policy: &str, weights: &[u32], seed: u64) {
    const PICKS: usize = 4_000;
    let nodes: Vec<_> = NAMES
        .iter()
        .zip(weights)
        .map(|(name, &weight)| {
            std::sync::Arc::new(evenkeel_core::node::Node::new(endpoint(name).weight(weight)))
        })
        .collect();
    let picker = policy::by_name(policy).expect("a built-in policy").build(&nodes, None);
    let mut rng = Rng::with_seed(seed);
    let mut counts = vec![0_u32; nodes.len()];
    let sum: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
    for _ in 0..PICKS {
        let picked = picker.pick(&nodes, &mut policy::PickContext::new(&mut rng));
        assert_eq!(picked.is_some(), 0.0 < sum);
        if let Some(index) = picked {
            counts[index] += 1;
        }
    }
    for (&count, &weight) in counts.iter().zip(weights) {
        assert!(0 < weight || count == 0, "picked at weight 0");
        let share = f64::from(weight) / sum.max(1.0);
        let expected = PICKS as f64 * share;
        let deviation = (expected * (1.0 - share)).sqrt();
        let is_near = (f64::from(count) - expected).abs() <= 5.0 * deviation + 8.0;
        assert!(is_near, "{policy}: {counts:?} for {weights:?}");
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_sequence_of_updates_leads_to_the_set_that_it_says(
        batches in vec(vec(step(), 1..5), 1..10),
        policy in 0..policy::BUILT_IN.len(),
    ) {
        runtime().block_on(follows_the_model(policy::BUILT_IN[policy].name, batches));
    }

    #[test]
    fn any_weights_are_kept_by_every_policy_that_knows_them(
        weights in vec(weight(), 1..NAMES.len()),
        seed in any::<u64>(),
    ) {
        // Where a policy hashes, a share is that of a table, and not exact.
        let is_exact = |policy: &&BuiltIn| policy.spread == Spread::ByWeight && !policy.hashes();
        for policy in policy::BUILT_IN.iter().filter(is_exact) {
            follows_the_weights(policy.name, &weights, seed);
        }
    }

    #[test]
    fn any_weights_that_change_in_use_are_obeyed_at_once(
        changes in vec((name(), weight()), 1..20),
        policy in 0..policy::BUILT_IN.len(),
    ) {
        let start = Step::Set(NAMES.iter().map(|&name| (name, 1)).collect());
        let changes = changes.into_iter().map(|(name, weight)| vec![Step::Insert(name, weight)]);
        let batches = std::iter::once(vec![start]).chain(changes).collect();
        runtime().block_on(follows_the_model(policy::BUILT_IN[policy].name, batches));
    }
}
