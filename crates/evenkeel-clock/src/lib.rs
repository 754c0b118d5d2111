//! The clock of evenkeel: tokio's clock, which tests can pause, and the calendar.
//!
//! Crates compare each other's timestamps: evenkeel-http stamps lost connections and load reports,
//! and evenkeel-layers compares these with its own. All timestamps must therefore count from the
//! same origin, so only this crate makes a [`Timestamp`]. Core is given the time and reads no
//! clock.
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
//! It has no timers: use tokio's.

#![cfg_attr(docsrs, feature(doc_cfg))]

use std::{
    sync::OnceLock,
    time::{Duration, SystemTime},
};

use evenkeel_core::time::Timestamp;
use tokio::time::Instant;

/// The origin lies in the middle of the range of a timestamp, because the paused clock of one
/// runtime may be far ahead of the first reading, or behind it.
const ORIGIN: u64 = 1 << 62;

/// The time now.
///
/// If tokio's clock is paused, this clock stands still, and moves when tokio's is advanced.
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

/// The time after `wait`, for timers. If it is out of range, a time in the far future.
#[must_use]
pub fn after(wait: Duration) -> Instant {
    const LONG: Duration = Duration::from_secs(30 * 365 * 86_400);

    let now = instant();
    now.checked_add(wait).unwrap_or_else(|| now + LONG)
}

/// The date of this machine's calendar, for comparison with dates from other machines.
///
/// It may jump, and tokio's clock does not control it. Do not measure time with it.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "this is the file in which the clock is read")]
pub fn date() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_clock_stops_while_tokio_is_paused_and_advances_with_it() {
        let before = now();
        assert_eq!(now(), before);
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(now().since(before), Duration::from_secs(3));
    }

    #[tokio::test(start_paused = true)]
    async fn an_infinite_wait_becomes_a_very_long_one() {
        assert_eq!(after(Duration::from_secs(1)) - instant(), Duration::from_secs(1));
        assert!(Duration::from_secs(86_400 * 365) < after(Duration::MAX) - instant());
    }
}
