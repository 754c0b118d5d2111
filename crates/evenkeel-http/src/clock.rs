//! The one file that reads the clocks: tokio's, so that a paused one governs all of evenkeel, and the calendar.

use std::{sync::OnceLock, time::SystemTime};

use evenkeel_core::time::Timestamp;
use tokio::time::Instant;

/// Points in time lie around the middle of what a timestamp can hold: the paused clock of one runtime
/// may be far ahead of the first reading, or behind it.
const ORIGIN: u64 = 1 << 62;

/// The time now.
#[allow(clippy::disallowed_methods)]
pub(crate) fn now() -> Timestamp {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    let now = Instant::now();
    let first = *FIRST.get_or_init(|| now);
    Timestamp::from_nanos(match now.checked_duration_since(first) {
        Some(ahead) => ORIGIN + ahead.as_nanos() as u64,
        None => ORIGIN - first.duration_since(now).as_nanos() as u64,
    })
}

/// What the calendar of this machine says, to compare dates with that others wrote.
#[allow(clippy::disallowed_methods)]
pub(crate) fn date() -> SystemTime {
    SystemTime::now()
}
