//! Weighted round robin: each open node in turn, evenly spread, as often as its weight says.

use std::sync::Arc;

use super::{PickContext, Picker, Policy, draw, previous_as, turns::Turns};
use crate::node::Node;

/// Chooses each open node as often as its weight says, evenly spread, across all clones together.
///
/// Weights 5, 1, 1 give `a a b a c a a` and not `a a a a a b c`. This is nginx's smooth weighted
/// round robin, laid out in a table when the set changes, so that a pick is one atomic addition.
/// If the table would be too large, for thousands of endpoints with mixed weights or for extreme
/// weights, the turns walk the weights in steps of the golden ratio instead. Every node still comes
/// at nearly even distances (the three-gap theorem), and shares are exact in the long run.
///
/// The first turn is drawn at random, as with [`RoundRobin`](super::RoundRobin). The position
/// survives changes of the set and of weights.
#[derive(Clone, Copy, Debug, Default)]
pub struct WeightedRoundRobin;

impl Policy for WeightedRoundRobin {
    fn name(&self) -> &'static str {
        "weighted_round_robin"
    }

    fn build(&self, nodes: &[Arc<Node>], previous: Option<&dyn Picker>) -> Box<dyn Picker> {
        let turns = previous_as::<WeightedPicker>(previous).map(|picker| picker.turns.clone());
        let weights: Vec<_> = nodes.iter().map(|node| node.weight()).collect();
        Box::new(WeightedPicker { turns: turns.unwrap_or_default(), order: Order::new(&weights) })
    }
}

struct WeightedPicker {
    turns: Arc<Turns>,
    order: Order,
}

impl Picker for WeightedPicker {
    fn pick(&self, nodes: &[Arc<Node>], cx: &mut PickContext<'_>) -> Option<usize> {
        cx.tell(|| "the next in turn, by weight, that is open".into());
        let weight = |node: &Node| node.weight().into();
        if matches!(self.order, Order::NoWeights) {
            // There are no turns to take; weights may have come since.
            return draw::scan(nodes, cx, None, weight);
        }
        self.turns.pick(nodes, cx, |turn| self.order.at(turn), weight)
    }
}

/// Which index has which turn.
#[derive(Debug)]
enum Order {
    /// All weights are zero.
    NoWeights,
    /// All weights are equal: `turn % n`.
    Even(u64),
    /// A smooth sequence that repeats.
    Table(Box<[u32]>),
    /// Steps of the golden ratio over the weights laid end to end.
    Golden(Golden),
}

impl Order {
    /// A table is laid out if this many steps suffice: about a millisecond.
    const TABLE_STEPS: u64 = 1 << 20;

    fn new(weights: &[u32]) -> Self {
        let divisor = weights.iter().fold(0, |divisor, &weight| gcd(divisor, weight));
        let Some(&first) = weights.first().filter(|_| divisor != 0) else { return Self::NoWeights };
        if weights.iter().all(|&weight| weight == first) {
            return Self::Even(weights.len() as u64);
        }
        let length: u64 = weights.iter().map(|&weight| u64::from(weight / divisor)).sum();
        if length.saturating_mul(weights.len() as u64) <= Self::TABLE_STEPS {
            Self::Table(smooth(weights, divisor, length))
        } else {
            Self::Golden(Golden::new(weights))
        }
    }

    fn at(&self, turn: u64) -> Option<usize> {
        match self {
            Self::NoWeights => None,
            Self::Even(n) => Some((turn % n) as usize),
            Self::Table(table) => Some(table[(turn % table.len() as u64) as usize] as usize),
            Self::Golden(golden) => Some(golden.at(turn)),
        }
    }
}

/// One period of nginx's smooth weighted round robin. On each turn all gain their weight. The one
/// that then has most, the first among equals, gets the turn and pays the sum.
fn smooth(weights: &[u32], divisor: u32, length: u64) -> Box<[u32]> {
    let mut credit = vec![0_i64; weights.len()];
    (0..length)
        .map(|_| {
            let mut best = 0;
            for (index, weight) in weights.iter().enumerate() {
                credit[index] += i64::from(weight / divisor);
                if credit[best] < credit[index] {
                    best = index;
                }
            }
            credit[best] -= length as i64;
            best as u32
        })
        .collect()
}

/// The weights laid end to end on a line, walked in steps of the golden ratio.
#[derive(Debug)]
struct Golden {
    /// Where each index ends on the line.
    ends: Box<[u64]>,
    /// For each of as many equal stretches of the line as there are indices: the index at its
    /// start.
    starts: Box<[u32]>,
}

impl Golden {
    /// 2^64 divided by the golden ratio.
    const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

    fn new(weights: &[u32]) -> Self {
        let mut end = 0;
        let ends: Box<[u64]> = weights
            .iter()
            .map(|&weight| {
                end += u64::from(weight);
                end
            })
            .collect();
        let n = weights.len() as u64;
        let mut holder = 0;
        let starts = (0..n)
            .map(|stretch| {
                let start = (u128::from(stretch) * u128::from(end) / u128::from(n)) as u64;
                while ends[holder] <= start {
                    holder += 1;
                }
                holder as u32
            })
            .collect();
        Self { ends, starts }
    }

    /// The index at the point that the walk reaches on this turn, in constant time on average.
    fn at(&self, turn: u64) -> usize {
        let fraction = u128::from(turn.wrapping_mul(Self::STEP));
        let length = *self.ends.last().expect("built over at least two weights");
        let point = ((fraction * u128::from(length)) >> 64) as u64;
        let stretch = ((fraction * self.starts.len() as u128) >> 64) as usize;
        let mut index = self.starts[stretch] as usize;
        while self.ends[index] <= point {
            index += 1;
        }
        index
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picks(weights: &[u32], turns: u64) -> Vec<usize> {
        let order = Order::new(weights);
        (0..turns).map(|turn| order.at(turn).unwrap()).collect()
    }

    #[test]
    fn turns_come_in_the_order_of_nginx() {
        assert_eq!(picks(&[5, 1, 1], 7), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(picks(&[3, 2, 1], 6), [0, 1, 0, 2, 1, 0]);
        assert_eq!(picks(&[10, 1], 11), [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn weights_with_a_common_divisor_are_as_smooth_as_without() {
        assert_eq!(picks(&[500, 100, 100], 14), picks(&[5, 1, 1], 14));
    }

    #[test]
    fn extreme_weights_get_their_exact_share() {
        let turns = 3_000_003;
        let rare = picks(&[1, 1_000_000], turns).iter().filter(|&&index| index == 0).count();
        assert!((2..=4).contains(&rare), "{rare} of {turns}");
    }

    #[test]
    fn a_walk_of_golden_steps_spreads_every_index_evenly() {
        let weights: Vec<u32> = (1..=2_000).collect();
        let golden = Golden::new(&weights);
        let length: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
        let mut counts = vec![0_i64; weights.len()];
        let turns = length * 4;
        for turn in 0..turns {
            counts[golden.at(turn)] += 1;
        }
        for (count, weight) in counts.iter().zip(&weights) {
            assert!(
                (count - 4 * i64::from(*weight)).abs() <= 4,
                "{count} turns at weight {weight}"
            );
        }
    }

    #[test]
    fn weights_of_zero_have_no_turn() {
        assert_eq!(picks(&[0, 2, 0, 1], 3), [1, 3, 1]);
        assert!(Order::new(&[0, 0]).at(0).is_none());
        assert!(Order::new(&[]).at(0).is_none());
    }
}
