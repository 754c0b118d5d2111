//! Windows against a queue, the figures of resilience4j, and sixteen threads.

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

/// The thread was stopped between the reading and the count, while the numbers of parts wrapped
/// around.
#[test]
fn a_reading_that_is_a_lap_late_counts_as_now_and_is_forgotten_after_a_window() {
    for late in [10, 100, (1 << 15) + 3, 1 << 16, (1 << 16) + 7] {
        let counter = TimeCounter::new(Duration::from_secs(1));
        let millis = 100 * (1 << 17);
        counter.record(OK, at(millis));

        let seen = counter.record(FAILED, at(millis - 100 * late));

        assert_eq!(seen, Totals { calls: 2, failed: 1, slow: 0 }, "{late} parts late");
        for part in 1..=30 {
            let seen = counter.record(OK, at(millis + 100 * part));
            let expected = u32::from(part < 10);
            assert_eq!(seen.failed, expected, "{late} parts late, {part} parts later");
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
fn a_part_whose_counters_are_full_keeps_its_rates() {
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

#[test]
fn a_time_window_is_empty_after_a_silence_of_any_length() {
    // The numbers of parts wrap around after 65,536 parts of a tenth of a second: 109 minutes.
    for minutes in [1, 54, 55, 80, 109, 110, 500, 60 * 24 * 30] {
        let counter = TimeCounter::new(Duration::from_secs(1));
        for millis in 0..1_000 {
            counter.record(FAILED, at(millis));
        }
        for later in 0..20 {
            let now = at(minutes * 60_000 + later * 100);
            let held = counter.record(OK, now);
            assert_eq!(held.failed, 0, "{minutes} minutes and {later} parts");
            assert_eq!(held.calls, 10.min(later as u32 + 1), "{minutes} minutes");
        }
    }
}

#[test]
fn counts_in_a_part_that_no_later_call_falls_into_never_come_back() {
    let counter = TimeCounter::new(Duration::from_secs(1));
    counter.record(FAILED, at(0));
    let place = at(0).as_nanos() / counter.part_nanos % TimeCounter::PARTS as u64;
    // The numbers of parts wrap around after 65,536.
    for part in 10..140_000 {
        let now = at(100 * part);
        if now.as_nanos() / counter.part_nanos % TimeCounter::PARTS as u64 == place {
            continue;
        }
        assert_eq!(counter.record(OK, now).failed, 0, "{part} parts later");
    }
}
