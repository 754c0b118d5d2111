//! A token bucket, kept as one point in time.

use std::time::Duration;

use super::Rate;
use crate::time::Timestamp;

/// What a bucket grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// How many requests may go.
    pub tokens: u32,
    /// How many more could have been taken.
    pub remaining: u32,
    /// When one more can be taken, if this grants none.
    pub retry_after: Duration,
}

/// A token bucket, kept as the time at which it will be full again (GCRA).
///
/// It models what a shared quota does on its server, and replaces the server while that is away.
///
/// ```
/// use std::time::Duration;
/// use evenkeel::core::{quota::{Bucket, Rate}, time::Timestamp};
///
/// let (mut bucket, rate, now) = (Bucket::default(), Rate::per_second(10), Timestamp::from_nanos(1));
/// assert_eq!(bucket.take(&rate, now, 8).tokens, 8);
/// assert_eq!(bucket.take(&rate, now, 8).tokens, 2);
/// assert_eq!(bucket.take(&rate, now, 8).retry_after, Duration::from_millis(100));
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket {
    full_at: Timestamp,
}

impl Bucket {
    /// Takes up to `wanted` requests out of a bucket of this `rate`.
    pub fn take(&mut self, rate: &Rate, now: Timestamp, wanted: u32) -> Grant {
        let interval = rate.interval();
        // Never longer than a whole window: after a change of the rate no debt remains.
        let missing = self.full_at.since(now).min(rate.window());
        let filled = rate.window() - missing;
        let room = u32::try_from(filled.as_nanos() / interval.as_nanos()).unwrap_or(u32::MAX);
        let tokens = wanted.min(room);
        if 0 < tokens {
            self.full_at = now + missing + interval.saturating_mul(tokens);
        }
        let retry_after = if room == 0 { interval.saturating_sub(filled) } else { Duration::ZERO };
        Grant { tokens, remaining: room - tokens, retry_after }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_any_span_at_most_the_burst_and_the_refill_go_through() {
        let rate = Rate::per_second(100).burst(7);
        let mut rng = crate::rng::Rng::with_seed(5);
        let mut bucket = Bucket::default();
        let (mut now, mut sent) = (Timestamp::from_nanos(1 << 62), Vec::new());
        for _ in 0..2_000 {
            now = now + Duration::from_micros(rng.below_u64(20_000));
            let tokens = bucket.take(&rate, now, 1 + rng.below(5) as u32).tokens;
            sent.extend(std::iter::repeat_n(now, tokens as usize));
        }
        for (index, &first) in sent.iter().enumerate() {
            for (count, &last) in sent[index..].iter().enumerate() {
                let allowed = 7.0 + last.since(first).as_secs_f64() * 100.0;
                assert!((count + 1) as f64 <= allowed + 1e-6, "{} in {allowed}", count + 1);
            }
        }
    }

    #[test]
    fn the_time_to_wait_is_exact() {
        let rate = Rate::per_second(10).burst(1);
        let mut bucket = Bucket::default();
        let start = Timestamp::from_nanos(1 << 62);
        assert_eq!(bucket.take(&rate, start, 1).tokens, 1);
        let wait = bucket.take(&rate, start + Duration::from_millis(30), 1).retry_after;
        assert_eq!(wait, Duration::from_millis(70));
        assert_eq!(bucket.take(&rate, start + Duration::from_millis(99), 1).tokens, 0);
        assert_eq!(bucket.take(&rate, start + Duration::from_millis(100), 1).tokens, 1);
    }
}
