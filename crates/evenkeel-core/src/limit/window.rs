//! Samples of a short time, gathered without a lock.

use std::time::Duration;

use super::Sample;
use crate::{
    sync::{AtomicU32, AtomicU64, Ordering},
    time::Timestamp,
};

/// Gathers samples until there are enough of them and enough time has passed.
///
/// Only calls that began in the window count: earlier ones met another limit.
#[derive(Debug)]
pub(super) struct Window {
    length: Duration,
    /// When the window began; zero until the first sample.
    began: AtomicU64,
    /// The number of samples and the sum of their latencies, in one word.
    sums: AtomicU64,
    dropped: AtomicU32,
    max_in_flight: AtomicU32,
    /// 1 while a thread closes a window. No thread waits for it: others go on and sample.
    closing: AtomicU32,
}

/// The samples of a window together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Seen {
    /// The mean latency in nanoseconds, if enough calls were not dropped.
    pub(super) latency: Option<f64>,
    pub(super) max_in_flight: u32,
    /// Whether more than a tenth of the calls were dropped.
    pub(super) is_overloaded: bool,
}

/// Fewer samples than this say nothing.
pub(super) const MIN_SAMPLES: u64 = 16;

const COUNT_BITS: u32 = 16;
const MAX_COUNT: u64 = (1 << COUNT_BITS) - 1;
/// Latencies are summed in units of 64 nanoseconds, so that 65,535 of up to 4 minutes fit.
const UNIT_BITS: u32 = 6;
const MAX_LATENCY: u64 = (1 << (64 - COUNT_BITS)) / MAX_COUNT - 1;

impl Window {
    pub(super) fn new(length: Duration) -> Self {
        Self {
            length,
            began: AtomicU64::new(0),
            sums: AtomicU64::new(0),
            dropped: AtomicU32::new(0),
            max_in_flight: AtomicU32::new(0),
            closing: AtomicU32::new(0),
        }
    }

    pub(super) const fn length(&self) -> Duration {
        self.length
    }

    /// Adds a sample. If that completes the window, calls `close` with the result, in one thread at
    /// a time.
    pub(super) fn add(&self, sample: Sample, now: Timestamp, close: impl FnOnce(Seen)) {
        let latency = sample.latency.as_nanos() as u64;
        if latency == 0 && !sample.is_dropped {
            // It was answered at once and so never under way.
            return;
        }
        let began = match self.began.load(Ordering::Acquire) {
            0 => self.begin(now, latency),
            began => began,
        };
        if now.as_nanos().saturating_sub(latency) < began {
            return;
        }
        if sample.is_dropped {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        } else {
            self.count(latency >> UNIT_BITS);
        }
        if self.max_in_flight.load(Ordering::Relaxed) < sample.in_flight {
            self.max_in_flight.fetch_max(sample.in_flight, Ordering::Relaxed);
        }
        let is_over = self.length <= now.since(Timestamp::from_nanos(began));
        let is_enough = MIN_SAMPLES <= self.samples();
        if is_over && is_enough && self.closing.swap(1, Ordering::AcqRel) == 0 {
            // Another thread may have closed it just before.
            if self.began.load(Ordering::Acquire) == began {
                close(self.take(now));
            }
            self.closing.store(0, Ordering::Release);
        }
    }

    fn begin(&self, now: Timestamp, latency: u64) -> u64 {
        // This makes the very first sample count.
        let began = now.as_nanos().saturating_sub(latency).max(1);
        match self.began.compare_exchange(0, began, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => began,
            Err(other) => other,
        }
    }

    fn count(&self, units: u64) {
        let add = |sums: u64| {
            let is_full = sums & MAX_COUNT == MAX_COUNT;
            (!is_full).then(|| sums + (units.min(MAX_LATENCY) << COUNT_BITS) + 1)
        };
        // A full window closes with the samples that it has.
        let _ = self.sums.fetch_update(Ordering::AcqRel, Ordering::Relaxed, add);
    }

    fn samples(&self) -> u64 {
        let answered = self.sums.load(Ordering::Relaxed) & MAX_COUNT;
        answered + u64::from(self.dropped.load(Ordering::Relaxed))
    }

    /// Ends the window and begins the next one.
    fn take(&self, now: Timestamp) -> Seen {
        self.began.store(now.as_nanos().max(1), Ordering::Release);
        let sums = self.sums.swap(0, Ordering::AcqRel);
        let dropped = u64::from(self.dropped.swap(0, Ordering::AcqRel));
        let max_in_flight = self.max_in_flight.swap(0, Ordering::AcqRel);
        let (count, units) = (sums & MAX_COUNT, sums >> COUNT_BITS);
        let mean = || (units << UNIT_BITS) as f64 / count as f64;
        Seen {
            latency: (MIN_SAMPLES / 2 <= count).then(mean),
            max_in_flight,
            is_overloaded: count + dropped < 10 * dropped,
        }
    }
}
