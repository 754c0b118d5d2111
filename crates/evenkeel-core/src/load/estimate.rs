//! A server's knowledge of its own load: requests in flight, and how long they take at that load.

use std::{sync::Arc, time::Duration};

use super::ServerLoad;
use crate::{
    sync::{AtomicU32, AtomicU64, Ordering},
    time::Timestamp,
};

/// A server's own estimate of its load, used to answer probes (Prequal, section 4).
///
/// It counts requests in flight, and remembers how long the last ones took, by how many were in
/// flight when they arrived. Its latency is the median over requests of the last half second that
/// arrived at about the present load. So a server that has just become busy reports at once what
/// that will cost, and one that has just become idle does not report its past.
///
/// Failed requests give no sample, since a server that fails at once must not look quick. A
/// cancelled request is taken out of flight and leaves no trace.
///
/// Counting and recording take no lock and allocate nothing. Reading looks at some hundred words.
/// It takes about 20 kB.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use evenkeel::core::{load::LoadEstimate, time::Timestamp};
///
/// let estimate = Arc::new(LoadEstimate::new());
/// let now = Timestamp::from_nanos(1 << 40);
///
/// let arrival = estimate.enter();
/// arrival.record_success(Duration::from_millis(20), now);
/// drop(arrival);
/// let _cancelled = estimate.enter();
///
/// let load = estimate.load(now);
/// assert_eq!((load.in_flight(), load.latency().as_millis()), (1.0, 20));
/// ```
#[derive(Debug)]
pub struct LoadEstimate {
    in_flight: AtomicU32,
    /// Keyed by requests in flight on arrival, see [`bucket`].
    buckets: Box<[Bucket]>,
}

/// The last samples at about the same load.
#[derive(Debug, Default)]
struct Bucket {
    count: AtomicU32,
    /// Nanoseconds as `f32` bits, above the tick at which the request ended. 0 if there is no
    /// sample.
    samples: [AtomicU64; SAMPLES],
}

/// How many samples a bucket holds.
const SAMPLES: usize = 16;

/// How many samples are enough for a median. With fewer, those of the next lower and higher load
/// count too.
const ENOUGH: usize = 8;

/// Loads below this have their own buckets. From there on, there are eight buckets for each
/// doubling.
const EXACT: u32 = 16;

/// 2^20 and more requests in flight count as one load.
const BUCKETS: usize = 16 + 8 * 16 + 1;

/// A tick is 2^20 ns, about a millisecond.
const TICK_BITS: u32 = 20;

/// Half a second. Older samples count only if there are no others.
const RECENT_TICKS: u32 = 477;

impl LoadEstimate {
    /// An estimate for a server that has had no request yet.
    #[must_use]
    pub fn new() -> Self {
        let buckets = (0..BUCKETS).map(|_| Bucket::default()).collect();
        Self { in_flight: AtomicU32::new(0), buckets }
    }

    /// Requests that have arrived and have not been answered.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Records that a request has arrived. It is in flight until the [`Arrival`] is dropped.
    #[must_use]
    pub fn enter(self: &Arc<Self>) -> Arrival {
        let before = self.in_flight.fetch_add(1, Ordering::Relaxed);
        Arrival { estimate: self.clone(), before }
    }

    /// The answer to a probe.
    #[must_use]
    pub fn load(&self, now: Timestamp) -> ServerLoad {
        let in_flight = self.in_flight();
        ServerLoad::new(in_flight.into(), self.latency(in_flight, now))
    }

    /// How long requests take with `in_flight` in flight. Zero if nothing is known.
    #[must_use]
    pub fn latency(&self, in_flight: u32, now: Timestamp) -> Duration {
        let median = self
            .median(in_flight, |sample| elapsed(sample, now) <= RECENT_TICKS)
            .or_else(|| self.median(in_flight, |_| true));
        Duration::from_nanos(median.unwrap_or(0.0) as u64)
    }

    /// The median of the samples nearest to `in_flight` for which `counts` is true.
    fn median(&self, in_flight: u32, counts: impl Fn(u64) -> bool) -> Option<f32> {
        let center = bucket(in_flight);
        let mut found = [0.0; ENOUGH + 2 * SAMPLES];
        let mut len = 0;
        for distance in 0..BUCKETS {
            let lower = center.checked_sub(distance);
            let higher = (distance != 0).then_some(center + distance).filter(|&at| at < BUCKETS);
            for bucket in [lower, higher].into_iter().flatten() {
                for sample in &self.buckets[bucket].samples {
                    let sample = sample.load(Ordering::Relaxed);
                    if sample != 0 && counts(sample) {
                        found[len] = f32::from_bits((sample >> 32) as u32);
                        len += 1;
                    }
                }
            }
            if ENOUGH <= len || lower.is_none() && higher.is_none() {
                break;
            }
        }
        let found = &mut found[..len];
        let middle = len.checked_sub(1)? / 2;
        Some(*found.select_nth_unstable_by(middle, f32::total_cmp).1)
    }
}

impl Default for LoadEstimate {
    fn default() -> Self {
        Self::new()
    }
}

/// A request that has arrived, in flight until this is dropped.
#[derive(Debug)]
pub struct Arrival {
    estimate: Arc<LoadEstimate>,
    before: u32,
}

impl Arrival {
    /// Records that the request was successfully answered after `latency`. Call it once. The
    /// request stays in flight.
    pub fn record_success(&self, latency: Duration, now: Timestamp) {
        let nanos = latency.as_nanos().clamp(1, u64::MAX.into()) as f32;
        let sample = u64::from(nanos.to_bits()) << 32 | u64::from(tick_of(now));
        let bucket = &self.estimate.buckets[bucket(self.before)];
        let place = bucket.count.fetch_add(1, Ordering::Relaxed) as usize % SAMPLES;
        bucket.samples[place].store(sample, Ordering::Relaxed);
    }

    /// The estimate that counts this request.
    #[must_use]
    pub fn estimate(&self) -> &Arc<LoadEstimate> {
        &self.estimate
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        let before = self.estimate.in_flight.fetch_sub(1, Ordering::Relaxed);
        debug_assert_ne!(before, 0, "a request left that never arrived");
    }
}

/// The bucket for `in_flight` requests: exact for few, in steps of a twelfth to an eighth above.
fn bucket(in_flight: u32) -> usize {
    if in_flight < EXACT {
        return in_flight as usize;
    }
    let octave = 31 - in_flight.leading_zeros();
    let eighth = (in_flight >> (octave - 3)) & 7;
    ((octave - 4) * 8 + EXACT + eighth).min(BUCKETS as u32 - 1) as usize
}

fn tick_of(now: Timestamp) -> u32 {
    (now.as_nanos() >> TICK_BITS) as u32
}

/// Ticks since a sample. Zero if it lies in the future.
fn elapsed(sample: u64, now: Timestamp) -> u32 {
    let elapsed = tick_of(now).wrapping_sub(sample as u32);
    if elapsed > u32::MAX / 2 { 0 } else { elapsed }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_nanos(1 << 50) + Duration::from_millis(millis)
    }

    fn estimate() -> Arc<LoadEstimate> {
        Arc::new(LoadEstimate::new())
    }

    /// Records requests one after another, each with `others` in flight when it arrives.
    fn sample(estimate: &Arc<LoadEstimate>, others: u32, millis: &[u64], now: Timestamp) {
        let others: Vec<_> = (0..others).map(|_| estimate.enter()).collect();
        for &millis in millis {
            estimate.enter().record_success(Duration::from_millis(millis), now);
        }
        drop(others);
    }

    #[test]
    fn the_latency_is_that_of_requests_that_met_the_current_load() {
        let estimate = estimate();
        sample(&estimate, 0, &[10; 8], at(0));
        sample(&estimate, 5, &[60; 8], at(0));
        sample(&estimate, 40, &[400; 8], at(0));

        assert_eq!(estimate.latency(0, at(1)).as_millis(), 10);
        assert_eq!(estimate.latency(5, at(1)).as_millis(), 60);
        assert_eq!(estimate.latency(41, at(1)).as_millis(), 400, "about the same load");
        assert_eq!(estimate.latency(7, at(1)).as_millis(), 60, "the nearest that is known");
    }

    #[test]
    fn the_estimate_is_a_median_that_one_slow_request_does_not_move() {
        let estimate = estimate();
        sample(&estimate, 0, &[10, 12, 9_000, 11, 10, 12, 11, 10, 12], at(0));
        assert_eq!(estimate.latency(0, at(1)).as_millis(), 11);
    }

    #[test]
    fn old_samples_count_only_while_there_are_no_others() {
        let estimate = estimate();
        sample(&estimate, 0, &[10; 8], at(0));
        assert_eq!(estimate.latency(0, at(60_000)).as_millis(), 10);
        sample(&estimate, 9, &[90; 2], at(60_000));
        assert_eq!(estimate.latency(0, at(60_000)).as_millis(), 90);
    }

    #[test]
    fn a_cancelled_request_leaves_no_trace() {
        let estimate = estimate();
        drop(estimate.enter());
        assert_eq!(estimate.load(at(0)), ServerLoad::new(0.0, Duration::ZERO));
    }

    #[test]
    fn a_clock_that_stops_or_goes_back_and_extreme_latencies_do_no_harm() {
        let estimate = estimate();
        for now in [at(1_000), at(0), Timestamp::default(), Timestamp::from_nanos(u64::MAX)] {
            for latency in [Duration::ZERO, Duration::MAX, Duration::from_nanos(1)] {
                estimate.enter().record_success(latency, now);
                assert!(estimate.latency(0, now) <= Duration::from_nanos(u64::MAX));
            }
        }
    }

    #[test]
    fn buckets_are_in_order_and_every_load_has_one() {
        assert_eq!((bucket(0), bucket(15), bucket(16), bucket(17)), (0, 15, 16, 16));
        let mut before = 0;
        for in_flight in (0..100_000).chain([1 << 20, 1 << 25, u32::MAX]) {
            let bucket = bucket(in_flight);
            assert!(bucket == before || bucket == before + 1 || 99_999 < in_flight);
            assert!(bucket < BUCKETS);
            before = bucket;
        }
        assert_eq!(bucket(u32::MAX), BUCKETS - 1);
        assert_eq!(bucket((1 << 20) - 1), BUCKETS - 2);
    }
}
