//! Peak EWMA: a moving average of latency that rises at once and sinks slowly.

use std::time::Duration;

use crate::{
    outcome::Outcome,
    sync::{AtomicU64, Ordering},
    time::Timestamp,
};

/// An average of latency that takes over a peak at once and forgets it over `decay`.
///
/// With `t` the time since the last observation and `w = exp(-t / decay)`, a latency above the
/// estimate replaces it, one below moves it to `estimate·w + latency·(1 - w)` (Finagle,
/// `PeakEwma.scala`). It differs from Finagle's where that one draws traffic to broken endpoints:
/// a failure doubles the estimate instead of counting as a quick answer, and the estimate decays only
/// while nothing is in flight, so a node that looked slow long ago is tried with one request and not
/// with a flood.
///
/// Reads and writes are one atomic word: no lock.
///
/// ```
/// use std::time::Duration;
/// use evenkeel_core::{load::PeakEwma, outcome::Outcome, time::Timestamp};
///
/// let latency = PeakEwma::new(Some(Duration::from_secs(10)));
/// let now = Timestamp::from_nanos(1 << 40);
/// latency.record(Outcome::Success, Duration::from_millis(20), now);
/// latency.record(Outcome::Failure, Duration::from_micros(90), now);
/// assert_eq!(latency.estimate().unwrap().as_millis(), 40);
/// ```
#[derive(Debug)]
pub struct PeakEwma {
    /// The estimate in nanoseconds as `f32` bits above the tick of the last observation.
    state: AtomicU64,
    /// In ticks; zero where latency is not measured.
    decay: f32,
}

/// A tick is 2^20 ns, about a millisecond: 32 bits of them last 52 days before they wrap.
const TICK_BITS: u32 = 20;

/// Estimates stay above zero, which means "never measured".
const ESTIMATE_MIN: f32 = 1.0;

/// A failure costs at least a millisecond: a newcomer that fails at once has no latency to double.
const FAILURE_MIN: f32 = 1e6;

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
    /// An estimate that was never measured and decays over `decay`, or is never taken without one.
    #[must_use]
    pub fn new(decay: Option<Duration>) -> Self {
        let ticks = decay.map_or(0.0, |decay| nanos(decay) / (1_u64 << TICK_BITS) as f32);
        Self { state: AtomicU64::new(0), decay: ticks }
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

    /// Forgets what was observed: it is as if it had never been measured.
    ///
    /// For a node that was taken out for its health and comes back: what was learnt while it was bad
    /// would keep all requests from it, and it is tried with one.
    pub fn forget(&self) {
        self.state.store(0, Ordering::Relaxed);
    }

    /// Takes in how an attempt ended and how long it took.
    #[inline]
    pub fn record(&self, outcome: Outcome, latency: Duration, now: Timestamp) {
        if self.is_measured() {
            self.record_measured(outcome, latency, now);
        }
    }

    fn record_measured(&self, outcome: Outcome, latency: Duration, now: Timestamp) {
        let latency = nanos(latency).max(ESTIMATE_MIN);
        match outcome {
            Outcome::Success => {
                self.change(now, |state, elapsed| self.succeeded(state, latency, elapsed));
            }
            Outcome::Failure => self.change(now, |state, _| Some(self.failed(state, latency))),
            Outcome::Throttled(delay) => {
                let latency = latency + nanos(delay.unwrap_or_default());
                self.change(now, |state, _| Some(self.failed(state, latency)));
            }
            Outcome::Ignored => {}
        }
    }

    /// What one more request would cost, with `in_flight` requests under way.
    ///
    /// The unit is nanoseconds of latency times requests. A node that was never measured costs
    /// nothing while idle, so that it is tried, and more than any other once it is being tried.
    #[must_use]
    #[inline]
    pub fn cost(&self, in_flight: u32, now: Timestamp) -> f32 {
        const UNTRIED: f32 = 1e30;
        let state = State::unpack(self.state.load(Ordering::Relaxed));
        match (state.is_measured(), in_flight) {
            (true, 0) => state.estimate * self.weight(elapsed(state, now)),
            (true, _) => state.estimate * (in_flight as f32 + 1.0),
            (false, 0) => 0.0,
            (false, _) => UNTRIED * in_flight as f32,
        }
    }

    fn succeeded(&self, state: State, latency: f32, elapsed: u32) -> Option<f32> {
        if !state.is_measured() || state.estimate <= latency {
            return Some(latency);
        }
        if elapsed == 0 {
            // Below the clock's resolution a sample weighs nothing.
            return None;
        }
        let weight = self.weight(elapsed);
        Some(state.estimate * weight + latency * (1.0 - weight))
    }

    /// Doubles the estimate up to `decay`: after one decay time without traffic it is tried again.
    fn failed(&self, state: State, latency: f32) -> f32 {
        let max = self.decay * (1_u64 << TICK_BITS) as f32;
        (state.estimate * 2.0).min(max).max(state.estimate).max(latency).max(FAILURE_MIN)
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
            let new = State { estimate: estimate.max(ESTIMATE_MIN), tick }.pack();
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

/// Ticks since the last observation; zero if it lies ahead.
#[inline]
fn elapsed(state: State, now: Timestamp) -> u32 {
    let elapsed = tick_of(now).wrapping_sub(state.tick);
    if elapsed > u32::MAX / 2 { 0 } else { elapsed }
}

fn nanos(duration: Duration) -> f32 {
    // By way of seconds: from 128 bits, as `as_nanos` gives them, a conversion takes a call.
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
    fn forgotten_it_is_tried_once_and_measured_anew() {
        let latency = measured(300);
        latency.forget();

        assert_eq!(latency.estimate(), None);
        assert_eq!(latency.cost(0, at(0.1)), 0.0, "who comes back is tried");
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
    fn a_throttled_answer_costs_its_delay() {
        let latency = measured(10);
        let outcome = Outcome::Throttled(Some(Duration::from_secs(2)));
        latency.record(outcome, Duration::from_millis(1), at(0.1));
        assert!(2_000.0 < millis(&latency));
    }

    #[test]
    fn a_clock_that_goes_back_changes_nothing_but_peaks() {
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
