//! Counts over a sliding window, exact under many threads, without a lock.

use std::{array, time::Duration};

use crate::{
    sync::{AtomicU64, Ordering},
    time::Timestamp,
};

/// The number of ticks into which a window is divided.
#[cfg(not(loom))]
pub(crate) const TICKS: u64 = 16;
#[cfg(loom)]
pub(crate) const TICKS: u64 = 2;

/// 2²⁵ ns, 34 ms, is the shortest tick for which 39 bits hold every [`Timestamp`].
const MIN_TICK_NANOS: u64 = 1 << (64 - TICK_BITS);
const TICK_BITS: u32 = 39;

const COUNT_BITS: u32 = 64 - TICK_BITS;
pub(crate) const MAX_COUNT: u64 = (1 << COUNT_BITS) - 1;

/// The length of a tick of `window`. A window below half a second counts as half a second.
///
/// # Panics
/// If the window has fewer nanoseconds than ticks.
pub(crate) fn tick_nanos(window: Duration) -> u64 {
    let nanos = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX) / TICKS;
    assert!(0 < nanos, "a window of no time");
    nanos.max(MIN_TICK_NANOS)
}

/// The tick of `now`.
#[inline]
pub(crate) const fn tick_of(now: Timestamp, tick_nanos: u64) -> u64 {
    now.as_nanos() / tick_nanos
}

/// A count of up to 2²⁵ for each of the last [`TICKS`] ticks.
///
/// A slot keeps its count and the whole number of its tick in one word, and that number only rises.
/// So a word that a stopped thread has read never comes back: when the thread goes on, its step is
/// refused, however late that is. No thread waits for the step of another. A thread that finds a
/// slot of an old tick empties it itself. A thread with an old time counts in the tick that has
/// taken the slot over.
#[derive(Debug)]
pub(crate) struct Ring([AtomicU64; TICKS as usize]);

impl Ring {
    pub(crate) fn new() -> Self {
        Self(array::from_fn(|_| AtomicU64::new(0)))
    }

    /// Adds `amount` at `tick`, unless the slot is full. Older counts have to be forgotten first.
    #[inline]
    pub(crate) fn add(&self, amount: u64, tick: u64) -> bool {
        let add = |word: u64| (amount <= MAX_COUNT - (word & MAX_COUNT)).then(|| word + amount);
        let added = self.slot(tick).fetch_update(Ordering::AcqRel, Ordering::Acquire, add);
        debug_assert!(tick <= added.unwrap_or_else(|full| full) >> COUNT_BITS, "an old slot");
        added.is_ok()
    }

    /// The count at `tick`.
    #[inline]
    pub(crate) fn count(&self, tick: u64) -> u64 {
        self.slot(tick).load(Ordering::Relaxed) & MAX_COUNT
    }

    /// Empties the slots of all ticks before the window that ends with `tick`.
    ///
    /// `before` is called with each count that is about to go, and with its negative if it did not
    /// go. `after` is called with each count that has gone. Each count goes once, under any number
    /// of threads.
    pub(crate) fn forget(&self, tick: u64, before: impl Fn(i64), after: impl Fn(i64)) {
        for tick in tick.saturating_sub(TICKS - 1)..=tick {
            let slot = self.slot(tick);
            let mut word = slot.load(Ordering::Acquire);
            while word >> COUNT_BITS < tick {
                let held = (word & MAX_COUNT) as i64;
                let empty = tick << COUNT_BITS;
                before(held);
                match slot.compare_exchange(word, empty, Ordering::AcqRel, Ordering::Acquire) {
                    Ok(_) => {
                        after(held);
                        break;
                    }
                    Err(other) => {
                        before(-held);
                        word = other;
                    }
                }
            }
        }
    }

    fn slot(&self, tick: u64) -> &AtomicU64 {
        &self.0[(tick % TICKS) as usize]
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn forget(ring: &Ring, tick: u64) -> i64 {
        let gone = Cell::new(0);
        ring.forget(tick, |_| {}, |held| gone.set(gone.get() + held));
        gone.get()
    }

    #[test]
    fn a_count_is_forgotten_once_after_a_window() {
        let ring = Ring::new();
        forget(&ring, 100);
        assert!(ring.add(3, 100));
        assert!(ring.add(4, 100));

        assert_eq!(forget(&ring, 115), 0);
        assert_eq!(ring.count(100), 7);
        assert_eq!(forget(&ring, 116), 7);
        assert_eq!(forget(&ring, 116), 0);
    }

    #[test]
    fn a_step_that_comes_late_changes_no_slot_in_use() {
        // Also if the low bits of the tick have wrapped around.
        for late in [1, 17, 1 << 12, 1 << 16, 1 << 32] {
            let ring = Ring::new();
            let tick = (1 << 38) + late;
            forget(&ring, tick);
            ring.add(5, tick);

            assert_eq!(forget(&ring, tick - late), 0, "{late} ticks late");
            assert!(ring.add(1, tick - late), "counted in the tick that took the slot over");

            assert_eq!(forget(&ring, tick + 16), 6, "{late} ticks late");
        }
    }

    #[test]
    fn a_slot_counts_up_to_its_last_bit_and_then_no_more() {
        let ring = Ring::new();
        assert!(ring.add(MAX_COUNT - 1, 0));
        assert!(!ring.add(2, 0));
        assert!(ring.add(1, 0));
        assert!(!ring.add(1, 0));
        assert_eq!(forget(&ring, 16), MAX_COUNT as i64);
    }

    #[test]
    fn every_time_has_a_tick_that_fits() {
        let last = Timestamp::from_nanos(u64::MAX);
        let tick = tick_of(last, tick_nanos(Duration::from_nanos(TICKS)));
        assert_eq!(tick, (1 << TICK_BITS) - 1);
        let ring = Ring::new();
        forget(&ring, tick);
        assert!(ring.add(1, tick));
        assert_eq!(ring.count(tick), 1);
    }
}
