//! Counts over the last calls, or those of the last seconds: all, failed and slow ones.
//!
//! Both kinds are lock-free, and each call is counted once under any number of threads.

use std::time::Duration;

use crate::{
    sync::{AtomicU8, AtomicU32, AtomicU64, Ordering},
    time::Timestamp,
};

/// The calls over which a rate is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// The last calls, this many, up to 65,536. Takes a byte for each.
    Calls(u32),
    /// The calls of this much time, in ten parts: the oldest part is forgotten as a whole. Costs a
    /// clock read for each call. A part that counts 65,535 calls halves its numbers.
    Time(Duration),
}

impl Window {
    /// The largest number of calls that a window can count.
    pub const MAX_CALLS: u32 = 1 << 16;
}

/// What one call adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) is_failed: bool,
    pub(super) is_slow: bool,
}

/// What a window holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) calls: u32,
    pub(super) failed: u32,
    pub(super) slow: u32,
}

/// Counts calls over a window.
#[derive(Debug)]
pub(super) enum Counter {
    Calls(CallCounter),
    Time(TimeCounter),
}

impl Counter {
    pub(super) fn new(window: Window) -> Self {
        match window {
            Window::Calls(calls) => Self::Calls(CallCounter::new(calls)),
            Window::Time(span) => Self::Time(TimeCounter::new(span)),
        }
    }

    /// Adds a call, and returns what the window then holds if that has changed.
    pub(super) fn record(&self, call: Call, now: impl FnOnce() -> Timestamp) -> Option<Totals> {
        match self {
            Self::Calls(counter) => counter.record(call),
            Self::Time(counter) => Some(counter.record(call, now())),
        }
    }

    pub(super) fn clear(&self) {
        match self {
            Self::Calls(counter) => counter.clear(),
            Self::Time(counter) => counter.clear(),
        }
    }
}

/// The last calls, a byte each.
#[derive(Debug)]
pub(super) struct CallCounter {
    next: AtomicU32,
    slots: Box<[AtomicU8]>,
    /// The value of `totals` while every slot holds a quick success.
    all_well: u64,
    /// 21 bits each: calls, failed, slow.
    totals: AtomicU64,
}

const FIELD_BITS: u32 = 21;
const FIELD: u64 = (1 << FIELD_BITS) - 1;

impl CallCounter {
    fn new(calls: u32) -> Self {
        assert!(0 < calls, "a window of no calls");
        assert!(calls <= Window::MAX_CALLS, "a window of more than {} calls", Window::MAX_CALLS);
        let slots = (0..calls).map(|_| AtomicU8::new(0)).collect();
        let all_well = u64::from(calls) * weight(1);
        Self { next: AtomicU32::new(0), slots, all_well, totals: AtomicU64::new(0) }
    }

    fn record(&self, call: Call) -> Option<Totals> {
        let new = 1 | u8::from(call.is_failed) << 1 | u8::from(call.is_slow) << 2;
        // All slots hold quick successes: another one would change nothing, whichever slot it took.
        if new == 1 && self.totals.load(Ordering::Relaxed) == self.all_well {
            return None;
        }
        // In 32 bits, which divide in a third of the time. Where the number wraps, a slot is passed
        // over.
        let position = self.next.fetch_add(1, Ordering::Relaxed) % self.slots.len() as u32;
        let slot = &self.slots[position as usize];
        // Nearly always a success replaces a success: nothing changes.
        if slot.load(Ordering::Relaxed) == new {
            return None;
        }
        // Added before the slot shows it, and taken away only by the thread that saw it there: so
        // no field ever borrows from its neighbour.
        self.totals.fetch_add(weight(new), Ordering::AcqRel);
        let old = slot.swap(new, Ordering::AcqRel);
        let totals = self.totals.fetch_sub(weight(old), Ordering::AcqRel) - weight(old);
        Some(unpack(totals))
    }

    fn clear(&self) {
        for slot in &self.slots {
            let old = slot.swap(0, Ordering::AcqRel);
            self.totals.fetch_sub(weight(old), Ordering::AcqRel);
        }
    }
}

/// What a slot adds to the totals.
fn weight(slot: u8) -> u64 {
    let slot = u64::from(slot);
    slot & 1 | (slot >> 1 & 1) << FIELD_BITS | (slot >> 2 & 1) << (2 * FIELD_BITS)
}

fn unpack(totals: u64) -> Totals {
    let field = |index: u32| (totals >> (index * FIELD_BITS) & FIELD) as u32;
    Totals { calls: field(0), failed: field(1), slow: field(2) }
}

/// The calls of a span of time, in ten parts.
#[derive(Debug)]
pub(super) struct TimeCounter {
    part_nanos: u64,
    /// The number of the part of the last call, not truncated.
    last: AtomicU64,
    parts: [AtomicU64; TimeCounter::PARTS],
}

/// One part: 16 bits each for its number, its calls, the failed and the slow ones.
#[derive(Clone, Copy, Default)]
struct Part {
    tick: u16,
    calls: u16,
    failed: u16,
    slow: u16,
}

impl Part {
    fn unpack(word: u64) -> Self {
        let field = |index: u32| (word >> (index * 16)) as u16;
        Self { tick: field(3), calls: field(2), failed: field(1), slow: field(0) }
    }

    fn pack(self) -> u64 {
        [self.tick, self.calls, self.failed, self.slow]
            .into_iter()
            .fold(0, |word, field| word << 16 | u64::from(field))
    }

    fn add(mut self, call: Call) -> Self {
        if self.calls == u16::MAX {
            // Halving all of them keeps the rates.
            self.calls /= 2;
            self.failed /= 2;
            self.slow /= 2;
        }
        self.calls += 1;
        self.failed += u16::from(call.is_failed);
        self.slow += u16::from(call.is_slow);
        self
    }
}

impl TimeCounter {
    const PARTS: usize = 10;

    /// Up to this many parts, an old number can be told from a new one.
    const MAX_SILENCE: u64 = 1 << 14;

    fn new(span: Duration) -> Self {
        let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        let part_nanos = nanos / Self::PARTS as u64;
        assert!(0 < part_nanos, "a window of no time");
        let parts = std::array::from_fn(|_| AtomicU64::new(0));
        Self { part_nanos, last: AtomicU64::new(0), parts }
    }

    fn record(&self, call: Call, now: Timestamp) -> Totals {
        let told = now.as_nanos() / self.part_nanos;
        self.turn(told);
        loop {
            // Read each time: a thread may have been stopped for longer than a window. Only the
            // whole numbers show that, since those in the parts wrap around.
            let last = self.last.load(Ordering::Acquire);
            let tick = if last.saturating_sub(told) < Self::PARTS as u64 { told } else { last };
            let part = &self.parts[(tick % Self::PARTS as u64) as usize];
            let word = part.load(Ordering::Acquire);
            let old = Part::unpack(word);
            // A call with a late clock reading is counted in the part that took over the place.
            let is_current = (old.tick.wrapping_sub(tick as u16) as i16) >= 0 && old.calls != 0;
            let base = if is_current { old } else { Part { tick: tick as u16, ..Part::default() } };
            let new = base.add(call).pack();
            let exchanged =
                part.compare_exchange_weak(word, new, Ordering::AcqRel, Ordering::Acquire);
            if exchanged.is_ok() {
                return self.totals(tick);
            }
        }
    }

    /// Forgets the counts of parts that were passed over, and all counts after a long silence. The
    /// numbers in the parts wrap around, so old ones would be taken for future ones.
    fn turn(&self, tick: u64) {
        let last = self.last.load(Ordering::Relaxed);
        if tick <= last {
            return;
        }
        let order = (Ordering::AcqRel, Ordering::Relaxed);
        let is_first = self.last.compare_exchange(last, tick, order.0, order.1).is_ok();
        if !is_first {
            return;
        }
        if Self::MAX_SILENCE < tick - last {
            return self.clear();
        }
        for passed_over in (last + 1..tick).rev().take(Self::PARTS) {
            self.clear_old(passed_over, tick);
        }
    }

    /// Empties the place of `passed_over`, unless another thread has counted there meanwhile.
    fn clear_old(&self, passed_over: u64, tick: u64) {
        let part = &self.parts[(passed_over % Self::PARTS as u64) as usize];
        let word = part.load(Ordering::Acquire);
        let age = (tick as u16).wrapping_sub(Part::unpack(word).tick) as i16;
        if Self::PARTS as i16 <= age {
            // It fails if another thread has just counted.
            let _ = part.compare_exchange(word, 0, Ordering::AcqRel, Ordering::Acquire);
        }
    }

    fn totals(&self, tick: u64) -> Totals {
        let mut totals = Totals::default();
        for part in &self.parts {
            let part = Part::unpack(part.load(Ordering::Acquire));
            let age = (tick as u16).wrapping_sub(part.tick) as i16;
            if age < Self::PARTS as i16 {
                totals.calls += u32::from(part.calls);
                totals.failed += u32::from(part.failed);
                totals.slow += u32::from(part.slow);
            }
        }
        totals
    }

    fn clear(&self) {
        self.parts.iter().for_each(|part| part.store(0, Ordering::Release));
    }
}

#[cfg(test)]
mod tests;
