//! The last calls, or those of the last seconds: how many there were, failed, and were slow.
//!
//! Both kinds are lock-free, and what one call adds is added once, whatever the threads.

use std::time::Duration;

use crate::{
    sync::{AtomicU8, AtomicU64, Ordering},
    time::Timestamp,
};

/// Over which calls a rate is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// The last so many calls, up to 65,536. A byte each.
    Calls(u32),
    /// The calls of the last so much time, in ten parts: the oldest part is forgotten as a whole.
    /// Costs a clock read for each call. A part that counts 65,535 calls halves its numbers.
    Time(Duration),
}

impl Window {
    /// The most calls that a window can be asked to count.
    pub const CALLS_MAX: u32 = 1 << 16;
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
    next: AtomicU64,
    slots: Box<[AtomicU8]>,
    /// 21 bits each: calls, failed, slow.
    totals: AtomicU64,
}

const FIELD_BITS: u32 = 21;
const FIELD: u64 = (1 << FIELD_BITS) - 1;

impl CallCounter {
    fn new(calls: u32) -> Self {
        assert!(0 < calls, "a window of no calls");
        assert!(calls <= Window::CALLS_MAX, "a window of more than {} calls", Window::CALLS_MAX);
        let slots = (0..calls).map(|_| AtomicU8::new(0)).collect();
        Self { next: AtomicU64::new(0), slots, totals: AtomicU64::new(0) }
    }

    fn record(&self, call: Call) -> Option<Totals> {
        let new = 1 | u8::from(call.is_failed) << 1 | u8::from(call.is_slow) << 2;
        let position = self.next.fetch_add(1, Ordering::Relaxed) % self.slots.len() as u64;
        let slot = &self.slots[position as usize];
        // Nearly always a success takes the place of a success: nothing changes.
        if slot.load(Ordering::Relaxed) == new {
            return None;
        }
        // Added before it can be seen in the slot, and taken away only by whoever saw it there: no
        // field ever borrows from its neighbour.
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

/// The calls of the last ten parts of a time.
#[derive(Debug)]
pub(super) struct TimeCounter {
    part_nanos: u64,
    parts: [AtomicU64; TimeCounter::PARTS],
}

/// One part: 16 bits each for its time, its calls, the failed and the slow ones.
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
            // The rates stay what they are.
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

    fn new(span: Duration) -> Self {
        let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        let part_nanos = nanos / Self::PARTS as u64;
        assert!(0 < part_nanos, "a window of no time");
        Self { part_nanos, parts: std::array::from_fn(|_| AtomicU64::new(0)) }
    }

    fn record(&self, call: Call, now: Timestamp) -> Totals {
        let tick = now.as_nanos() / self.part_nanos;
        let part = &self.parts[(tick % Self::PARTS as u64) as usize];
        let mut word = part.load(Ordering::Acquire);
        loop {
            let old = Part::unpack(word);
            // A clock reading that came late is counted in the part that took over its place.
            let is_current = (old.tick.wrapping_sub(tick as u16) as i16) >= 0 && old.calls != 0;
            let base = if is_current { old } else { Part { tick: tick as u16, ..Part::default() } };
            let new = base.add(call).pack();
            match part.compare_exchange_weak(word, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return self.totals(tick),
                Err(current) => word = current,
            }
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

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::rng::Rng;

    const OK: Call = Call { is_failed: false, is_slow: false };
    const FAILED: Call = Call { is_failed: true, is_slow: false };

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_nanos((1 << 62) + millis * 1_000_000)
    }

    fn totals(counter: &CallCounter) -> Totals {
        unpack(counter.totals.load(Ordering::Acquire))
    }

    fn sum<'a>(calls: impl Iterator<Item = &'a Call>) -> Totals {
        calls.fold(Totals::default(), |sum, call| Totals {
            calls: sum.calls + 1,
            failed: sum.failed + u32::from(call.is_failed),
            slow: sum.slow + u32::from(call.is_slow),
        })
    }

    /// resilience4j's `FixedSizeSlidingWindowMetricsTest`: a window of four, one error, four successes.
    #[test]
    fn failure_rates_of_a_count_window_are_those_of_resilience4j() {
        let counter = CallCounter::new(4);
        let calls = [FAILED, OK, OK, OK, OK];
        for (call, expected) in calls.into_iter().zip([100.0, 50.0, 33.333_332, 25.0, 0.0]) {
            counter.record(call);
            let Totals { calls, failed, .. } = totals(&counter);
            let rate = failed as f32 * 100.0 / calls as f32;
            assert!((rate - expected).abs() < 1e-4, "{rate} for {expected}");
        }
    }

    /// The same test's slow calls: SS, SE, S, S, S in a window of five.
    #[test]
    fn slow_call_rates_of_a_count_window_are_those_of_resilience4j() {
        let counter = CallCounter::new(5);
        let slow = Call { is_failed: false, is_slow: true };
        let slow_error = Call { is_failed: true, is_slow: true };
        for call in [slow, slow_error, OK, OK, OK] {
            counter.record(call);
        }
        assert_eq!(totals(&counter), Totals { calls: 5, failed: 1, slow: 2 });
    }

    #[test]
    fn a_count_window_holds_what_a_queue_would() {
        let mut rng = Rng::with_seed(11);
        for size in [1, 2, 7, 64] {
            let counter = CallCounter::new(size);
            let mut model = VecDeque::new();
            for step in 0..2_000 {
                let call = Call { is_failed: rng.below(3) == 0, is_slow: rng.below(4) == 0 };
                model.push_back(call);
                if model.len() > size as usize {
                    model.pop_front();
                }
                let seen = counter.record(call);
                assert_eq!(totals(&counter), sum(model.iter()), "step {step}");
                assert!(seen.is_none_or(|seen| seen == sum(model.iter())));
                if rng.below(200) == 0 {
                    counter.clear();
                    model.clear();
                    assert_eq!(totals(&counter), Totals::default());
                }
            }
        }
    }

    #[test]
    fn a_time_window_holds_what_a_queue_would() {
        let mut rng = Rng::with_seed(12);
        let counter = TimeCounter::new(Duration::from_secs(1));
        let mut model: VecDeque<(u64, Call)> = VecDeque::new();
        let mut millis = 0;
        for _ in 0..5_000 {
            millis += if rng.below(50) == 0 { 3_000 } else { rng.below_u64(20) };
            let call = Call { is_failed: rng.below(3) == 0, is_slow: rng.below(4) == 0 };
            model.push_back((at(millis).as_nanos() / 100_000_000, call));
            let tick = model.back().unwrap().0;
            model.retain(|(t, _)| tick - t < 10);

            let seen = counter.record(call, at(millis));

            assert_eq!(seen, sum(model.iter().map(|(_, call)| call)));
        }
    }

    #[test]
    fn a_time_window_forgets_after_its_time_and_not_before() {
        let counter = TimeCounter::new(Duration::from_secs(1));
        let begin = 7 * 100_000_000_u64;
        let at = |nanos| Timestamp::from_nanos(begin + nanos);
        counter.record(FAILED, at(0));
        assert_eq!(counter.record(OK, at(999_999_999)).failed, 1);
        assert_eq!(counter.record(OK, at(1_000_000_000)).failed, 0);
    }

    #[test]
    fn a_part_that_is_full_keeps_its_rates() {
        let counter = TimeCounter::new(Duration::from_secs(1));
        let mut seen = Totals::default();
        for n in 0..1_000_000 {
            seen = counter.record(if n % 4 == 0 { FAILED } else { OK }, at(0));
        }
        assert!(30_000 < seen.calls && seen.calls < 65_536, "{seen:?}");
        assert!((f64::from(seen.failed) / f64::from(seen.calls) - 0.25).abs() < 0.001, "{seen:?}");
    }

    #[test]
    fn sixteen_threads_lose_no_call() {
        let calls = CallCounter::new(1_000);
        let time = TimeCounter::new(Duration::from_secs(1));
        std::thread::scope(|scope| {
            for thread in 0..16 {
                let (calls, time) = (&calls, &time);
                scope.spawn(move || {
                    for n in 0..2_000 {
                        let call = Call { is_failed: (n + thread) % 3 == 0, is_slow: n % 5 == 0 };
                        calls.record(call);
                        time.record(call, at(0));
                    }
                });
            }
        });
        let slots = calls.slots.iter().map(|slot| weight(slot.load(Ordering::Acquire))).sum();
        assert_eq!(totals(&calls), unpack(slots));
        assert_eq!(totals(&calls).calls, 1_000);
        let all = time.totals(at(0).as_nanos() / time.part_nanos);
        assert_eq!(all.calls, 32_000);
        assert_eq!(all.slow, 16 * 400);
    }
}
