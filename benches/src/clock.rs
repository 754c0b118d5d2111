//! The one file of the benches that reads the clock.

use std::time::{Duration, Instant};

/// Measures how long a function takes.
#[derive(Debug)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    #[allow(clippy::disallowed_methods, reason = "the benches' only clock")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    pub(crate) fn nanos(&self) -> f64 {
        self.elapsed().as_nanos() as f64
    }
}
