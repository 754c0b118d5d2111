//! Two counts over a sliding window, without a lock.

use std::{array, time::Duration};

use crate::{
    sync::{AtomicI64, AtomicU64, Ordering},
    time::Timestamp,
};

/// Counts of the last [`SLOTS`] ticks, and their sums.
///
/// A slot keeps its tick and both counts in one word. Whoever empties a slot takes from the sums
/// exactly what it held, so nothing is lost or counted twice. Who comes with an old reading of the clock
/// counts in the tick that was told last. More than 2²⁴ in one tick are not counted.
#[derive(Debug)]
pub(super) struct Tally {
    tick_nanos: u64,
    head: AtomicU64,
    first: AtomicI64,
    second: AtomicI64,
    slots: [AtomicU64; SLOTS as usize],
}

/// What a tally holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) first: u64,
    pub(super) second: u64,
}

/// Into how many ticks a window is divided: a power of two, so that ticks may wrap.
#[cfg(not(loom))]
const SLOTS: u64 = 16;
#[cfg(loom)]
const SLOTS: u64 = 2;

/// So many of a tick ask for the time, and one in so many after them: as many as may count too early when
/// a busy time is over.
const UNTOLD: u64 = 8;

const COUNT_BITS: u32 = 24;
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;
const TICK_MAX: u64 = u16::MAX as u64;

#[derive(Clone, Copy)]
struct Slot {
    tick: u64,
    counts: Counts,
}

impl Slot {
    const fn unpack(word: u64) -> Self {
        let counts = Counts { first: word >> COUNT_BITS & COUNT_MAX, second: word & COUNT_MAX };
        Self { tick: word >> (2 * COUNT_BITS), counts }
    }

    const fn pack(self) -> u64 {
        self.tick << (2 * COUNT_BITS) | self.counts.first << COUNT_BITS | self.counts.second
    }
}

impl Tally {
    pub(super) fn new(window: Duration) -> Self {
        let tick_nanos = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX) / SLOTS;
        assert!(0 < tick_nanos, "a window of no time");
        Self {
            tick_nanos,
            head: AtomicU64::new(0),
            first: AtomicI64::new(0),
            second: AtomicI64::new(0),
            slots: array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// Adds to both counts.
    pub(super) fn add(&self, first: u64, second: u64, now: Timestamp) {
        let tick = self.tell(now);
        let place = &self.slots[(tick % SLOTS) as usize];
        let mut held = Counts::default();
        let add = |word| {
            let old = Slot::unpack(word);
            // An empty one is of any tick; one that is ahead was taken over for a later.
            let is_empty = old.counts == Counts::default();
            let is_ahead = 0 <= (old.tick as u16).wrapping_sub(tick as u16) as i16;
            let tick = if is_empty || !is_ahead { tick & TICK_MAX } else { old.tick };
            held = if is_ahead { Counts::default() } else { old.counts };
            let counts = if is_ahead { old.counts } else { Counts::default() };
            let (first, second) = (counts.first + first, counts.second + second);
            let is_room = first <= COUNT_MAX && second <= COUNT_MAX;
            is_room.then(|| Slot { tick, counts: Counts { first, second } }.pack())
        };
        if place.fetch_update(Ordering::AcqRel, Ordering::Acquire, add).is_ok() {
            change(&self.first, first as i64 - held.first as i64);
            change(&self.second, second as i64 - held.second as i64);
        }
    }

    /// The time that was told last, or nothing if it should be told again.
    pub(super) fn lately(&self) -> Option<Timestamp> {
        let head = self.head.load(Ordering::Acquire);
        let slot = Slot::unpack(self.slots[(head % SLOTS) as usize].load(Ordering::Relaxed));
        let first = slot.counts.first;
        // Few of them last for longer than a window: each has to count when it came.
        let is_known = UNTOLD <= first && !first.is_multiple_of(UNTOLD);
        is_known.then(|| Timestamp::from_nanos(head * self.tick_nanos))
    }

    /// What was counted up to the time that was told last.
    pub(super) fn counts(&self) -> Counts {
        // A sum may lag behind its slots for a moment, and be below zero then.
        let sum = |sum: &AtomicI64| u64::try_from(sum.load(Ordering::Acquire)).unwrap_or(0);
        Counts { first: sum(&self.first), second: sum(&self.second) }
    }

    /// Forgets what is older than a window at `now`; gives the tick that is counted in.
    pub(super) fn tell(&self, now: Timestamp) -> u64 {
        let tick = now.as_nanos() / self.tick_nanos;
        let head = self.head.load(Ordering::Acquire);
        if tick <= head {
            return head;
        }
        if self.head.compare_exchange(head, tick, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            // Numbers of slots come round; after a silence as long as that they tell nothing.
            let is_long = TICK_MAX / 4 < tick - head;
            for old in (head + 1).max(tick.saturating_sub(SLOTS - 1))..=tick {
                self.clear(old, is_long);
            }
        }
        tick
    }

    /// Empties the slot of a tick, unless what it holds is of that tick: another thread may have been
    /// faster.
    fn clear(&self, tick: u64, is_whatever: bool) {
        let is_old = |slot: Slot| ((slot.tick as u16).wrapping_sub(tick as u16) as i16) < 0;
        let clear = |word| (is_whatever || is_old(Slot::unpack(word))).then_some(0);
        let place = &self.slots[(tick % SLOTS) as usize];
        if let Ok(word) = place.fetch_update(Ordering::AcqRel, Ordering::Acquire, clear) {
            let held = Slot::unpack(word).counts;
            change(&self.first, -(held.first as i64));
            change(&self.second, -(held.second as i64));
        }
    }
}

fn change(sum: &AtomicI64, by: i64) {
    // Most calls are counted once: the other sum is left alone, and its cache line with it.
    if by != 0 {
        sum.fetch_add(by, Ordering::AcqRel);
    }
}
