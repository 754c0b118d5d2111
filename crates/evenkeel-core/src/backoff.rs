//! How long to wait before trying again.

use std::time::Duration;

use crate::rng::Rng;

/// Exponential back-off with equal jitter: half of the delay is certain, half is drawn.
///
/// The delay before try `n`, counted from 0, is uniform in `[d/2, d]` with `d = min(max, min·2ⁿ)`.
/// It is never zero, so that nothing spins, and two of them are not correlated.
///
/// ```
/// use std::time::Duration;
/// use evenkeel_core::{backoff::Backoff, rng::Rng};
///
/// let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
/// let delay = backoff.delay(3, &mut Rng::with_seed(1));
/// assert!((400..=800).contains(&delay.as_millis()));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    min: Duration,
    max: Duration,
}

impl Backoff {
    /// Delays that grow from `min` to `max`.
    ///
    /// # Panics
    /// If `min` is zero or above `max`.
    #[must_use]
    pub fn new(min: Duration, max: Duration) -> Self {
        assert!(Duration::ZERO < min, "a back-off of zero spins");
        assert!(min <= max, "the least delay lies above the greatest");
        Self { min, max }
    }

    /// The delay before try `n`, counted from 0.
    pub fn delay(&self, n: u32, rng: &mut Rng) -> Duration {
        let full = self.min.saturating_mul(2_u32.saturating_pow(n)).min(self.max);
        full / 2 + (full / 2).mul_f64(rng.unit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_greatest_and_keep_half() {
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let mut rng = Rng::with_seed(3);
        for (n, full) in [(0, 100), (1, 200), (3, 800), (4, 1_000), (40, 1_000), (u32::MAX, 1_000)]
        {
            for _ in 0..100 {
                let delay = backoff.delay(n, &mut rng);
                assert!(Duration::from_millis(full / 2) <= delay, "{delay:?} at {n}");
                assert!(delay <= Duration::from_millis(full), "{delay:?} at {n}");
            }
        }
    }

    #[test]
    fn two_callers_do_not_wait_the_same() {
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let mut rng = Rng::with_seed(3);
        let (mut a, mut b) = (rng.fork(), rng.fork());
        assert_ne!(backoff.delay(0, &mut a), backoff.delay(0, &mut b));
    }
}
