//! The one file that reads the clock: tokio's, so that a paused clock governs all of evenkeel.

use std::{sync::OnceLock, time::Duration};

use evenkeel_core::time::Timestamp;
use tokio::time::Instant;

/// Points in time lie around the middle of what a timestamp can hold: the paused clock of one runtime
/// may be far ahead of the first reading, or behind it.
const ORIGIN: u64 = 1 << 62;

/// The time now.
pub(crate) fn now() -> Timestamp {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    let now = instant();
    let first = *FIRST.get_or_init(|| now);
    Timestamp::from_nanos(match now.checked_duration_since(first) {
        Some(ahead) => ORIGIN + ahead.as_nanos() as u64,
        None => ORIGIN - first.duration_since(now).as_nanos() as u64,
    })
}

/// The time now, for timers.
#[allow(clippy::disallowed_methods)]
pub(crate) fn instant() -> Instant {
    Instant::now()
}

/// The time after `wait`, for timers: where that cannot be counted, later than anybody waits.
pub(crate) fn after(wait: Duration) -> Instant {
    const LONG: Duration = Duration::from_secs(30 * 365 * 86_400);

    let now = instant();
    now.checked_add(wait).unwrap_or_else(|| now + LONG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_clock_stands_while_tokio_is_paused_and_moves_with_it() {
        let before = now();
        assert_eq!(now(), before);
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(now().since(before), Duration::from_secs(3));
    }
}
