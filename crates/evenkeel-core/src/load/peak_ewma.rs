//! Peak EWMA: a moving average of latency that rises at once and falls slowly.

use std::time::Duration;

use crate::{
    outcome::Outcome,
    sync::{AtomicU32, AtomicU64, Ordering},
    time::Timestamp,
};

/// An average of latency that adopts a peak at once and forgets it over `decay`.
///
/// Let `t` be the time since the last observation and `w = exp(-t / decay)`. A latency above the
/// estimate replaces it. A lower one moves it to `estimate·w + latency·(1 - w)` (Finagle,
/// `PeakEwma.scala`). It differs from Finagle's version where that attracts traffic to broken
/// endpoints. A failure doubles the estimate instead of counting as a quick answer. The estimate
/// decays only while nothing is in flight, so a node that looked slow long ago is tried with one
/// request, not flooded. An attempt that is [cut off](crate::cut) took at least as long as it
/// waited.
///
/// An answer that asks for less traffic for a time adds the rest of that time to the cost until it
/// has passed, and nothing after it.
///
/// Reads and writes use one atomic word, without a lock.
///
/// ```
/// use std::time::Duration;
/// use evenkeel::core::{load::PeakEwma, outcome::Outcome, time::Timestamp};
///
/// let latency = PeakEwma::new(Some(Duration::from_secs(10)));
/// let now = Timestamp::from_nanos(1 << 40);
/// latency.record(Outcome::Success, Duration::from_millis(20), now);
/// latency.record(Outcome::Failure, Duration::from_micros(90), now);
/// assert_eq!(latency.estimate().unwrap().as_millis(), 40);
/// ```
#[derive(Debug)]
pub struct PeakEwma {
    /// The estimate in nanoseconds as `f32` bits, above the tick of the last observation.
    state: AtomicU64,
    /// In ticks. Zero if latency is not measured.
    decay: f32,
    /// The tick until which the endpoint has asked for less traffic. Zero if it has not.
    spared_until: AtomicU32,
}

/// A tick is 2^20 ns, about a millisecond: 32 bits of them last 52 days before they wrap.
const TICK_BITS: u32 = 20;

/// Estimates stay above zero, which means "never measured".
const MIN_ESTIMATE: f32 = 1.0;

/// The maximum number of ticks for which an endpoint is spared: a day and a half. A point that
/// seems to be further ahead passed weeks ago, since ticks wrap around.
const MAX_SPARED_TICKS: u32 = 1 << 27;

/// A failure costs at least a millisecond: a new node that fails at once has no latency to double.
const MIN_FAILURE: f32 = 1e6;

#[derive(Clone, Copy)]
struct State {
    estimate: f32,
    tick: u32,
}

impl State {
    #[inline]
    fn unpack(word: u64) -> Self {
        Self { estimate: f32::from_bits((word >> 32) as u32), tick: word as u32 }
    }

    fn pack(self) -> u64 {
        u64::from(self.estimate.to_bits()) << 32 | u64::from(self.tick)
    }

    #[inline]
    fn is_measured(self) -> bool {
        self.estimate > 0.0
    }
}

impl PeakEwma {
    /// An estimate without observations. It decays over `decay`. With `None`, latency is not
    /// measured.
    #[must_use]
    pub fn new(decay: Option<Duration>) -> Self {
        let ticks = decay.map_or(0.0, |decay| nanos(decay) / (1_u64 << TICK_BITS) as f32);
        Self { state: AtomicU64::new(0), decay: ticks, spared_until: AtomicU32::new(0) }
    }

    /// Whether latency is measured at all.
    #[must_use]
    #[inline]
    pub fn is_measured(&self) -> bool {
        self.decay > 0.0
    }

    /// The estimate as of its last observation, or `None` before the first.
    #[must_use]
    pub fn estimate(&self) -> Option<Duration> {
        let state = State::unpack(self.state.load(Ordering::Relaxed));
        state.is_measured().then(|| Duration::from_nanos(state.estimate as u64))
    }

    /// Forgets all observations, as if latency had never been measured.
    ///
    /// For a node that was closed for its health and comes back: what was observed while it was bad
    /// would keep all requests away. After this it is tried with one request.
    pub fn forget(&self) {
        self.state.store(0, Ordering::Relaxed);
    }

    /// Records how an attempt ended and how long it took.
    #[inline]
    pub fn record(&self, outcome: Outcome, latency: Duration, now: Timestamp) {
        if self.is_measured() {
            self.record_measured(outcome, latency, now);
        }
    }

    fn record_measured(&self, outcome: Outcome, latency: Duration, now: Timestamp) {
        let latency = nanos(latency).max(MIN_ESTIMATE);
        match outcome {
            Outcome::Success => {
                self.change(now, |state, elapsed| self.succeeded(state, latency, elapsed));
                self.end_sparing(now);
            }
            Outcome::Failure => self.change(now, |state, _| Some(self.failed(state, latency))),
            Outcome::Throttled(Some(delay)) if Duration::ZERO < delay => self.spare(delay, now),
            Outcome::Throttled(_) => self.change(now, |state, _| Some(self.failed(state, latency))),
            Outcome::Ignored => {}
        }
    }

    /// Records that an attempt was given up after it had `waited` for its answer.
    ///
    /// The answer would have taken at least that long. A wait above the estimate replaces it. A
    /// shorter one never makes the node look better than it would without it.
    pub(crate) fn record_cut(&self, waited: Duration, now: Timestamp) {
        if !self.is_measured() {
            return;
        }
        let waited = nanos(waited).max(MIN_ESTIMATE);
        self.change(now, |state, elapsed| {
            // The cost while it is idle. A shorter wait adds no knowledge.
            let is_news = state.estimate * self.weight(elapsed) <= waited;
            if is_news { self.succeeded(state, waited, elapsed) } else { None }
        });
    }

    /// Records that the endpoint asks for less traffic for `delay`. The rest of that time is added
    /// to its cost. The answer itself does not say how long others take.
    fn spare(&self, delay: Duration, now: Timestamp) {
        let ticks = nanos(delay) / (1_u64 << TICK_BITS) as f32;
        let until = tick_of(now).wrapping_add((ticks as u32).min(MAX_SPARED_TICKS));
        // The longest counts, since they need not come in order.
        let latest = |before: u32| {
            let is_later = remaining(before, now) < remaining(until, now);
            is_later.then_some(if until == 0 { 1 } else { until })
        };
        // An error means that it already was to be spared for longer.
        let _ = self.spared_until.fetch_update(Ordering::Relaxed, Ordering::Relaxed, latest);
    }

    /// Forgets the end of sparing once it has passed. Ticks wrap, so it would lie ahead again.
    #[inline]
    fn end_sparing(&self, now: Timestamp) {
        let until = self.spared_until.load(Ordering::Relaxed);
        if until != 0 && remaining(until, now) == 0 {
            // An error means that it is to be spared again by now.
            let (order, failed) = (Ordering::Relaxed, Ordering::Relaxed);
            let _ = self.spared_until.compare_exchange(until, 0, order, failed);
        }
    }

    /// The cost of one more request, with `in_flight` requests under way.
    ///
    /// The unit is nanoseconds of latency times requests. A node that was never measured costs
    /// nothing while idle, so that it is tried. While it is being tried, it costs more than any
    /// other.
    #[must_use]
    #[inline]
    pub fn cost(&self, in_flight: u32, now: Timestamp) -> f32 {
        const UNTRIED: f32 = 1e30;
        let state = State::unpack(self.state.load(Ordering::Relaxed));
        let cost = match (state.is_measured(), in_flight) {
            (true, 0) => state.estimate * self.weight(elapsed(state, now)),
            (true, _) => state.estimate * (in_flight as f32 + 1.0),
            (false, 0) => 0.0,
            (false, _) => UNTRIED * in_flight as f32,
        };
        match self.spared_until.load(Ordering::Relaxed) {
            0 => cost,
            until => cost + remaining(until, now) as f32 * (1_u64 << TICK_BITS) as f32,
        }
    }

    fn succeeded(&self, state: State, latency: f32, elapsed: u32) -> Option<f32> {
        if !state.is_measured() || state.estimate <= latency {
            return Some(latency);
        }
        if elapsed == 0 {
            // Below the clock's resolution a sample has no weight.
            return None;
        }
        let weight = self.weight(elapsed);
        Some(state.estimate * weight + latency * (1.0 - weight))
    }

    /// Doubles the estimate up to `decay`, so the node is tried again after one decay time without
    /// traffic.
    fn failed(&self, state: State, latency: f32) -> f32 {
        let max = self.decay * (1_u64 << TICK_BITS) as f32;
        (state.estimate * 2.0).min(max).max(state.estimate).max(latency).max(MIN_FAILURE)
    }

    #[inline]
    fn weight(&self, elapsed: u32) -> f32 {
        if elapsed == 0 { 1.0 } else { (-(elapsed as f32) / self.decay).exp() }
    }

    fn change(&self, now: Timestamp, estimate: impl Fn(State, u32) -> Option<f32>) {
        let mut word = self.state.load(Ordering::Relaxed);
        loop {
            let state = State::unpack(word);
            let elapsed = elapsed(state, now);
            let Some(estimate) = estimate(state, elapsed) else { return };
            // A clock that stands still or goes back must not move the stamp back.
            let tick = state.tick.wrapping_add(elapsed);
            let tick = if state.is_measured() { tick } else { tick_of(now) };
            let new = State { estimate: estimate.max(MIN_ESTIMATE), tick }.pack();
            if new == word {
                return;
            }
            match self.state.compare_exchange_weak(word, new, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return,
                Err(current) => word = current,
            }
        }
    }
}

#[inline]
fn tick_of(now: Timestamp) -> u32 {
    (now.as_nanos() >> TICK_BITS) as u32
}

/// Ticks until then. Zero if that has passed.
fn remaining(until: u32, now: Timestamp) -> u32 {
    let remaining = until.wrapping_sub(tick_of(now));
    if until == 0 || MAX_SPARED_TICKS < remaining { 0 } else { remaining }
}

/// Ticks since the last observation. Zero if it lies ahead, as clock readings do by milliseconds.
#[inline]
fn elapsed(state: State, now: Timestamp) -> u32 {
    /// About a quarter of an hour.
    const MAX_TICKS_AHEAD: u32 = 1 << 20;
    let elapsed = tick_of(now).wrapping_sub(state.tick);
    if u32::MAX - MAX_TICKS_AHEAD < elapsed { 0 } else { elapsed }
}

fn nanos(duration: Duration) -> f32 {
    // Computed from seconds: converting the 128 bits of `as_nanos` takes a function call.
    duration.as_secs() as f32 * 1e9 + duration.subsec_nanos() as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECAY: Duration = Duration::from_secs(10);

    fn at(seconds: f64) -> Timestamp {
        Timestamp::from_nanos((1 << 50) + (seconds * 1e9) as u64)
    }

    fn millis(latency: &PeakEwma) -> f64 {
        latency.estimate().unwrap().as_secs_f64() * 1e3
    }

    fn measured(millis: u64) -> PeakEwma {
        let latency = PeakEwma::new(Some(DECAY));
        latency.record(Outcome::Success, Duration::from_millis(millis), at(0.0));
        latency
    }

    #[test]
    fn an_endpoint_whose_latency_is_forgotten_is_tried_once_and_measured_again() {
        let latency = measured(300);
        latency.forget();

        assert_eq!(latency.estimate(), None);
        assert_eq!(latency.cost(0, at(0.1)), 0.0, "a node that comes back is tried");
        assert!(measured(300).cost(9, at(0.1)) < latency.cost(1, at(0.1)), "with one request");
        latency.record(Outcome::Success, Duration::from_millis(2), at(0.2));
        assert_eq!(millis(&latency), 2.0);
    }

    #[test]
    fn a_peak_counts_at_once_and_sinks_over_the_decay_time() {
        let latency = measured(10);
        latency.record(Outcome::Success, Duration::from_millis(200), at(1.0));
        assert!((millis(&latency) - 200.0).abs() < 0.01);

        latency.record(Outcome::Success, Duration::from_millis(10), at(11.0));
        let expected = 200.0 * (-1.0_f64).exp() + 10.0 * (1.0 - (-1.0_f64).exp());
        assert!((millis(&latency) - expected).abs() < 0.1, "{}", millis(&latency));
    }

    #[test]
    fn a_failure_never_lowers_the_estimate() {
        let latency = measured(20);
        let mut before = millis(&latency);
        for second in 1..40 {
            latency.record(Outcome::Failure, Duration::from_micros(100), at(f64::from(second)));
            assert!(before <= millis(&latency));
            before = millis(&latency);
        }
        assert!((before - 10_000.0).abs() < 1.0, "bounded by the decay time: {before}");
    }

    #[test]
    fn an_idle_node_grows_cheap_and_is_tried_with_one_request_only() {
        let latency = measured(1_000);
        let fresh = latency.cost(0, at(0.0));
        let idle = latency.cost(0, at(60.0));
        assert!(idle < fresh / 100.0);
        assert!(fresh < latency.cost(1, at(60.0)), "one request in flight restores its price");
    }

    #[test]
    fn a_newcomer_costs_nothing_until_it_is_being_tried() {
        let newcomer = PeakEwma::new(Some(DECAY));
        let slow = measured(5_000);
        assert!(newcomer.cost(0, at(0.0)) < slow.cost(0, at(0.0)));
        assert!(slow.cost(100, at(0.0)) < newcomer.cost(1, at(0.0)));
    }

    #[test]
    fn a_throttled_answer_costs_its_delay_until_that_is_over_and_nothing_after_it() {
        let (latency, other) = (measured(10), measured(10));
        for (delay, after) in [(5, 0.1), (2, 0.2)] {
            let outcome = Outcome::Throttled(Some(Duration::from_secs(delay)));
            latency.record(outcome, Duration::from_millis(1), at(after));
        }
        let more = |seconds| latency.cost(0, at(seconds)) - other.cost(0, at(seconds));
        assert!((4.98e9..5.01e9).contains(&more(0.1)), "{}", more(0.1));
        assert!((0.98e9..1.01e9).contains(&more(4.1)), "the longer one counts: {}", more(4.1));
        assert_eq!(more(5.2), 0.0);
        for latency in [&latency, &other] {
            latency.record(Outcome::Success, Duration::from_millis(10), at(7.0));
        }
        assert_eq!(more(4_000_000.0), 0.0, "after 46 days the ticks have wrapped");

        latency.record(Outcome::Throttled(Some(Duration::MAX)), Duration::ZERO, at(8.0));
        assert!(1e14 < more(8.0));
        latency.record(Outcome::Throttled(None), Duration::ZERO, at(8.0));
        assert_eq!(millis(&latency), 20.0, "one that names no time counts as failed");
    }

    #[test]
    fn an_observation_of_weeks_ago_has_decayed_and_an_earlier_reading_decays_nothing() {
        const DAY: f64 = 24.0 * 3_600.0;
        let latency = measured(1_000);
        for days in [1.0, 20.0, 30.0, 50.0, 52.0] {
            let cost = latency.cost(0, at(days * DAY));
            assert!(cost < 1.0, "{cost} after {days} days");
        }
        assert_eq!(latency.cost(0, at(-60.0)), 1e9, "a clock that was read before another's");
    }

    #[test]
    fn an_endpoint_that_throttled_weeks_ago_is_not_spared_any_more() {
        const DAY: f64 = 24.0 * 3_600.0;
        let (latency, other) = (measured(10), measured(10));
        let outcome = Outcome::Throttled(Some(Duration::from_secs(30)));
        latency.record(outcome, Duration::from_millis(1), at(1.0));
        for days in [1.0, 20.0, 26.5, 30.0, 40.0, 50.0] {
            let more = latency.cost(0, at(days * DAY)) - other.cost(0, at(days * DAY));
            assert_eq!(more, 0.0, "after {days} days");
        }
    }

    #[test]
    fn an_attempt_that_was_cut_off_took_at_least_as_long_as_it_waited() {
        let cut = |latency: &PeakEwma, millis, seconds| {
            latency.record_cut(Duration::from_millis(millis), at(seconds));
        };
        let latency = PeakEwma::new(Some(DECAY));
        cut(&latency, 5, 0.0);
        assert_eq!(millis(&latency), 5.0);
        cut(&latency, 100, 0.1);
        assert_eq!(millis(&latency), 100.0);

        let before = latency.cost(0, at(1.0));
        cut(&latency, 5, 1.0);
        assert_eq!(latency.cost(0, at(1.0)), before, "a short wait makes nothing look quicker");
        assert_eq!(millis(&latency), 100.0);
    }

    #[test]
    fn an_endpoint_that_swallows_requests_is_tried_again_with_one_at_a_time() {
        let latency = measured(100);
        let idle = at(40.0);
        assert!(latency.cost(0, idle) < 2e6);
        // Not quite as long as the first wait.
        latency.record_cut(Duration::from_millis(99), idle);
        assert!(99e6 <= latency.cost(0, idle));
    }

    #[test]
    fn if_the_clock_goes_back_only_a_higher_latency_counts() {
        let latency = measured(100);
        latency.record(Outcome::Success, Duration::from_millis(1), at(-5.0));
        assert!((millis(&latency) - 100.0).abs() < 0.01);
        assert!(latency.cost(0, at(-5.0)).is_finite());
    }

    #[test]
    fn nothing_is_measured_without_a_decay_time() {
        let latency = PeakEwma::new(None);
        latency.record(Outcome::Success, Duration::from_secs(1), at(0.0));
        assert_eq!(latency.estimate(), None);
    }
}
