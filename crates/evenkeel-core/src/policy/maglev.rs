//! Maglev: requests of the same key to the same node, by a table in which all have exact shares.

use std::{cmp::Reverse, collections::BinaryHeap, sync::Arc};

use super::{
    Picker, Policy,
    hashed::{HashedPicker, Keyed, STEPS, Table},
    load_bound::checked,
};
use crate::{
    hash::{xxh64, xxh64_seeded},
    node::Node,
};

/// Looks up the request's hash in a table in which each node has as many slots as its weight says.
///
/// Maglev hashing (Eisenbud and others 2016), with Envoy's table: nodes in the order of their keys,
/// xxHash64 for their permutations, and turns skipped according to weight. The key is the value of
/// `hash_key` in the metadata, else the address as it is written.
///
/// **Use it** for caches and sessions where shares must be even: the spread is nearly perfect, and
/// a pick is the cheapest of all policies that hash. **Not** where as few keys as possible may
/// move: when one of `n` endpoints changes, its keys move, `1 / n` of all, and up to one percent of
/// all others.
///
/// * If a request's node is closed, full or already tried, it is looked up under another hash, as
///   Envoy does for retries, until a node is found that takes it. So a closed node's keys go to all
///   others.
/// * A request without a hash gets a random slot: see [`Hints::hash`](crate::traffic::Hints::hash).
/// * A pick costs O(1), and O(n) while nearly all nodes are closed. Building a table for 10,000
///   nodes costs some milliseconds, off the request path. It takes four bytes a slot, whatever the
///   number of nodes.
///
/// ```
/// use std::sync::Arc;
/// use evenkeel::core::{hash::xxh64, node::Node, policy::{Maglev, PickContext, Policy}, rng::Rng};
///
/// let nodes: Vec<_> = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]
///     .map(|address| Arc::new(Node::new(address.parse().unwrap())))
///     .into();
/// let picker = Maglev::new().build(&nodes, None);
/// let mut rng = Rng::with_seed(1);
/// let mut cx = PickContext { hash: Some(xxh64(b"alice")), ..PickContext::new(&mut rng) };
/// assert_eq!(picker.pick(&nodes, &mut cx), picker.pick(&nodes, &mut cx));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Maglev {
    table_size: u32,
    factor: Option<f64>,
}

impl Maglev {
    /// The maximum size of a table, as in Envoy.
    pub const MAX_TABLE_SIZE: u32 = 5_000_011;

    /// Primes that are used if a table is too small for all nodes.
    const LARGER: [u32; 2] = [655_373, Self::MAX_TABLE_SIZE];

    /// Makes a table of 65,537 slots.
    #[must_use]
    pub fn new() -> Self {
        Self { table_size: 65_537, factor: None }
    }

    /// Sets the number of slots, a prime. Default: 65,537, good for 650 endpoints.
    ///
    /// With a hundred slots for each node, no share is off by more than one percent, and few keys
    /// move unnecessarily. If there are more nodes than slots, 655,373 or 5,000,011 slots are used,
    /// so that no node is left without one.
    ///
    /// # Panics
    /// If `slots` is not a prime, or more than [`MAX_TABLE_SIZE`](Self::MAX_TABLE_SIZE).
    #[must_use]
    pub fn table_size(mut self, slots: u32) -> Self {
        assert!(slots <= Self::MAX_TABLE_SIZE, "{slots} slots are too many");
        assert!(is_prime(slots), "{slots} is no prime");
        self.table_size = slots;
        self
    }

    /// Bounds what a node may have in flight to `factor` times its share. Default: no bound. 1.25
    /// is usual.
    ///
    /// See [`RingHash::bounded_load`](super::RingHash::bounded_load).
    ///
    /// # Panics
    /// If `factor` is less than 1 or not a number.
    #[must_use]
    pub fn bounded_load(mut self, factor: f64) -> Self {
        self.factor = Some(checked(factor));
        self
    }

    fn table(self, nodes: &[Keyed]) -> Slots {
        let fits = |size: u32| nodes.len() <= size as usize;
        let larger = Self::LARGER.into_iter().find(|&size| fits(size));
        let size = if fits(self.table_size) {
            self.table_size
        } else {
            larger.unwrap_or(Self::MAX_TABLE_SIZE)
        };
        Slots::new(nodes, size)
    }
}

fn is_prime(number: u32) -> bool {
    let mut divisors = (2_u32..).take_while(|divisor| divisor * divisor <= number);
    2 <= number && divisors.all(|divisor| !number.is_multiple_of(divisor))
}

/// The node of each slot. Empty if there are no nodes.
#[derive(Debug)]
struct Slots(Box<[u32]>);

/// A node's path through the slots.
struct Turns {
    slot: u32,
    skip: u32,
    /// As a share of all weights.
    weight: f64,
    /// The node has a turn in the first round in which its weight times the round reaches this.
    target: f64,
}

const FREE: u32 = u32::MAX;

impl Slots {
    fn new(nodes: &[Keyed], size: u32) -> Self {
        let Some(most) = nodes.iter().map(|node| node.weight).max() else {
            return Self(Box::default());
        };
        // Floating point and repeated addition, as in Envoy, so that rounding is the same.
        let sum: f64 = nodes.iter().map(|node| f64::from(node.weight)).sum();
        let most = f64::from(most) / sum;
        let mut turns: Vec<_> = nodes
            .iter()
            .map(|node| Turns {
                slot: (xxh64(node.key.as_bytes()) % u64::from(size)) as u32,
                skip: (xxh64_seeded(node.key.as_bytes(), 1) % u64::from(size - 1)) as u32 + 1,
                weight: f64::from(node.weight) / sum,
                target: 0.0,
            })
            .collect();

        // Skips rounds in which a node has no turn: with uneven weights those are the majority.
        let mut slots = vec![FREE; size as usize];
        let mut due: BinaryHeap<_> =
            (0..nodes.len()).map(|index| Reverse((1_u64, index))).collect();
        for _ in 0..size {
            let mut first = due.peek_mut().expect("every node has another turn");
            let Reverse((round, index)) = *first;
            let own = &mut turns[index];
            while slots[own.slot as usize] != FREE {
                own.go_on(size);
            }
            slots[own.slot as usize] = nodes[index].index;
            own.go_on(size);
            own.target += most;
            *first = Reverse((own.due_after(round), index));
        }
        Self(slots.into())
    }
}

impl Turns {
    fn go_on(&mut self, size: u32) {
        let next = u64::from(self.slot) + u64::from(self.skip);
        self.slot = (if next < u64::from(size) { next } else { next - u64::from(size) }) as u32;
    }

    /// The first round after `round` in which it has a turn.
    fn due_after(&self, round: u64) -> u64 {
        let has_turn = |round: u64| self.target <= round as f64 * self.weight;
        let mut due = ((self.target / self.weight) as u64).max(round + 1);
        // The division rounds, so the multiplication decides.
        while round + 1 < due && has_turn(due - 1) {
            due -= 1;
        }
        while !has_turn(due) {
            due += 1;
        }
        due
    }
}

impl Table for Slots {
    fn candidates(&self, hash: u64) -> impl Iterator<Item = u32> {
        let size = self.0.len() as u64;
        let steps = if size == 0 { 0 } else { STEPS as u64 };
        // The first is for the hash itself, the others for Envoy's hashes for retries.
        (0..steps).map(move |step| self.0[((hash ^ step.wrapping_neg()) % size) as usize])
    }
}

impl Default for Maglev {
    fn default() -> Self {
        Self::new()
    }
}

impl Policy for Maglev {
    fn name(&self) -> &'static str {
        "maglev"
    }

    fn build(&self, nodes: &[Arc<Node>], previous: Option<&dyn Picker>) -> Box<dyn Picker> {
        HashedPicker::build(nodes, previous, self.factor, |nodes| self.table(nodes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyed(endpoints: &[(&str, u32)]) -> Vec<Keyed> {
        let keyed = |(index, &(key, weight)): (u32, &(&str, u32))| Keyed {
            key: key.to_owned(),
            weight,
            index,
        };
        (0..).zip(endpoints).map(keyed).collect()
    }

    #[test]
    fn the_table_is_that_of_envoy() {
        let hosts: Vec<String> = (90..=95).map(|port| format!("127.0.0.1:{port}")).collect();
        let hosts: Vec<_> = hosts.iter().map(|host| (host.as_str(), 1)).collect();

        let table = Maglev::new().table_size(7).table(&keyed(&hosts));

        assert_eq!(&*table.0, [2, 4, 0, 1, 5, 0, 3]);
    }

    #[test]
    fn a_node_goes_through_its_permutation_as_in_the_paper() {
        let permutation = |offset, skip| {
            let mut turns = Turns { slot: offset, skip, weight: 1.0, target: 0.0 };
            (0..7)
                .map(|_| {
                    let slot = turns.slot;
                    turns.go_on(7);
                    slot
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(permutation(3, 4), [3, 0, 4, 1, 5, 2, 6]);
        assert_eq!(permutation(0, 2), [0, 2, 4, 6, 1, 3, 5]);
        assert_eq!(permutation(3, 1), [3, 4, 5, 6, 0, 1, 2]);
    }

    #[test]
    fn every_node_has_the_slots_of_its_weight() {
        for weights in [vec![1; 7], vec![1, 2, 3], vec![1, 1_000], vec![5, 0, 3]] {
            let names: Vec<_> = (0..weights.len()).map(|index| format!("node-{index}")).collect();
            let nodes: Vec<_> = names.iter().map(String::as_str).zip(weights.clone()).collect();
            let nodes: Vec<_> = nodes.into_iter().filter(|node| 0 < node.1).collect();
            let table = Maglev::new().table(&keyed(&nodes));

            let sum: u32 = weights.iter().sum();
            for (index, (name, weight)) in (0..).zip(nodes) {
                let slots = table.0.iter().filter(|&&owner| owner == index).count() as f64;
                let expected = f64::from(weight) / f64::from(sum) * 65_537.0;
                assert!((slots - expected).abs() < 2.0, "{name} has {slots}, not {expected}");
            }
        }
    }

    /// The rounds are those of a loop that visits all nodes in each round.
    #[test]
    fn skipping_the_rounds_without_a_turn_changes_nothing() {
        let weights = [3_u32, 1, 10, 7, 1, 1_000];
        let names: Vec<_> = (0..weights.len()).map(|index| format!("node-{index}")).collect();
        let nodes: Vec<_> = names.iter().map(String::as_str).zip(weights).collect();
        let nodes = keyed(&nodes);
        let size = 1_009_u32;

        let sum: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
        let mut slots = vec![FREE; size as usize];
        let mut next = vec![0_u64; nodes.len()];
        let mut target = vec![0.0; nodes.len()];
        let mut filled = 0;
        for round in 1_u32.. {
            for (index, node) in nodes.iter().enumerate() {
                let weight = f64::from(node.weight) / sum;
                if filled == size || f64::from(round) * weight < target[index] {
                    continue;
                }
                target[index] += 1_000.0 / sum;
                let offset = xxh64(node.key.as_bytes()) % u64::from(size);
                let skip = xxh64_seeded(node.key.as_bytes(), 1) % u64::from(size - 1) + 1;
                loop {
                    let slot = ((offset + skip * next[index]) % u64::from(size)) as usize;
                    next[index] += 1;
                    if slots[slot] == FREE {
                        slots[slot] = node.index;
                        filled += 1;
                        break;
                    }
                }
            }
            if filled == size {
                break;
            }
        }

        assert_eq!(*Slots::new(&nodes, size).0, *slots);
    }

    #[test]
    #[should_panic(expected = "65536 is no prime")]
    fn a_table_whose_size_is_no_prime_is_refused() {
        let _ = Maglev::new().table_size(65_536);
    }
}
