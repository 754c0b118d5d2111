//! The one file that reads the clock: every measured time counts from some beginning.

use std::time::{Duration, Instant};

/// A point in time.
#[derive(Clone, Copy, Debug)]
pub struct Origin(Instant);

impl Origin {
    /// The current time.
    #[allow(clippy::disallowed_methods, reason = "the only clock of the measuring programs")]
    #[must_use]
    pub fn now() -> Self {
        Self(Instant::now())
    }

    /// How long ago this was.
    #[must_use]
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }

    /// The time `after` this one, for a timer.
    #[must_use]
    pub fn plus(self, after: Duration) -> tokio::time::Instant {
        (self.0 + after).into()
    }
}
