//! What every policy must satisfy, as checks that can be run on any policy.

use std::sync::Arc;

pub use self::wrapping::check_wrapping;
use super::{PickContext, Picker, Policy};
use crate::{
    endpoint::{Address, Endpoint},
    node::{Gate, Node},
    rng::Rng,
};

mod wrapping;

/// How a policy spreads requests over idle, open nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// Each node gets the same number.
    Even,
    /// Each node gets its share of the weights.
    ByWeight,
    /// Each node gets about its share of the weights: places on a ring are random.
    Roughly,
    /// The policy does not spread.
    Not,
}

/// Checks all laws, with fixed seeds, and panics with the one that does not hold.
///
/// A policy that hashes is checked here without hashes, which means random ones. Check it with
/// [`check_hashing`], too, and one that wraps another with [`check_wrapping`].
///
/// ```
/// use evenkeel::core::policy::{P2c, laws::{self, Spread}};
///
/// laws::check(&P2c, Spread::Even);
/// ```
///
/// # Panics
/// If a law does not hold.
pub fn check(policy: &dyn Policy, spread: Spread) {
    picks_only_open_nodes(policy);
    picks_none_while_all_are_closed(policy);
    avoids_what_was_tried_while_another_is_open(policy);
    survives_changing_weights(policy);
    for weights in [&[1, 1, 1, 1, 1][..], &[5, 1, 1], &[1, 2, 3, 4, 0], &[7; 100]] {
        spreads(policy, spread, &nodes(weights), weights);
    }
    spreads_fairly_around_closed_nodes(policy, spread);
    spreads_first_picks(policy, spread);
    keeps_its_state_over_a_change(policy, spread);
}

fn nodes(weights: &[u32]) -> Vec<Arc<Node>> {
    weights
        .iter()
        .enumerate()
        .map(|(index, &weight)| {
            let address = Address::Name { host: format!("node-{index}").into(), port: 80 };
            Arc::new(Node::new(Endpoint::new(address).weight(weight)))
        })
        .collect()
}

fn pick(picker: &dyn Picker, nodes: &[Arc<Node>], rng: &mut Rng) -> Option<usize> {
    picker.pick(nodes, &mut PickContext::new(rng))
}

/// Whether `picker` may pick `node`: the node is open, or only its health closes it and the picker
/// says that it panics for it.
fn takes(picker: &dyn Picker, node: &Node) -> bool {
    node.is_open() || node.is_usable() && picker.panics(node)
}

fn picks_only_open_nodes(policy: &dyn Policy) {
    let mut rng = Rng::with_seed(1);
    for n in [1, 2, 3, 10, 1_000, 10_000] {
        let nodes = nodes(&vec![3; n]);
        let picker = policy.build(&nodes, None);
        for round in 0..20 {
            for node in &nodes {
                if rng.below(4) < round % 5 {
                    node.close(Gate::Ejected)
                } else {
                    node.open(Gate::Ejected)
                };
            }
            nodes[rng.below(n)].open(Gate::Ejected);
            for _ in 0..20 {
                let picked = pick(&*picker, &nodes, &mut rng);
                let picked = picked.expect("picks while one is open");
                assert!(
                    takes(&*picker, &nodes[picked]),
                    "{} picked a closed node of {n}",
                    policy.name()
                );
            }
        }
    }
}

fn picks_none_while_all_are_closed(policy: &dyn Policy) {
    let mut rng = Rng::with_seed(2);
    for n in [0, 1, 2, 10_000] {
        let nodes = nodes(&vec![1; n]);
        nodes.iter().for_each(|node| _ = node.close(Gate::Breaker));
        let picker = policy.build(&nodes, None);
        let picked = pick(&*picker, &nodes, &mut rng);
        assert_eq!(picked, None, "{} picked a closed node of {n}", policy.name());
    }
    let drained = nodes(&[0, 0]);
    let picker = policy.build(&drained, None);
    assert_eq!(pick(&*picker, &drained, &mut rng), None, "{} ignores weight 0", policy.name());
}

fn avoids_what_was_tried_while_another_is_open(policy: &dyn Policy) {
    let mut rng = Rng::with_seed(3);
    for n in [2, 3, 10, 1_000] {
        let nodes = nodes(&vec![1; n]);
        let picker = policy.build(&nodes, None);
        let tried: Vec<_> = nodes[..n - 1].iter().map(|node| node.id()).collect();
        let excluded = [nodes[0].address().clone()];
        for _ in 0..20 {
            let mut cx = PickContext { avoid: &tried, ..PickContext::new(&mut rng) };
            assert_eq!(picker.pick(&nodes, &mut cx), Some(n - 1), "{}", policy.name());
            let mut cx = PickContext { exclude: &excluded, ..PickContext::new(&mut rng) };
            assert_ne!(picker.pick(&nodes, &mut cx), Some(0), "{}", policy.name());
        }
    }
}

/// A weight may change before the picker is built again, up to its extremes.
fn survives_changing_weights(policy: &dyn Policy) {
    let mut rng = Rng::with_seed(4);
    let nodes = nodes(&[1, 1_000_000, u32::MAX, u32::MAX]);
    let mut picker = policy.build(&nodes, None);
    for round in 0..200 {
        for weight in [0, 1, u32::MAX] {
            let node = &nodes[rng.below(nodes.len())];
            node.update((*node.endpoint()).clone().weight(weight));
            let open = nodes.iter().any(|node| node.is_open());
            let picked = pick(&*picker, &nodes, &mut rng);
            assert_eq!(picked.is_some(), open, "{} in round {round}", policy.name());
        }
        // Some policies take milliseconds to build.
        if round % 5 == 0 {
            picker = policy.build(&nodes, Some(&*picker));
        }
    }
}

fn spreads(policy: &dyn Policy, spread: Spread, nodes: &[Arc<Node>], weights: &[u32]) {
    if spread == Spread::Not {
        return;
    }
    let picker = policy.build(nodes, None);
    let mut rng = Rng::with_seed(5);
    let mut counts = vec![0_u64; nodes.len()];
    for _ in 0..20_000 {
        counts[pick(&*picker, nodes, &mut rng).expect("picks while one is open")] += 1;
    }
    let shares: Vec<_> = nodes
        .iter()
        .zip(weights)
        .map(|(node, &weight)| match (takes(&*picker, node), spread) {
            (false, _) => 0.0,
            (true, Spread::ByWeight | Spread::Roughly) => f64::from(weight),
            (true, _) => 1.0,
        })
        .collect();
    assert_spread(policy.name(), spread, &counts, &shares);
}

fn assert_spread(name: &str, spread: Spread, counts: &[u64], shares: &[f64]) {
    if spread == Spread::Roughly {
        assert_roughly(name, counts, shares);
    } else {
        assert_fits(name, counts, shares);
    }
}

/// The mean deviation from a share is at most half of it, as with four points on a ring.
fn assert_roughly(name: &str, counts: &[u64], shares: &[f64]) {
    let sum: f64 = shares.iter().sum();
    let picks = counts.iter().sum::<u64>() as f64;
    let mut squares = 0.0;
    for (&count, &share) in counts.iter().zip(shares) {
        if share == 0.0 {
            assert_eq!(count, 0, "{name} picked a node that has no share");
        } else {
            squares += share / sum * (count as f64 / (picks * share / sum) - 1.0).powi(2);
        }
    }
    assert!(
        squares.sqrt() < 0.5,
        "{name}: {counts:?} for {shares:?}, off by {:.2}",
        squares.sqrt()
    );
}

/// Pearson's chi-square test. For random picks it fails with less than one in a million seeds.
fn assert_fits(name: &str, counts: &[u64], shares: &[f64]) {
    let sum: f64 = shares.iter().sum();
    let picks = counts.iter().sum::<u64>() as f64;
    let mut statistic = 0.0;
    let mut freedom = -1.0_f64;
    for (&count, &share) in counts.iter().zip(shares) {
        let expected = picks * share / sum;
        if expected == 0.0 {
            assert_eq!(count, 0, "{name} picked a node that has no share");
            continue;
        }
        statistic += (count as f64 - expected).powi(2) / expected;
        freedom += 1.0;
    }
    let limit = freedom + 5.0 * (2.0 * freedom).sqrt() + 15.0;
    assert!(statistic < limit, "{name}: {counts:?} for {shares:?}, chi-square {statistic:.1}");
}

fn spreads_fairly_around_closed_nodes(policy: &dyn Policy, spread: Spread) {
    for (n, closed) in [(5, 1), (100, 50), (100, 97)] {
        let weights: Vec<u32> = (0..n).map(|index| 1 + index % 3).collect();
        let nodes = nodes(&weights);
        // Neighbours are closed together, since a scan to the next one would then be unfair.
        nodes[..closed].iter().for_each(|node| _ = node.close(Gate::Unhealthy));
        spreads(policy, spread, &nodes, &weights);
    }
}

/// Clients that start together and make one request each must not all send it to the same node.
fn spreads_first_picks(policy: &dyn Policy, spread: Spread) {
    if spread == Spread::Not {
        return;
    }
    let weights = [3, 1, 1];
    let mut counts = vec![0_u64; weights.len()];
    for client in 0..100 {
        let nodes = nodes(&weights);
        let picker = policy.build(&nodes, None);
        let mut rng = Rng::with_seed(client);
        counts[pick(&*picker, &nodes, &mut rng).expect("picks while one is open")] += 1;
    }
    assert_spread(policy.name(), spread, &counts, &shares(&weights, spread));
}

/// Building the picker again before each pick must not change how requests spread.
fn keeps_its_state_over_a_change(policy: &dyn Policy, spread: Spread) {
    if spread == Spread::Not {
        return;
    }
    let weights = [3, 1, 1];
    let nodes = nodes(&weights);
    let mut rng = Rng::with_seed(6);
    let mut counts = vec![0_u64; nodes.len()];
    let mut picker = policy.build(&nodes, None);
    for _ in 0..5_000 {
        counts[pick(&*picker, &nodes, &mut rng).expect("picks while one is open")] += 1;
        picker = policy.build(&nodes, Some(&*picker));
    }
    assert_spread(policy.name(), spread, &counts, &shares(&weights, spread));
}

/// The share of the requests that each of the open nodes has.
fn shares(weights: &[u32], spread: Spread) -> Vec<f64> {
    let share = |&weight| if spread == Spread::Even { 1.0 } else { f64::from(weight) };
    weights.iter().map(share).collect()
}

/// Checks what a policy that hashes must also satisfy, and panics with what does not hold.
///
/// * The same hash finds the same node, in whatever order the nodes are listed, and after a
///   rebuild.
/// * When a node closes, only its keys go elsewhere, and they come back when it opens.
/// * A call that has tried a node goes to another one, always the same.
///
/// ```
/// use evenkeel::core::policy::{RingHash, laws};
///
/// laws::check_hashing(&RingHash::new());
/// ```
///
/// # Panics
/// If any of these does not hold.
pub fn check_hashing(policy: &dyn Policy) {
    let mut rng = Rng::with_seed(7);
    for n in [1, 2, 3, 20] {
        let nodes = nodes(&(0..n).map(|index| 1 + index % 3).collect::<Vec<_>>());
        let picker = policy.build(&nodes, None);
        let reversed: Vec<_> = nodes.iter().rev().cloned().collect();
        let other = policy.build(&reversed, Some(&*picker));
        for _ in 0..200 {
            let hash = rng.below_u64(u64::MAX);
            let first = by_hash(&*picker, &nodes, &mut rng, hash, &[]);
            let again = by_hash(&*picker, &nodes, &mut rng, hash, &[]);
            assert_eq!(first, again, "{}: the same hash", policy.name());
            let elsewhere = by_hash(&*other, &reversed, &mut rng, hash, &[]);
            assert_eq!(first, elsewhere, "{}: another order", policy.name());

            let (Some(first), true) = (first, 1 < n) else { continue };
            let second = by_hash(&*picker, &nodes, &mut rng, hash, &[first]);
            assert_ne!(second, Some(first), "{}: tried already", policy.name());
            let node = nodes.iter().find(|node| node.id() == first).expect("one of them");
            node.close(Gate::Ejected);
            let closed = by_hash(&*picker, &nodes, &mut rng, hash, &[]);
            assert_eq!(closed, second, "{}: closed or tried is the same", policy.name());
            node.open(Gate::Ejected);

            let bystander = &nodes[rng.below(nodes.len())];
            bystander.close(Gate::Ejected);
            let picked = by_hash(&*picker, &nodes, &mut rng, hash, &[]);
            assert!(
                picked == Some(first) || bystander.id() == first,
                "{}: a key moved whose node is open",
                policy.name()
            );
            bystander.open(Gate::Ejected);
        }
    }
}

/// The id of the node that a hash finds.
fn by_hash(
    picker: &dyn Picker,
    nodes: &[Arc<Node>],
    rng: &mut Rng,
    hash: u64,
    avoid: &[u64],
) -> Option<u64> {
    let mut cx = PickContext { hash: Some(hash), avoid, ..PickContext::new(rng) };
    picker.pick(nodes, &mut cx).map(|index| nodes[index].id())
}
