//! How many probes may begin in a second.

use std::time::Duration;

use crate::time::Timestamp;

/// Timers are late by a millisecond or more: up to this much is made up for at once.
const MAX_LATENESS: Duration = Duration::from_millis(10);

/// A steady pace over all endpoints: the generic cell rate algorithm (ITU-T I.371), almost without
/// bursts.
#[derive(Debug)]
pub(super) struct Pace {
    gap: Duration,
    next: Timestamp,
}

impl Pace {
    pub(super) fn new(per_second: u32) -> Self {
        Self { gap: Duration::from_secs(1) / per_second, next: Timestamp::default() }
    }

    /// When the next probe may begin; `None` for now.
    pub(super) fn wait_until(&self, now: Timestamp) -> Option<Timestamp> {
        (now + MAX_LATENESS < self.next).then(|| {
            // In steps of half of the greatest lateness: each wakes for several probes.
            let early = self.next.as_nanos() - MAX_LATENESS.as_nanos() as u64 / 2;
            Timestamp::from_nanos(early)
        })
    }

    /// Counts a probe that begins.
    pub(super) fn take(&mut self, now: Timestamp) {
        self.next = self.next.max(now) + self.gap;
    }
}
