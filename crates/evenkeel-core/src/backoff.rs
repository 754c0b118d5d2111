//! How long to wait before trying again.

use std::time::Duration;

use crate::{rng::Rng, time::scaled};

/// Exponential back-off with jitter, so that callers that failed together do not come back
/// together.
///
/// It has three shapes, each a well-known formula. With `n` counted from 0:
///
/// | constructor | delay before try `n` | use it for |
/// |---|---|---|
/// | [`new`](Self::new): equal jitter | uniform in `[d/2, d]`, `d = min(max, min·2ⁿ)` | loops that must never spin: reconnecting, polling |
/// | [`full_jitter`](Self::full_jitter): Envoy's | uniform in `[0, min(max, base·(2ⁿ⁺¹−1)))` | requests: spreads best, and the first retry is soon |
/// | [`grpc`](Self::grpc): gRFC A6 | `min(max, initial·multiplierⁿ)`, ±20 % | gRPC's service configurations |
///
/// ```
/// use std::time::Duration;
/// use evenkeel::core::{backoff::Backoff, rng::Rng};
///
/// let mut rng = Rng::with_seed(1);
/// let equal = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
/// assert!((400..=800).contains(&equal.delay(3, &mut rng).as_millis()));
///
/// let full = Backoff::full_jitter(Duration::from_millis(25), Duration::from_millis(250));
/// assert!(full.delay(0, &mut rng) < Duration::from_millis(25));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    shape: Shape,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Equal,
    Full,
    /// The multiplier in thousandths.
    Grpc(u32),
}

impl Backoff {
    /// Delays with equal jitter that grow from `min` to `max`: half of each is certain.
    ///
    /// # Panics
    /// If `min` is zero or above `max`.
    #[must_use]
    pub fn new(min: Duration, max: Duration) -> Self {
        Self::with_shape(min, max, Shape::Equal)
    }

    /// Delays with full jitter, the first one below `base`, none above `max`, as Envoy has them.
    ///
    /// A delay may be nearly zero: a budget or a number of attempts has to bound the tries.
    ///
    /// # Panics
    /// If `base` is zero or above `max`.
    #[must_use]
    pub fn full_jitter(base: Duration, max: Duration) -> Self {
        Self::with_shape(base, max, Shape::Full)
    }

    /// Delays of `initial·multiplierⁿ`, at most `max`, each up to a fifth shorter or longer (gRFC A6).
    ///
    /// The multiplier counts in thousandths.
    ///
    /// # Panics
    /// If `initial` is zero or above `max`, or `multiplier` is below 1 or above 1,000.
    #[must_use]
    pub fn grpc(initial: Duration, multiplier: f64, max: Duration) -> Self {
        assert!((1.0..=1_000.0).contains(&multiplier), "a multiplier of {multiplier}");
        Self::with_shape(initial, max, Shape::Grpc((multiplier * 1_000.0).round() as u32))
    }

    fn with_shape(min: Duration, max: Duration, shape: Shape) -> Self {
        assert!(Duration::ZERO < min, "a back-off of zero spins");
        assert!(min <= max, "the least delay lies above the greatest");
        Self { min, max, shape }
    }

    /// The delay before try `n`, counted from 0.
    pub fn delay(&self, n: u32, rng: &mut Rng) -> Duration {
        match self.shape {
            Shape::Equal => {
                let full = self.min.saturating_mul(2_u32.saturating_pow(n)).min(self.max);
                full / 2 + (full / 2).mul_f64(rng.unit())
            }
            Shape::Full => {
                let steps = 2_u32.saturating_pow(n.saturating_add(1)) - 1;
                self.min.saturating_mul(steps).min(self.max).mul_f64(rng.unit())
            }
            Shape::Grpc(thousandths) => {
                let growth = (f64::from(thousandths) / 1_000.0).powf(f64::from(n));
                // Growth may be infinite: the ratio bounds it before it becomes a duration.
                let max_growth = self.max.as_secs_f64() / self.min.as_secs_f64();
                scaled(self.min, growth.min(max_growth) * (0.8 + 0.4 * rng.unit()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn delays_double_up_to_the_maximum_and_jitter_takes_at_most_half() {
        let backoff = Backoff::new(ms(100), Duration::from_secs(1));
        let mut rng = Rng::with_seed(3);
        for (n, full) in [(0, 100), (1, 200), (3, 800), (4, 1_000), (40, 1_000), (u32::MAX, 1_000)]
        {
            for _ in 0..100 {
                let delay = backoff.delay(n, &mut rng);
                assert!(ms(full / 2) <= delay, "{delay:?} at {n}");
                assert!(delay <= ms(full), "{delay:?} at {n}");
            }
        }
    }

    #[test]
    fn full_jitter_keeps_to_envoys_table() {
        let backoff = Backoff::full_jitter(ms(25), ms(250));
        let mut rng = Rng::with_seed(3);
        // Whole milliseconds of attempts 1, 2, 3 and where the cap holds.
        for (n, last) in [(0, 24), (1, 74), (2, 174), (3, 249), (60, 249), (u32::MAX, 249)] {
            let drawn: Vec<_> =
                (0..20_000).map(|_| backoff.delay(n, &mut rng).as_millis()).collect();
            assert_eq!(drawn.iter().min(), Some(&0), "try {n}");
            assert_eq!(drawn.iter().max(), Some(&last), "try {n}");
            let mean = drawn.iter().sum::<u128>() as f64 / drawn.len() as f64;
            assert!((mean - last as f64 / 2.0).abs() < last as f64 / 40.0, "try {n}: {mean}");
        }
    }

    #[test]
    fn grpc_delays_grow_by_a_factor_with_a_jitter_of_a_fifth() {
        let backoff = Backoff::grpc(ms(100), 1.6, ms(400));
        let mut rng = Rng::with_seed(3);
        for (n, middle) in [(0, 100), (1, 160), (2, 256), (3, 400), (u32::MAX, 400)] {
            let drawn: Vec<_> =
                (0..20_000).map(|_| backoff.delay(n, &mut rng).as_secs_f64() * 1e3).collect();
            let least = drawn.iter().copied().fold(f64::MAX, f64::min) / f64::from(middle);
            let greatest = drawn.iter().copied().fold(0.0, f64::max) / f64::from(middle);
            assert!((0.8..0.81).contains(&least), "try {n}: {least}");
            assert!((1.19..=1.2).contains(&greatest), "try {n}: {greatest}");
        }
    }

    #[test]
    fn two_callers_do_not_wait_equally_long() {
        let mut rng = Rng::with_seed(3);
        let (mut a, mut b) = (rng.fork(), rng.fork());
        for backoff in [Backoff::new(ms(100), ms(1_000)), Backoff::full_jitter(ms(100), ms(1_000))]
        {
            assert_ne!(backoff.delay(0, &mut a), backoff.delay(0, &mut b));
        }
    }

    #[test]
    fn extreme_bounds_do_not_overflow_a_delay() {
        let nanosecond = Duration::from_nanos(1);
        let mut rng = Rng::with_seed(3);
        for n in [0, 1, 31, 64, u32::MAX] {
            for backoff in [
                Backoff::new(nanosecond, Duration::MAX),
                Backoff::new(Duration::MAX, Duration::MAX),
                Backoff::full_jitter(nanosecond, Duration::MAX),
                Backoff::full_jitter(Duration::MAX, Duration::MAX),
                Backoff::grpc(nanosecond, 1_000.0, Duration::MAX),
                Backoff::grpc(Duration::MAX, 1.0, Duration::MAX),
            ] {
                (0..50).for_each(|_| _ = backoff.delay(n, &mut rng));
            }
        }
    }
}
