//! The clock of evenkeel: tokio's, so that a paused one governs all of it, and the calendar.
//!
//! What one crate stamps, another compares: a lost connection and a report of load are seen by evenkeel-http and
//! judged beside what evenkeel-layers has seen. So a [`Timestamp`] means something only if all of them count from the
//! same origin, and it is made here and nowhere else. Core is told the time and reads none.
//!
//! ```
//! use std::time::Duration;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let before = evenkeel_clock::now();
//! tokio::time::advance(Duration::from_secs(3)).await;
//! assert_eq!(evenkeel_clock::now().since(before), Duration::from_secs(3));
//! # }
//! ```
//!
//! # What this crate does not do
//! It keeps no timers: those are tokio's.

use std::{
    sync::OnceLock,
    time::{Duration, SystemTime},
};

use evenkeel_core::time::Timestamp;
use tokio::time::Instant;

/// Points in time lie around the middle of what a timestamp can hold: the paused clock of one runtime
/// may be far ahead of the first reading, or behind it.
const ORIGIN: u64 = 1 << 62;

/// The time now.
///
/// Where tokio's clock is paused it stands, and moves with that.
#[must_use]
pub fn now() -> Timestamp {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    let now = instant();
    let first = *FIRST.get_or_init(|| now);
    Timestamp::from_nanos(match now.checked_duration_since(first) {
        Some(ahead) => ORIGIN + ahead.as_nanos() as u64,
        None => ORIGIN - first.duration_since(now).as_nanos() as u64,
    })
}

/// The time now, for timers.
#[must_use]
#[inline]
#[allow(clippy::disallowed_methods, reason = "this is the file in which the clock is read")]
pub fn instant() -> Instant {
    Instant::now()
}

/// The time after `wait`, for timers: where that cannot be counted, later than anything waits.
#[must_use]
pub fn after(wait: Duration) -> Instant {
    const LONG: Duration = Duration::from_secs(30 * 365 * 86_400);

    let now = instant();
    now.checked_add(wait).unwrap_or_else(|| now + LONG)
}

/// What the calendar of this machine says, to compare dates with that others wrote.
///
/// It may step, and no clock of tokio governs it: nothing is timed by it.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "this is the file in which the clock is read")]
pub fn date() -> SystemTime {
    SystemTime::now()
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

    #[tokio::test(start_paused = true)]
    async fn a_wait_without_end_is_a_long_one() {
        assert_eq!(after(Duration::from_secs(1)) - instant(), Duration::from_secs(1));
        assert!(Duration::from_secs(86_400 * 365) < after(Duration::MAX) - instant());
    }
}
