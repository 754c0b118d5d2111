//! How fast queries may follow each other.

use std::time::Duration;

use tokio::time::Instant;

/// How many queries may follow each other at once.
const BURST: u32 = 5;
/// The rest between two queries that brought news.
const REST: Duration = Duration::from_millis(100);
/// The rest after many queries without news; each of them doubles it up to here.
const MAX_REST: Duration = Duration::from_secs(1);

/// A token bucket that refills more slowly the more queries return without news.
///
/// Consul wakes a query about a service that does not exist with every change of any service, and a
/// query about a service with chattering checks with each of their outputs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// The bucket as a point in time: when it will be full again.
    full_at: Instant,
    fruitless: u32,
}

impl Pace {
    pub(crate) fn new(now: Instant) -> Self {
        Self { full_at: now, fruitless: 0 }
    }

    /// How long the next query has to wait. Called once for each.
    pub(crate) fn delay(&mut self, now: Instant) -> Duration {
        let rest = REST.saturating_mul(2_u32.saturating_pow(self.fruitless)).min(MAX_REST);
        let burst = if self.fruitless == 0 { BURST } else { 1 };
        let start = (self.full_at).max(now);
        let delay = start.duration_since(now).saturating_sub(rest * (burst - 1));
        // The debt of the bucket is bounded, so that a calm pays all of it.
        self.full_at = (start + rest).min(now + delay + MAX_REST * BURST);
        delay
    }

    /// Records whether a query brought news, or waited for as long as it was meant to.
    pub(crate) fn record_answer(&mut self, was_worth_it: bool) {
        self.fruitless = if was_worth_it { 0 } else { (self.fruitless + 1).min(8) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    /// When each of `queries` is made, if all are answered at once.
    fn made(queries: u32, was_worth_it: bool) -> Vec<u64> {
        let start = clock::now();
        let (mut pace, mut now) = (Pace::new(start), start);
        let mut made = vec![];
        for _ in 0..queries {
            now += pace.delay(now);
            made.push((now - start).as_millis() as u64);
            pace.record_answer(was_worth_it);
        }
        made
    }

    #[test]
    fn a_few_queries_go_at_once_and_then_ten_a_second() {
        assert_eq!(made(8, true), [0, 0, 0, 0, 0, 100, 200, 300]);
    }

    #[test]
    fn queries_without_news_slow_down_to_one_a_second() {
        let made = made(12, false);

        assert!(made[11] - made[10] == 1_000, "{made:?}");
        assert!(5_000 < made[11], "{made:?}");
    }

    #[test]
    fn news_make_queries_quick_again() {
        let start = clock::now();
        let mut pace = Pace::new(start);
        let mut now = start;
        for _ in 0..12 {
            now += pace.delay(now);
            pace.record_answer(false);
        }
        pace.record_answer(true);

        let delay = pace.delay(now);

        assert!(delay <= MAX_REST, "{delay:?}");
        now += delay + Duration::from_secs(5);
        assert_eq!(pace.delay(now), Duration::ZERO);
    }
}
