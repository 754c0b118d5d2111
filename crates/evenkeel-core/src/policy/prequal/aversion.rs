//! Which share of a node's recent attempts has failed.

use crate::sync::{AtomicU64, Ordering};

use crate::time::Timestamp;

/// The share of recent attempts that failed. It decays over ten seconds without attempts.
///
/// A node that fails at once has few requests in flight and short latencies, so it looks good to a
/// probe (the sinkhole of Prequal's section 4, which the paper leaves to heuristics). So a probe of
/// a node counts only with the probability that a request succeeds there.
#[derive(Debug, Default)]
pub(super) struct Aversion {
    /// The share as `f32` bits, above the tick of the last attempt.
    state: AtomicU64,
}

/// A tick is 2^20 ns, about a millisecond.
const TICK_BITS: u32 = 20;

/// About ten seconds.
const DECAY_TICKS: f32 = 10e9 / (1 << TICK_BITS) as f32;

/// The weight of one attempt.
const GAIN: f32 = 0.25;

/// A smaller share counts as none, so that a node that has recovered costs no writes.
const MIN_SHARE: f32 = 1e-3;

impl Aversion {
    /// Records how an attempt ended.
    #[inline]
    pub(super) fn record(&self, has_failed: bool, now: Timestamp) {
        if has_failed || !self.is_none() {
            self.change(has_failed, now);
        }
    }

    /// Whether nothing has failed lately.
    #[inline]
    pub(super) fn is_none(&self) -> bool {
        self.state.load(Ordering::Relaxed) >> 32 == 0
    }

    /// The share of failures, from 0 to 1.
    #[inline]
    pub(super) fn share(&self, now: Timestamp) -> f32 {
        match self.state.load(Ordering::Relaxed) {
            0 => 0.0,
            word => decayed(word, now),
        }
    }

    fn change(&self, has_failed: bool, now: Timestamp) {
        let mut word = self.state.load(Ordering::Relaxed);
        loop {
            let share = decayed(word, now) * (1.0 - GAIN) + if has_failed { GAIN } else { 0.0 };
            let share = if share < MIN_SHARE { 0.0 } else { share };
            // A clock that goes back must not move the stamp back.
            let tick = (word as u32).wrapping_add(elapsed(word, now));
            let tick = if word == 0 { tick_of(now) } else { tick };
            let new = u64::from(share.to_bits()) << 32 | u64::from(tick);
            match self.state.compare_exchange_weak(word, new, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return,
                Err(current) => word = current,
            }
        }
    }
}

fn decayed(word: u64, now: Timestamp) -> f32 {
    let share = f32::from_bits((word >> 32) as u32);
    share * (-(elapsed(word, now) as f32) / DECAY_TICKS).exp()
}

fn tick_of(now: Timestamp) -> u32 {
    (now.as_nanos() >> TICK_BITS) as u32
}

/// Ticks since the last attempt. Zero if that lies in the future.
///
/// Ticks wrap around after 52 days. Clock readings are ahead by milliseconds, so nearly the whole
/// range, not half of it, stands for elapsed time.
fn elapsed(word: u64, now: Timestamp) -> u32 {
    /// About a quarter of an hour.
    const MAX_TICKS_AHEAD: u32 = 1 << 20;
    let elapsed = tick_of(now).wrapping_sub(word as u32);
    if u32::MAX - MAX_TICKS_AHEAD < elapsed { 0 } else { elapsed }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_nanos(1 << 50) + Duration::from_secs(seconds)
    }

    #[test]
    fn a_node_that_always_fails_is_soon_avoided_and_forgiven_with_time() {
        let aversion = Aversion::default();
        assert_eq!(aversion.share(at(0)), 0.0);
        for _ in 0..20 {
            aversion.record(true, at(0));
        }
        assert!(0.99 < aversion.share(at(0)));
        assert!(aversion.share(at(10)) < 0.4);
        assert!(aversion.share(at(100)) < 1e-3);
    }

    #[test]
    fn failures_are_forgiven_after_weeks_of_silence() {
        let aversion = Aversion::default();
        (0..20).for_each(|_| aversion.record(true, at(1_000)));
        assert!(0.99 < aversion.share(at(999)), "a reading from before");
        for days in [1, 20, 30, 50] {
            assert!(aversion.share(at(1_000 + days * 24 * 3_600)) < 1e-3, "{days} days");
        }
    }

    #[test]
    fn the_share_approaches_the_rate_of_failures() {
        let aversion = Aversion::default();
        let mut sum = 0.0;
        for index in 0..1_000 {
            aversion.record(index % 10 == 0, at(0));
            sum += aversion.share(at(0));
        }
        assert!((sum / 1_000.0 - 0.1).abs() < 0.02, "{}", sum / 1_000.0);
    }

    #[test]
    fn a_node_that_has_recovered_costs_no_more_writes() {
        let aversion = Aversion::default();
        aversion.record(true, at(0));
        for _ in 0..100 {
            aversion.record(false, at(0));
        }
        assert_eq!(aversion.state.load(Ordering::Relaxed) >> 32, 0);
    }

    #[test]
    fn a_clock_that_stops_or_goes_back_leaves_a_valid_share() {
        let aversion = Aversion::default();
        aversion.record(true, at(50));
        aversion.record(true, at(0));
        for now in [at(0), at(50), Timestamp::default()] {
            assert!((0.0..=1.0).contains(&aversion.share(now)));
        }
        assert!(aversion.share(at(60)) < aversion.share(at(50)));
    }
}
