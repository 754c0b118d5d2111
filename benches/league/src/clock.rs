//! The one file that reads the clock: every time of a trial is a time since its beginning.

use std::time::{Duration, Instant};

/// When something began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin(Instant);

impl Origin {
    #[allow(clippy::disallowed_methods, reason = "the league's only clock")]
    pub(crate) fn now() -> Self {
        Self(Instant::now())
    }

    /// How long ago that was.
    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }

    /// The time `after` it, for a timer.
    pub(crate) fn plus(self, after: Duration) -> tokio::time::Instant {
        (self.0 + after).into()
    }
}
