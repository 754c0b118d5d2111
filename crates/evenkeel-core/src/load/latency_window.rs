//! A percentile of recent latency that is not distorted by attempts that were cut off.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::time::Timestamp;

/// A percentile of the latency of the last 16 seconds, computed at intervals and cheap to read.
///
/// An attempt that was cancelled or failed took *at least* as long as it lasted. Leaving it out
/// would make latency look better the more slow attempts are cancelled. So it is counted as cut
/// off, by the estimator of Kaplan and Meier (1958) for such observations. If more attempts were
/// cut off than lie above the percentile, the result is the longest of all, but at most four times
/// the longest that was answered. Without that limit, the percentile beside an endpoint that never
/// answers would grow with each hedge that waited for it.
///
/// Latency is kept to a sixteenth, from 16 microseconds to four minutes. Its size is fixed, 24 KiB.
///
/// ```
/// use std::time::Duration;
/// use evenkeel::core::{load::LatencyWindow, time::Timestamp};
///
/// let window = LatencyWindow::new(90.0);
/// for millis in 1..=100 {
///     window.record_success(Duration::from_millis(millis), Timestamp::default());
/// }
/// window.refresh(Timestamp::from_nanos(1_000_000_000));
/// let percentile = window.percentile().unwrap();
/// assert!((90..=96).contains(&percentile.as_millis()));
/// ```
#[derive(Debug)]
pub struct LatencyWindow {
    share: f64,
    /// With fewer answers than this, the percentile is not known.
    min_answers: u64,
    tick: AtomicU64,
    /// In nanoseconds. `u64::MAX` while it is not known.
    percentile: AtomicU64,
    slots: Box<[Slot]>,
}

/// Counts of latencies, by bucket.
#[derive(Debug)]
struct Slot {
    answered: [AtomicU32; BUCKETS],
    cut: [AtomicU32; BUCKETS],
}

const SLOTS: u64 = 8;
/// The percentile is computed four times a second, the oldest slot forgotten every two seconds.
const TICK_NANOS: u64 = 250_000_000;
const TICKS_PER_SLOT: u64 = 8;

/// Sixteen buckets to each doubling.
const STEP_BITS: u32 = 4;
const MIN_BITS: u32 = 14;
const MAX_BITS: u32 = 38;
const BUCKETS: usize = ((MAX_BITS - MIN_BITS) << STEP_BITS) as usize;

/// How many buckets further latency is four times as long.
const FOURFOLD: usize = 2 << STEP_BITS;

impl LatencyWindow {
    /// Measures the latency that `percent` of attempts do not exceed.
    ///
    /// # Panics
    /// If `percent` is not between 1 and 99.9.
    #[must_use]
    pub fn new(percent: f64) -> Self {
        assert!((1.0..=99.9).contains(&percent), "the percentile {percent}");
        let share = percent / 100.0;
        let slot = |_| Slot {
            answered: std::array::from_fn(|_| AtomicU32::new(0)),
            cut: std::array::from_fn(|_| AtomicU32::new(0)),
        };
        Self {
            share,
            min_answers: (1.0 / (1.0 - share)).ceil().max(10.0) as u64,
            tick: AtomicU64::new(0),
            percentile: AtomicU64::new(u64::MAX),
            slots: (0..SLOTS).map(slot).collect(),
        }
    }

    /// Records that an attempt was answered successfully after `latency`.
    pub fn record_success(&self, latency: Duration, now: Timestamp) {
        self.refresh(now);
        self.slot().answered[bucket(latency)].fetch_add(1, Relaxed);
    }

    /// Records that an attempt was cut off or failed after `latency`. It would have taken at least
    /// that long.
    pub fn record_at_least(&self, latency: Duration, now: Timestamp) {
        self.refresh(now);
        self.slot().cut[bucket(latency)].fetch_add(1, Relaxed);
    }

    /// The percentile as last computed, if there was enough data.
    #[must_use]
    #[inline]
    pub fn percentile(&self) -> Option<Duration> {
        match self.percentile.load(Relaxed) {
            u64::MAX => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }

    /// Forgets old attempts and computes the percentile, if it is time.
    #[inline]
    pub fn refresh(&self, now: Timestamp) {
        let (tick, last) = (now.as_nanos() / TICK_NANOS, self.tick.load(Relaxed));
        if last < tick && self.tick.compare_exchange(last, tick, Relaxed, Relaxed).is_ok() {
            self.turn(last / TICKS_PER_SLOT, tick / TICKS_PER_SLOT);
        }
    }

    fn slot(&self) -> &Slot {
        &self.slots[(self.tick.load(Relaxed) / TICKS_PER_SLOT % SLOTS) as usize]
    }

    #[cold]
    fn turn(&self, last: u64, slot: u64) {
        for old in (last + 1)..=slot.min(last + SLOTS) {
            let Slot { answered, cut } = &self.slots[((slot - (old - last - 1)) % SLOTS) as usize];
            answered.iter().chain(cut).for_each(|count| count.store(0, Relaxed));
        }
        let percentile = self.compute().map_or(u64::MAX, upper);
        self.percentile.store(percentile, Relaxed);
    }

    fn compute(&self) -> Option<usize> {
        let sum = |counts: fn(&Slot) -> &[AtomicU32; BUCKETS], bucket: usize| {
            self.slots.iter().map(|slot| u64::from(counts(slot)[bucket].load(Relaxed))).sum::<u64>()
        };
        let counts: Vec<_> = (0..BUCKETS)
            .map(|bucket| (sum(|slot| &slot.answered, bucket), sum(|slot| &slot.cut, bucket)))
            .collect();
        let answers: u64 = counts.iter().map(|(answered, _)| answered).sum();
        if answers < self.min_answers {
            return None;
        }
        // How many attempts lasted until here, and which share of all would have.
        let mut lasting: u64 = counts.iter().map(|(answered, cut)| answered + cut).sum();
        let mut share = 1.0;
        let (mut longest, mut longest_answered) = (0, 0);
        for (bucket, (answered, cut)) in counts.into_iter().enumerate() {
            if answered + cut == 0 {
                continue;
            }
            share *= 1.0 - answered as f64 / lasting as f64;
            lasting -= answered + cut;
            longest = bucket;
            if answered != 0 {
                longest_answered = bucket;
            }
            if share <= 1.0 - self.share + f64::EPSILON {
                break;
            }
        }
        Some(longest.min(longest_answered + FOURFOLD))
    }
}

fn bucket(latency: Duration) -> usize {
    let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
    let nanos = nanos.clamp(1 << MIN_BITS, (1 << MAX_BITS) - 1);
    let bits = nanos.ilog2();
    let step = (nanos >> (bits - STEP_BITS)) & ((1 << STEP_BITS) - 1);
    (((bits - MIN_BITS) as usize) << STEP_BITS) + step as usize
}

/// The end of a bucket.
const fn upper(bucket: usize) -> u64 {
    let bits = MIN_BITS + (bucket >> STEP_BITS) as u32;
    let step = (bucket & ((1 << STEP_BITS) - 1)) as u64;
    (1 << bits) + ((step + 1) << (bits - STEP_BITS))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::rng::Rng;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_nanos(1 << 62) + ms(millis)
    }

    fn assert_near(window: &LatencyWindow, millis: u64) {
        let found = window.percentile().expect("enough was seen");
        assert!(ms(millis) <= found && found <= ms(millis * 17 / 16 + 1), "{found:?}");
    }

    #[test]
    fn a_bucket_holds_what_lies_below_its_end() {
        for nanos in
            (14..38).flat_map(|bits| [1_u64 << bits, (1 << bits) + 12_345, (2 << bits) - 1])
        {
            let end = upper(bucket(Duration::from_nanos(nanos)));
            assert!(nanos < end, "{nanos} < {end}");
            assert!(end as f64 <= nanos as f64 * 1.07, "{nanos} {end}");
        }
        assert_eq!(bucket(Duration::ZERO), 0);
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn too_few_answers_give_no_percentile() {
        let window = LatencyWindow::new(95.0);
        (0..19).for_each(|_| window.record_success(ms(5), at(0)));
        window.refresh(at(500));
        assert_eq!(window.percentile(), None);
        window.record_success(ms(5), at(500));
        window.refresh(at(1_000));
        assert_near(&window, 5);
    }

    #[test]
    fn old_answers_are_forgotten_even_after_a_long_silence() {
        let window = LatencyWindow::new(50.0);
        (0..100).for_each(|_| window.record_success(ms(5), at(0)));
        for step in 0..7 {
            window.record_success(ms(400), at(2_000 * step));
        }
        window.refresh(at(13_000));
        assert_near(&window, 5);
        (0..10).for_each(|_| window.record_success(ms(400), at(17_900)));
        window.refresh(at(18_200));
        assert_near(&window, 400);
        window.refresh(at(100_000_000));
        assert_eq!(window.percentile(), None);
    }

    #[test]
    fn cancelled_losers_do_not_make_the_service_look_faster() {
        // One in ten takes a second, but is cut off by its hedge after 20 milliseconds.
        let (blind, seeing) = (LatencyWindow::new(95.0), LatencyWindow::new(95.0));
        for call in 0..1_000 {
            if call % 10 == 0 {
                seeing.record_at_least(ms(20), at(0));
            } else {
                for window in [&blind, &seeing] {
                    window.record_success(ms(1 + call % 9), at(0));
                }
            }
        }
        blind.refresh(at(500));
        seeing.refresh(at(500));
        assert_near(&blind, 9);
        assert_near(&seeing, 20);
    }

    #[test]
    fn without_attempts_that_were_cut_off_the_result_is_the_plain_percentile() {
        for (percent, millis) in [(50.0, 50), (90.0, 90), (99.0, 99)] {
            let window = LatencyWindow::new(percent);
            (1..=100).for_each(|millis| window.record_success(ms(millis), at(0)));
            window.refresh(at(500));
            assert_near(&window, millis);
        }
    }

    /// A list of all attempts.
    #[derive(Default)]
    struct Model {
        seen: Vec<(u64, Duration, bool)>,
        tick: u64,
        percentile: Option<Duration>,
    }

    impl Model {
        fn refresh(&mut self, now: Timestamp, percent: f64) {
            let tick = now.as_nanos() / 250_000_000;
            if self.tick < tick {
                self.tick = tick;
                self.seen.retain(|(slot, ..)| tick / 8 - slot < 8);
                self.percentile = self.compute(percent / 100.0);
            }
        }

        /// By the definition of Kaplan and Meier.
        fn compute(&self, share: f64) -> Option<Duration> {
            let mut answers: Vec<_> = self.seen.iter().filter(|(.., answered)| *answered).collect();
            if (answers.len() as f64) < (1.0 / (1.0 - share)).ceil().max(10.0) {
                return None;
            }
            answers.sort_by_key(|(_, latency, _)| *latency);
            answers.dedup_by_key(|(_, latency, _)| *latency);
            let mut lasting = 1.0;
            for (_, latency, _) in answers {
                let count = |is: &dyn Fn(&(u64, Duration, bool)) -> bool| {
                    self.seen.iter().filter(|seen| is(seen)).count() as f64
                };
                let at_risk = count(&|(_, other, _)| latency <= other);
                let ended = count(&|(_, other, answered)| *answered && latency == other);
                lasting *= 1.0 - ended / at_risk;
                if lasting <= 1.0 - share + 1e-12 {
                    return Some(*latency);
                }
            }
            let answered = self.seen.iter().filter(|(.., is_answered)| *is_answered);
            let longest = self.seen.iter().map(|(_, latency, _)| *latency).max();
            longest.min(answered.map(|(_, latency, _)| *latency * 4).max())
        }
    }

    #[test]
    fn an_endpoint_that_never_answers_does_not_drag_the_percentile_along() {
        let window = LatencyWindow::new(95.0);
        for step in 0..4_000 {
            let now = at(step * 10);
            // One of five endpoints hangs: its attempts are cut off once the hedge has answered.
            if step % 5 == 0 {
                window.record_at_least(window.percentile().unwrap_or(ms(100)) + ms(10), now);
            }
            window.record_success(ms(10), now);
        }
        let percentile = window.percentile().unwrap();
        assert!((ms(10)..ms(43)).contains(&percentile), "{percentile:?}");
    }

    #[test]
    fn the_percentile_is_that_of_a_list_of_all_attempts() {
        for seed in 0..12 {
            let mut rng = Rng::with_seed(seed);
            let percent = [50.0, 90.0, 95.0][rng.below(3)];
            let (window, mut model) = (LatencyWindow::new(percent), Model::default());
            let (mut now, mut cut) = (Timestamp::from_nanos(1 << 62), 0);
            for step in 0..2_000 {
                if rng.below(300) == 0 {
                    cut = rng.below(8);
                    now = now + ms([3_000, 15_900, 60_000][rng.below(3)]);
                }
                now = now + ms(rng.below_u64(60));
                // Each latency in its own bucket.
                let latency = ms(1).mul_f64(1.5_f64.powi(rng.below(14) as i32));
                model.refresh(now, percent);
                let is_answered = cut <= rng.below(10);
                if is_answered {
                    window.record_success(latency, now);
                } else {
                    window.record_at_least(latency, now);
                }
                model.seen.push((model.tick / 8, latency, is_answered));

                let (found, expected) = (window.percentile(), model.percentile);
                assert_eq!(found.is_some(), expected.is_some(), "seed {seed}, step {step}");
                if let (Some(found), Some(expected)) = (found, expected) {
                    let is_near = expected <= found && found <= expected * 17 / 16;
                    assert!(is_near, "seed {seed}, step {step}: {found:?} for {expected:?}");
                }
            }
        }
    }
}
