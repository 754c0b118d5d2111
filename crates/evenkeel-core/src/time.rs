//! Points in time as core sees them: given by the caller, never read from a clock.

use std::time::Duration;

/// A point in time in nanoseconds since an origin of the caller's choice.
///
/// Only differences mean something. The layers take it from tokio's clock, the simulator from its
/// virtual one.
///
/// ```
/// use std::time::Duration;
/// use evenkeel::core::time::Timestamp;
///
/// let start = Timestamp::from_nanos(1_000);
/// let end = start + Duration::from_nanos(500);
/// assert_eq!(end.since(start), Duration::from_nanos(500));
/// assert_eq!(start.since(end), Duration::ZERO);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The point `nanos` nanoseconds after the origin.
    #[must_use]
    #[inline]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the origin.
    #[must_use]
    #[inline]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time that passed since `earlier`; zero if `earlier` lies ahead.
    #[must_use]
    #[inline]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// `duration` times `factor`, at most as long as a duration can be.
pub(crate) fn scaled(duration: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(duration.as_secs_f64() * factor).unwrap_or(Duration::MAX)
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }
}
