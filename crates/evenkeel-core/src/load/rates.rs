//! How many requests a server answers in a second, and how many of them fail.

use std::time::Duration;

use crate::{
    sync::{AtomicU64, Mutex, Ordering},
    time::Timestamp,
};

/// Requests and errors in a second, as an average over recent seconds.
///
/// Counting is one atomic addition. Reading updates the average at most twice a second. It does not
/// wait: while another thread is updating, it returns the last values.
///
/// ```
/// use std::time::Duration;
/// use evenkeel::core::{load::Rates, time::Timestamp};
///
/// let start = Timestamp::from_nanos(1 << 40);
/// let rates = Rates::new(start);
/// (0..200).for_each(|request| rates.count(request % 10 == 0));
/// assert_eq!(rates.read(start + Duration::from_secs(2)), (100.0, 10.0));
/// ```
#[derive(Debug)]
pub struct Rates {
    requests: AtomicU64,
    errors: AtomicU64,
    /// As `f64` bits.
    requests_per_second: AtomicU64,
    errors_per_second: AtomicU64,
    last: Mutex<Last>,
}

#[derive(Debug)]
struct Last {
    at: Timestamp,
    requests: u64,
    errors: u64,
    /// Nothing has been averaged yet.
    is_first: bool,
}

/// Rates over shorter spans are too inaccurate.
const MIN_SPAN: Duration = Duration::from_millis(500);

/// Older counts weigh less by a factor of e after this many seconds.
const DECAY: f64 = 3.0;

impl Rates {
    /// Counts from `now` on.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self {
            requests: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            requests_per_second: AtomicU64::new(0),
            errors_per_second: AtomicU64::new(0),
            last: Mutex::new(Last { at: now, requests: 0, errors: 0, is_first: true }),
        }
    }

    /// Records that a request was answered, and whether it failed.
    pub fn count(&self, has_failed: bool) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        if has_failed {
            self.errors.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns requests and errors in a second.
    pub fn read(&self, now: Timestamp) -> (f64, f64) {
        if let Ok(mut last) = self.last.try_lock() {
            self.update(&mut last, now);
        }
        let read = |rate: &AtomicU64| f64::from_bits(rate.load(Ordering::Relaxed));
        (read(&self.requests_per_second), read(&self.errors_per_second))
    }

    fn update(&self, last: &mut Last, now: Timestamp) {
        let span = now.since(last.at);
        if span < MIN_SPAN {
            return;
        }
        let seconds = span.as_secs_f64();
        let weight = if last.is_first { 0.0 } else { (-seconds / DECAY).exp() };
        let average = |rate: &AtomicU64, count: u64| {
            let before = f64::from_bits(rate.load(Ordering::Relaxed));
            let rate_now = before * weight + count as f64 / seconds * (1.0 - weight);
            rate.store(rate_now.to_bits(), Ordering::Relaxed);
        };
        let requests = self.requests.load(Ordering::Relaxed);
        let errors = self.errors.load(Ordering::Relaxed);
        average(&self.requests_per_second, requests.wrapping_sub(last.requests));
        average(&self.errors_per_second, errors.wrapping_sub(last.errors));
        *last = Last { at: now, requests, errors, is_first: false };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_nanos(1 << 50) + Duration::from_millis(millis)
    }

    #[test]
    fn the_average_follows_within_seconds() {
        let rates = Rates::new(at(0));
        for tenth in 1..=100_u64 {
            (0..10).for_each(|_| rates.count(false));
            rates.read(at(tenth * 100));
        }
        assert!((rates.read(at(10_000)).0 - 100.0).abs() < 1.0);
        for tenth in 101..=200_u64 {
            (0..40).for_each(|_| rates.count(false));
            rates.read(at(tenth * 100));
        }
        let (requests, errors) = rates.read(at(20_000));
        assert!((380.0..=400.0).contains(&requests), "{requests}");
        assert_eq!(errors, 0.0);
    }

    #[test]
    fn clocks_that_stop_or_go_back_give_finite_rates() {
        let rates = Rates::new(at(1_000));
        for now in [at(1_000), at(0), at(1_000), Timestamp::from_nanos(u64::MAX), at(5)] {
            rates.count(true);
            let (requests, errors) = rates.read(now);
            assert!(requests.is_finite() && errors.is_finite() && errors <= requests);
        }
    }
}
