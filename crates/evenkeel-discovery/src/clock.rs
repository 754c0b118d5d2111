//! The one file that reads the clock, so that a paused tokio clock applies everywhere.

use tokio::time::Instant;

#[allow(clippy::disallowed_methods, reason = "this is the file in which the clock is read")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
