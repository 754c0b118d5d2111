//! gRPC's static stride: turns by weights that may change at any moment.

use crate::sync::{AtomicU32, Ordering};

/// The greatest weight is scaled to this.
const SCALE: u64 = 65_535;

/// How far above or below the mean a weight may be. It bounds how many turns a pick takes.
const MAX_RATIO: f64 = 10.0;

/// How often each index has a turn, scaled so that the one with most has one in every round.
#[derive(Debug)]
pub(super) struct Strides(Box<[AtomicU32]>);

impl Strides {
    /// Gives each index a turn in every round.
    pub(super) fn even(count: usize) -> Self {
        Self((0..count).map(|_| AtomicU32::new(SCALE as u32)).collect())
    }

    /// Sets the weights. Those not known are `None` and get the mean of the others.
    ///
    /// With fewer than two known weights, all are even. Weights beyond ten times the mean, or below
    /// a tenth of it, are cut to that limit (grpc-java does so, grpc-go does not).
    pub(super) fn set(&self, weights: impl Iterator<Item = Option<f64>> + Clone) {
        let known = weights.clone().flatten();
        let count = known.clone().count();
        // Divided before summing: so the mean is finite even if the sum of the weights is not.
        let mean: f64 = known.clone().map(|weight| weight / count as f64).sum();
        if count < 2 || !(0.0 < mean && mean.is_finite()) {
            self.0.iter().for_each(|stride| stride.store(SCALE as u32, Ordering::Relaxed));
            return;
        }
        let max = known.fold(0.0, f64::max).min(mean * MAX_RATIO);
        let scale = SCALE as f64 / max;
        let min = (mean / MAX_RATIO * scale).ceil();
        for (stride, weight) in self.0.iter().zip(weights) {
            let scaled = (weight.unwrap_or(mean).min(max) * scale).round().max(min);
            stride.store(scaled as u32, Ordering::Relaxed);
        }
    }

    /// The index that has this turn, or `None` if the index in this place skips it to keep to its
    /// weight.
    #[inline]
    pub(super) fn at(&self, turn: u64) -> Option<usize> {
        let count = self.0.len() as u64;
        let (index, round) = (turn % count, turn / count);
        let weight = u64::from(self.0[index as usize].load(Ordering::Relaxed));
        // Half a stride apart, so that neighbours of the same weight do not skip the same round.
        let offset = (SCALE / 2).wrapping_mul(index);
        let passes = weight.wrapping_mul(round).wrapping_add(offset) % SCALE < SCALE - weight;
        (!passes).then_some(index as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strides(weights: &[f64]) -> Strides {
        let strides = Strides::even(weights.len());
        let known = weights.iter().map(|&weight| Some(weight).filter(|&weight| 0.0 < weight));
        strides.set(known);
        strides
    }

    fn picks(strides: &Strides, from: u64, count: usize) -> (Vec<usize>, u64) {
        let mut turn = from;
        let mut picks = Vec::new();
        while picks.len() < count {
            picks.extend(strides.at(turn));
            turn += 1;
        }
        (picks, turn)
    }

    /// The cases of grpc-java's `StaticStrideSchedulerTest`.
    #[test]
    fn turns_come_in_the_order_of_grpc() {
        let strides = strides(&[2.0, 3.0, 6.0]);
        let (picked, _) = picks(&strides, 0, 12);
        assert_eq!(picked, [1, 2, 2, 0, 1, 2, 2, 1, 2, 0, 2, 1]);

        let mut turn = 0;
        for after in [2, 3, 6, 7, 8, 9] {
            turn = picks(&strides, turn, 1).1;
            assert_eq!(turn, after);
        }
    }

    #[test]
    fn each_endpoint_has_as_many_turns_as_with_grpc() {
        let cases: [(&[f64], usize, &[usize]); 4] = [
            (&[1.0, 2.0, 3.0], 6, &[1, 2, 3]),
            (&[3.0, -1.0, 1.0], 6, &[3, 2, 1]),
            (&[0.0, 0.0, 0.0], 6, &[2, 2, 2]),
            (&[100.0, 1e-10], 105, &[100, 5]),
        ];
        for (weights, count, expected) in cases {
            let (picked, _) = picks(&strides(weights), 0, count);
            let counts: Vec<_> = (0..weights.len())
                .map(|index| picked.iter().filter(|&&picked| picked == index).count())
                .collect();
            assert_eq!(counts, expected, "{weights:?}");
        }
    }

    #[test]
    fn shares_are_those_of_the_weights() {
        for weights in
            [&[1.43, 2.119][..], &[1.3, 2.5, 3.23, 4.11, 7.001], &[1.0, 2.0, 3.0, 4.0, 5.0]]
        {
            let (picked, _) = picks(&strides(weights), 0, 1_000);
            let sum: f64 = weights.iter().sum();
            for (index, weight) in weights.iter().enumerate() {
                let count = picked.iter().filter(|&&picked| picked == index).count();
                let difference = (count as f64 / 1_000.0 - weight / sum).abs();
                assert!(difference < 0.002, "{difference} off at {index} of {weights:?}");
            }
        }
    }

    #[test]
    fn extreme_weights_and_turns_do_not_panic() {
        for weights in [&[f64::MAX, f64::MAX, 1.0][..], &[5e-324, 5e-324], &[f64::MAX, 5e-324]] {
            let strides = strides(weights);
            for from in [0, 1 << 40, u64::MAX - 1_000] {
                picks(&strides, from, 10);
            }
        }
    }
}
