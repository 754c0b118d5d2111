//! Times that are comparable between all processes of this machine.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// A point in time on the clock that all processes of this machine share, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Moment(u64);

impl Moment {
    pub(crate) fn now() -> Self {
        let time = clock_gettime(ClockId::Monotonic);
        Self(time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs())
    }

    /// The time since `earlier`. Zero if `earlier` is later.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    pub(crate) fn plus(self, time: Duration) -> Self {
        Self(self.0 + u64::try_from(time.as_nanos()).unwrap_or_default())
    }

    /// Converts from the time of day, which other programs report.
    pub(crate) fn of_day(nanos: u128) -> Self {
        let day = clock_gettime(ClockId::Realtime);
        let day = Duration::new(day.tv_sec.unsigned_abs(), 0).as_nanos()
            + u128::from(day.tv_nsec.unsigned_abs());
        let ago = u64::try_from(day.saturating_sub(nanos)).unwrap_or_default();
        Self(Self::now().0.saturating_sub(ago))
    }
}

/// The duration in milliseconds, the unit of all figures.
pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
