//! Two counts over a sliding window, without a lock.

use std::time::Duration;

use crate::{
    ring::{MAX_COUNT, Ring, tick_nanos, tick_of},
    sync::{AtomicI64, AtomicU64, Ordering},
    time::Timestamp,
};

/// Two counts over the last sixteen ticks, and their sums.
///
/// A call with an old clock reading counts in the last known tick. A tick counts up to 2²⁵.
#[derive(Debug)]
pub(super) struct Tally {
    tick_nanos: u64,
    /// The latest tick up to which old counts are forgotten.
    head: AtomicU64,
    first: Sum,
    second: Sum,
}

/// The counts of a tally.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) first: u64,
    pub(super) second: u64,
}

/// The first 8 of a tick read the time, and one in 8 after them: that is how many may count too
/// early when a busy time is over.
const UNTOLD: u64 = 8;

impl Tally {
    pub(super) fn new(window: Duration) -> Self {
        let (first, second) = (Sum::new(), Sum::new());
        Self { tick_nanos: tick_nanos(window), head: AtomicU64::new(0), first, second }
    }

    /// Adds to both counts.
    pub(super) fn add(&self, first: u64, second: u64, now: Timestamp) {
        let tick = self.tell(now);
        self.first.add(first, tick);
        self.second.add(second, tick);
    }

    /// The last known time, or `None` if it should be read again.
    pub(super) fn lately(&self) -> Option<Timestamp> {
        let head = self.head.load(Ordering::Acquire);
        let first = self.first.slots.count(head);
        // Few calls may be spread over more than a window: each has to count when it came. A full
        // slot no longer changes, and would never ask again.
        let is_known = (UNTOLD..MAX_COUNT).contains(&first) && !first.is_multiple_of(UNTOLD);
        is_known.then(|| Timestamp::from_nanos(head * self.tick_nanos))
    }

    /// The counts up to the last known time.
    pub(super) fn counts(&self) -> Counts {
        Counts { first: self.first.get(), second: self.second.get() }
    }

    /// Forgets counts that are older than a window at `now`. Returns the tick to count in.
    pub(super) fn tell(&self, now: Timestamp) -> u64 {
        let tick = tick_of(now, self.tick_nanos);
        let head = self.head.load(Ordering::Acquire);
        if tick <= head { head } else { self.advance(tick) }
    }

    /// Each thread forgets all that is due before it moves `head`: no thread waits for another.
    #[cold]
    fn advance(&self, tick: u64) -> u64 {
        self.first.forget(tick);
        self.second.forget(tick);
        self.head.fetch_max(tick, Ordering::AcqRel).max(tick)
    }
}

/// A count for each tick, and the sum of all.
#[derive(Debug)]
struct Sum {
    sum: AtomicI64,
    slots: Ring,
}

impl Sum {
    fn new() -> Self {
        Self { sum: AtomicI64::new(0), slots: Ring::new() }
    }

    fn add(&self, amount: u64, tick: u64) {
        // Most calls are counted once: the other sum is not touched, nor is its cache line.
        if 0 < amount && self.slots.add(amount, tick) {
            self.sum.fetch_add(amount as i64, Ordering::AcqRel);
        }
    }

    fn forget(&self, tick: u64) {
        let change = |held: i64| _ = self.sum.fetch_sub(held, Ordering::AcqRel);
        self.slots.forget(tick, |_| {}, change);
    }

    fn get(&self) -> u64 {
        // The sum may lag behind its slots for a moment, and be below zero then.
        u64::try_from(self.sum.load(Ordering::Acquire)).unwrap_or(0)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_tick_whose_counter_is_full_asks_for_the_time_with_each_call() {
        let (tally, now) = (Tally::new(Duration::from_secs(16)), Timestamp::from_nanos(1 << 60));
        tally.add(MAX_COUNT, 0, now);
        assert_eq!(tally.lately(), None);

        tally.add(1, 0, tally.lately().unwrap_or(now + Duration::from_secs(20)));

        assert_eq!(tally.counts().first, 1, "the next tick counts again");
    }
}
