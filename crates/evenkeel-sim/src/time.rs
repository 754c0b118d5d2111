//! The virtual clock, and the real one.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use evenkeel_core::time::Timestamp;

/// Nanoseconds to a second.
pub const SECOND: u64 = 1_000_000_000;

/// Where virtual time begins: far from zero, as on a machine that has been running for some time.
pub const START: u64 = 1_000 * SECOND;

/// The time of one run, shared by all its parts. It moves only when it is set.
#[derive(Clone, Debug)]
pub struct Clock(Arc<AtomicU64>);

impl Clock {
    /// A clock that stands at [`START`].
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(AtomicU64::new(START)))
    }

    /// The virtual time.
    #[must_use]
    #[inline]
    pub fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.0.load(Relaxed))
    }

    /// Sets the virtual time.
    #[inline]
    pub fn set(&self, nanos: u64) {
        self.0.store(nanos, Relaxed);
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

/// Real time since the start, for the progress bar and for the cost of a run or a pick. No result
/// of a run depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts a stopwatch.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "this is the file in which the clock is read")]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// The real time that has passed.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// A duration in whole nanoseconds, at most about 584 years.
#[must_use]
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
