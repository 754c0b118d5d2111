//! The one file that reads the clock: every time that is measured is a time since some beginning.

use std::time::{Duration, Instant};

/// When something began.
#[derive(Clone, Copy, Debug)]
pub struct Origin(Instant);

impl Origin {
    /// Now.
    #[allow(clippy::disallowed_methods, reason = "the only clock of those who measure")]
    #[must_use]
    pub fn now() -> Self {
        Self(Instant::now())
    }

    /// How long ago that was.
    #[must_use]
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }

    /// The time `after` it, for a timer.
    #[must_use]
    pub fn plus(self, after: Duration) -> tokio::time::Instant {
        (self.0 + after).into()
    }
}
