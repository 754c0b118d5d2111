//! Randomness as an argument: small, fast, seeded, not for secrets.

/// A seeded generator of pseudo-random numbers (wyrand, 64 bits of state).
///
/// It is deliberately not `Clone`: two balancers that draw the same numbers herd, and two calls with
/// the same back-off collide again. [`Rng::fork`] makes an independent one.
///
/// ```
/// use evenkeel_core::rng::Rng;
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

    /// Another generator, independent of what this one gives from now on.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self(self.0.fork())
    }

    /// A uniform number below `bound`.
    ///
    /// # Panics
    /// If `bound` is zero.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0.usize(0..bound)
    }

    /// A uniform number below `bound`.
    ///
    /// # Panics
    /// If `bound` is zero.
    pub fn below_u64(&mut self, bound: u64) -> u64 {
        self.0.u64(0..bound)
    }

    /// A uniform number in `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        self.0.f64()
    }
}
