//! What Gradient2 and Vegas share: the limit, the baseline of latency, and how to find it.

use std::time::Duration;

use super::{
    Sample,
    bounds::Bounds,
    window::{Seen, Window},
};
use crate::{
    sync::{AtomicU32, AtomicU64, Ordering},
    time::Timestamp,
};

/// A limit that changes window by window, by latency compared with its baseline.
///
/// The baseline is the latency without a queue. While the limit is not used there is no queue, so
/// latencies of that time go into it. While the limit is used all the time, one window in
/// [`WINDOWS_TO_DIP`] gets a limit a tenth below what the endpoint works on at once. The queue
/// drains, and the measured latency is the baseline, whether it has risen or fallen, while the
/// endpoint is hardly idle. So a queue of our own making is never taken for the baseline: that is
/// how such limits drift upwards. And the limit is not held at its minimum in order to measure:
/// that is how other limits refuse traffic without need.
#[derive(Debug)]
pub(super) struct Windowed {
    bounds: Bounds,
    window: Window,
    /// The limit that is in force.
    shown: AtomicU32,
    /// Only the thread that closes a window changes the three below.
    limit: AtomicU64,
    baseline: AtomicU64,
    windows: AtomicU32,
}

/// After this many windows in use, one dips to find the baseline.
const WINDOWS_TO_DIP: u32 = 20;

/// The share of what the endpoint works on at once to which a dip goes.
const DIP: f64 = 0.9;

/// How much of a latency below the baseline is taken over, and of one while the limit is not used.
const WEIGHT: f64 = 0.2;

/// The share of a limit that remains after an overload.
const BACKOFF_RATIO: f64 = 0.9;

/// The default length of a window.
pub(super) const WINDOW: Duration = Duration::from_millis(100);

impl Windowed {
    pub(super) fn new(bounds: Bounds, window: Duration) -> Self {
        Self {
            bounds,
            window: Window::new(window),
            shown: AtomicU32::new(bounds.initial as u32),
            limit: AtomicU64::new(bounds.initial.to_bits()),
            baseline: AtomicU64::new(0),
            windows: AtomicU32::new(0),
        }
    }

    #[inline]
    pub(super) fn limit(&self) -> u32 {
        self.shown.load(Ordering::Relaxed)
    }

    /// Adds a sample. `next` computes the new limit from limit, baseline and latency.
    pub(super) fn sample(
        &self,
        sample: Sample,
        now: Timestamp,
        next: impl FnOnce(f64, f64, f64) -> f64,
    ) {
        self.window.add(sample, now, |seen| self.close(seen, next));
    }

    fn close(&self, seen: Seen, next: impl FnOnce(f64, f64, f64) -> f64) {
        let limit = f64::from_bits(self.limit.load(Ordering::Relaxed));
        let baseline = f64::from_bits(self.baseline.load(Ordering::Relaxed));
        let windows = self.windows.load(Ordering::Relaxed);
        if seen.is_overloaded {
            return self.show(limit * BACKOFF_RATIO, baseline, windows % WINDOWS_TO_DIP);
        }
        let Some(latency) = seen.latency else { return };
        if baseline == 0.0 {
            return self.show(limit, latency, 0);
        }
        if windows == WINDOWS_TO_DIP {
            // This was the dip. It takes half, because a mean of few calls is off now and then.
            return self.show(limit, f64::midpoint(baseline, latency), 0);
        }
        let is_used = limit <= 2.0 * f64::from(seen.max_in_flight);
        let follow = baseline + WEIGHT * (latency - baseline);
        if !is_used {
            return self.show(limit, follow, windows);
        }
        let baseline = baseline.min(follow);
        let limit = next(limit, baseline, latency);
        self.show(limit, baseline, windows + 1);
        if windows + 1 == WINDOWS_TO_DIP {
            let at_work = self.bounds.clamp(limit) * (baseline / latency).min(1.0);
            let dip = (DIP * at_work).max(limit / 2.0);
            self.shown.store(self.bounds.clamp(dip) as u32, Ordering::Relaxed);
        }
    }

    fn show(&self, limit: f64, baseline: f64, windows: u32) {
        let limit = self.bounds.clamp(limit);
        self.limit.store(limit.to_bits(), Ordering::Relaxed);
        self.baseline.store(baseline.to_bits(), Ordering::Relaxed);
        self.windows.store(windows, Ordering::Relaxed);
        self.shown.store(limit as u32, Ordering::Relaxed);
    }

    pub(super) const fn bounds(&self) -> Bounds {
        self.bounds
    }

    pub(super) const fn window(&self) -> Duration {
        self.window.length()
    }
}
