//! Randomness as an argument: small, fast, seeded, not for secrets.

// Not loom's: seeds order nothing.
use std::sync::atomic::{AtomicU64, Ordering};

/// A seeded generator of pseudo-random numbers (wyrand, 64 bits of state).
///
/// It is deliberately not `Clone`: two balancers that draw the same numbers pick the same
/// endpoints, and two calls with the same back-off collide again. [`Rng::fork`] makes an
/// independent generator.
///
/// ```
/// use evenkeel::core::rng::Rng;
///
/// let mut rng = Rng::with_seed(42);
/// assert!(rng.below(10) < 10);
/// assert_ne!(rng.fork().below(1 << 30), rng.below(1 << 30));
/// ```
#[derive(Debug)]
pub struct Rng(fastrand::Rng);

impl Rng {
    /// A generator that gives the same numbers for the same seed.
    #[must_use]
    pub fn with_seed(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// A generator seeded from the process's own entropy.
    #[must_use]
    pub fn from_entropy() -> Self {
        Self(fastrand::Rng::new())
    }

    /// Another generator, independent of the numbers that this one gives from now on.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self(self.0.fork())
    }

    /// A uniform number below `bound`.
    ///
    /// # Panics
    /// If `bound` is zero.
    #[inline]
    pub fn below(&mut self, bound: usize) -> usize {
        self.0.usize(0..bound)
    }

    /// Two distinct numbers below `bound`, from one draw: uniform up to a share of `bound / 2³²`.
    ///
    /// # Panics
    /// If `bound` is below 2 or above `u32::MAX`.
    #[inline]
    pub fn two_below(&mut self, bound: usize) -> (usize, usize) {
        assert!(2 <= bound && bound <= u32::MAX as usize, "two of {bound} numbers");
        let (bound, draw) = (bound as u64, self.0.u64(..));
        // Multiply and shift: the upper half of a 32-bit draw times the bound (Lemire 2019).
        let first = ((draw >> 32) * bound) >> 32;
        let second = ((draw & u64::from(u32::MAX)) * (bound - 1)) >> 32;
        (first as usize, (second + u64::from(first <= second)) as usize)
    }

    /// A uniform number below `bound`.
    ///
    /// # Panics
    /// If `bound` is zero.
    #[inline]
    pub fn below_u64(&mut self, bound: u64) -> u64 {
        self.0.u64(0..bound)
    }

    /// A uniform number in `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        self.0.f64()
    }
}

/// Seeds for generators that many threads may need at once, now and then.
///
/// ```
/// use evenkeel::core::rng::Seeds;
///
/// let seeds = Seeds::new(42);
/// assert_ne!(seeds.rng().below(1 << 30), seeds.rng().below(1 << 30));
/// ```
#[derive(Debug)]
pub struct Seeds(AtomicU64);

impl Seeds {
    /// Seeds that follow from `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// Seeds that follow from the process's own entropy.
    #[must_use]
    pub fn from_entropy() -> Self {
        Self::new(Rng::from_entropy().below_u64(u64::MAX))
    }

    /// A generator that draws different numbers from those before it.
    #[must_use]
    pub fn rng(&self) -> Rng {
        // An odd step visits every seed once. The generator mixes the bits.
        Rng::with_seed(self.0.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_numbers_are_distinct_and_every_pair_is_as_likely() {
        let mut rng = Rng::with_seed(9);
        let mut counts = [[0_u32; 5]; 5];
        for _ in 0..100_000 {
            let (first, second) = rng.two_below(5);
            counts[first][second] += 1;
        }
        for (first, row) in counts.iter().enumerate() {
            for (second, &count) in row.iter().enumerate() {
                let expected = if first == second { 0 } else { 5_000 };
                assert!(count.abs_diff(expected) < 400, "{count} times ({first}, {second})");
            }
        }
    }
}
