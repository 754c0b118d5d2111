//! The least and the most that a limit may be.

/// The bounds of a limit, and its initial value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) initial: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

impl Bounds {
    pub(super) fn new(initial: u32, min: u32, max: u32) -> Self {
        assert!(0 < min, "a limit of 0");
        assert!(min <= max, "a limit of at least {min} and at most {max}");
        let (min, max) = (f64::from(min), f64::from(max));
        Self { initial: f64::from(initial).clamp(min, max), min, max }
    }

    pub(super) fn clamp(&self, limit: f64) -> f64 {
        limit.clamp(self.min, self.max)
    }
}
