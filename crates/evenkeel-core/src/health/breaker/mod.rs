//! The state machine of a circuit breaker: closed, open, half open.
//!
//! It opens after consecutive failures, or when the rate of failed or slow calls over a window
//! reaches a limit. It stays open for a time that grows with each failed trial. Then it lets a few
//! calls in as a trial, and closes if all of them succeed. It can be held open or closed by hand.
//!
//! | outcome | consecutive failures | rates | a trial call |
//! |---|---|---|---|
//! | success | start over | a call | succeeds, unless it is slow |
//! | failure | one more | a failed call | fails |
//! | throttled | untouched | a failed call | fails |
//! | ignored | untouched | not counted | gives its place back |
//! | no answer in [`trial_timeout`](BreakerRules::trial_timeout) since the last one | | | fails |
//!
//! A throttled answer is not a consecutive failure, as in linkerd: an endpoint that sheds some of
//! its load works.
//!
//! While it is closed, admitting a call is one atomic load, and recording it takes no lock. The
//! lock is taken when the state changes, and for trial calls, of which there are few.
//!
//! ```
//! use std::time::Duration;
//! use evenkeel::core::{
//!     health::breaker::{BreakerAdmission, Breaker, BreakerRules, State},
//!     outcome::Outcome, rng::Rng, time::Timestamp,
//! };
//!
//! let mut rules = BreakerRules::default();
//! rules.consecutive_failures = Some(2);
//! let breaker = Breaker::new(rules, Rng::with_seed(1));
//! let now = Timestamp::from_nanos(0);
//!
//! breaker.record(Outcome::Failure, Duration::ZERO, || now);
//! breaker.record(Outcome::Failure, Duration::ZERO, || now);
//! assert_eq!(breaker.state(), State::Open);
//!
//! let later = now + Duration::from_secs(1);
//! let BreakerAdmission::Trial(trial) = breaker.admit(later) else { panic!("time for a trial") };
//! breaker.finish_trial(trial, Outcome::Success, Duration::ZERO, later);
//! assert_eq!(breaker.state(), State::Closed);
//! ```

use std::time::Duration;

mod rules;
mod state;
mod trial;

pub use rules::BreakerRules;
pub use state::State;
use trial::Trials;
pub use trial::{BreakerAdmission, Trial};

use super::window::{Call, Counter};
use crate::{
    node::Access,
    outcome::Outcome,
    rng::Rng,
    sync::{AtomicU32, AtomicU64, Mutex, MutexGuard, Ordering},
    time::Timestamp,
};

/// A circuit breaker. See the [module docs](self).
#[derive(Debug)]
pub struct Breaker {
    rules: BreakerRules,
    /// The state and the round that it belongs to.
    phase: AtomicU64,
    /// When an open breaker may be tried, or when a trial under way has taken too long.
    until: AtomicU64,
    consecutive: AtomicU32,
    counter: Option<Counter>,
    cold: Mutex<Cold>,
}

/// Fields that only changes of state and trials use.
#[derive(Debug)]
struct Cold {
    rng: Rng,
    /// How often it opened since it was last closed.
    openings: u32,
    trials: Trials,
}

const CLOSED: u64 = 0;
const OPEN: u64 = 1;
const HALF_OPEN: u64 = 2;
/// Half open, with all places taken.
const FULL: u64 = 3;
const HELD_OPEN: u64 = 4;
const HELD_CLOSED: u64 = 5;

const KIND: u64 = 7;
const ROUND: u64 = 8;

impl Breaker {
    /// A closed breaker that draws its open times from `rng`.
    ///
    /// # Panics
    /// If a rule makes no sense: a limit of zero, a rate outside `(0, 1]`, a window of nothing or
    /// of more than [`Window::MAX_CALLS`](super::Window::MAX_CALLS) calls, or a least open time of
    /// zero or above the greatest.
    #[must_use]
    pub fn new(rules: BreakerRules, rng: Rng) -> Self {
        rules.check();
        let has_rate = rules.failure_rate.is_some() || rules.slow_calls.is_some();
        Self {
            phase: AtomicU64::new(CLOSED),
            until: AtomicU64::new(0),
            consecutive: AtomicU32::new(0),
            counter: has_rate.then(|| Counter::new(rules.window)),
            cold: Mutex::new(Cold { rng, openings: 0, trials: Trials::default() }),
            rules,
        }
    }

    /// The rules.
    #[must_use]
    pub fn rules(&self) -> &BreakerRules {
        &self.rules
    }

    /// What it does with calls.
    ///
    /// After its open time is over, a breaker is still open until it is [tried](Self::half_open).
    #[must_use]
    pub fn state(&self) -> State {
        match self.phase.load(Ordering::Acquire) & KIND {
            OPEN => State::Open,
            HALF_OPEN | FULL => State::HalfOpen,
            HELD_OPEN => State::HeldOpen,
            HELD_CLOSED => State::HeldClosed,
            _ => State::Closed,
        }
    }

    /// How far it is open to calls, in terms of a node's gate.
    #[must_use]
    #[inline]
    pub fn access(&self) -> Access {
        match self.phase.load(Ordering::Acquire) & KIND {
            CLOSED | HELD_CLOSED => Access::Open,
            HALF_OPEN => Access::Guarded,
            _ => Access::Closed,
        }
    }

    /// When it may be tried, if it is open.
    #[must_use]
    pub fn opens_until(&self) -> Option<Timestamp> {
        let until = Timestamp::from_nanos(self.until.load(Ordering::Acquire));
        (self.state() == State::Open).then_some(until)
    }

    /// When [`look_after`](Self::look_after) should be called: when an open breaker may be tried,
    /// or when a trial call under way has taken too long.
    #[must_use]
    pub fn due(&self) -> Option<Timestamp> {
        let cold = self.lock();
        let is_waiting = match self.phase.load(Ordering::Acquire) & KIND {
            OPEN => true,
            HALF_OPEN | FULL => cold.trials.are_under_way(),
            _ => false,
        };
        is_waiting.then(|| Timestamp::from_nanos(self.until.load(Ordering::Acquire)))
    }

    /// Does what is [due](Self::due): lets trial calls in, or opens again if a trial call got no
    /// answer. Returns whether the state changed.
    pub fn look_after(&self, now: Timestamp) -> bool {
        self.half_open(now) || self.give_up(now)
    }

    /// Opens again if a trial call has taken too long.
    fn give_up(&self, now: Timestamp) -> bool {
        let phase = self.phase.load(Ordering::Acquire);
        let is_half_open = matches!(phase & KIND, HALF_OPEN | FULL);
        if !is_half_open || now.as_nanos() < self.until.load(Ordering::Acquire) {
            return false;
        }
        let mut cold = self.lock();
        let is_same = self.phase.load(Ordering::Acquire) / ROUND == phase / ROUND;
        let is_late = Timestamp::from_nanos(self.until.load(Ordering::Acquire)) <= now;
        let gives_up = is_same && is_late && cold.trials.are_under_way();
        if gives_up {
            self.open(&mut cold, now);
        }
        gives_up
    }

    /// Whether a call may go ahead. If its open time is over, the breaker becomes half open.
    pub fn admit(&self, now: Timestamp) -> BreakerAdmission {
        match self.phase.load(Ordering::Acquire) & KIND {
            CLOSED | HELD_CLOSED => return BreakerAdmission::Free,
            HELD_OPEN => return BreakerAdmission::Refused(None),
            FULL if !self.look_after(now) => return BreakerAdmission::Refused(None),
            _ => self.look_after(now),
        };
        let mut cold = self.lock();
        let phase = self.phase.load(Ordering::Acquire);
        match phase & KIND {
            CLOSED | HELD_CLOSED => BreakerAdmission::Free,
            OPEN => {
                let until = Timestamp::from_nanos(self.until.load(Ordering::Acquire));
                BreakerAdmission::Refused(Some(until.since(now)))
            }
            HALF_OPEN => {
                // After a pause in which the time ran out, a new call gets its own time.
                let is_over = self.until.load(Ordering::Acquire) <= now.as_nanos();
                if cold.trials.begin() || is_over {
                    self.await_answer(now);
                }
                if cold.trials.taken == self.rules.trial_calls {
                    self.phase.store(phase - HALF_OPEN + FULL, Ordering::Release);
                }
                BreakerAdmission::Trial(Trial { round: phase / ROUND, is_placed: true })
            }
            _ => BreakerAdmission::Refused(None),
        }
    }

    /// Counts the end of a call that was admitted freely, and returns whether that opened the
    /// breaker.
    ///
    /// While it is half open, only a failure counts and opens it, for example that of a body after
    /// its head has ended the trial.
    ///
    /// `now` is called only if needed: by a time window, and when the breaker opens.
    #[inline]
    pub fn record(&self, outcome: Outcome, latency: Duration, now: impl Fn() -> Timestamp) -> bool {
        let phase = self.phase.load(Ordering::Acquire);
        if phase & KIND != CLOSED {
            let is_half_open = matches!(phase & KIND, HALF_OPEN | FULL);
            return is_half_open && outcome == Outcome::Failure && self.open_from(phase, now());
        }
        let (is_failed, row) = match outcome {
            Outcome::Success => {
                if self.consecutive.load(Ordering::Relaxed) != 0 {
                    self.consecutive.store(0, Ordering::Relaxed);
                }
                (false, 0)
            }
            Outcome::Failure => (true, self.consecutive.fetch_add(1, Ordering::Relaxed) + 1),
            Outcome::Throttled(_) => (true, 0),
            Outcome::Ignored => return false,
        };
        let call = Call { is_failed, is_slow: self.rules.is_slow(latency) };
        let totals = self.counter.as_ref().and_then(|counter| counter.record(call, &now));
        let is_over = self.rules.consecutive_failures.is_some_and(|max| max <= row)
            || totals.is_some_and(|totals| self.rules.is_too_much(totals));
        is_over && self.open_from(phase, now())
    }

    /// Lets trial calls in if it is open and its open time is over. Returns whether the state
    /// changed.
    pub fn half_open(&self, now: Timestamp) -> bool {
        let phase = self.phase.load(Ordering::Acquire);
        if phase & KIND != OPEN || now.as_nanos() < self.until.load(Ordering::Acquire) {
            return false;
        }
        let mut cold = self.lock();
        if self.phase.load(Ordering::Acquire) != phase {
            return false;
        }
        cold.trials = Trials::default();
        self.enter(HALF_OPEN);
        true
    }

    /// Ends a trial call, and returns whether the state changed.
    ///
    /// The first failure opens the breaker again. A failure of an earlier trial does not count.
    #[allow(clippy::needless_pass_by_value)]
    pub fn finish_trial(
        &self,
        trial: Trial,
        outcome: Outcome,
        latency: Duration,
        now: Timestamp,
    ) -> bool {
        let mut cold = self.lock();
        if !self.is_on_trial(&trial) {
            return false;
        }
        match outcome {
            Outcome::Ignored if trial.is_placed => self.give_back(&mut cold),
            Outcome::Ignored => {}
            Outcome::Success if !self.rules.is_slow(latency) => {
                cold.trials.succeed(&trial, self.rules.trial_calls);
                if cold.trials.succeeded == self.rules.trial_calls {
                    self.close(&mut cold);
                    return true;
                }
            }
            _ => {
                self.open(&mut cold, now);
                return true;
            }
        }
        if cold.trials.answer() {
            self.await_answer(now);
        }
        false
    }

    /// Lets another call take this one's place, because its answer may be late by design. When this
    /// call ends, it still closes or opens the breaker.
    pub fn give_place(&self, trial: &mut Trial) {
        let mut cold = self.lock();
        if std::mem::take(&mut trial.is_placed) && self.is_on_trial(trial) {
            self.give_back(&mut cold);
        }
    }

    /// Gives back the place of a cancelled trial call.
    #[allow(clippy::needless_pass_by_value)]
    pub fn cancel_trial(&self, trial: Trial) {
        let mut cold = self.lock();
        if trial.is_placed && self.is_on_trial(&trial) {
            self.give_back(&mut cold);
        }
    }

    /// Refuses all calls until [`reset`](Self::reset) or [`hold_closed`](Self::hold_closed).
    pub fn hold_open(&self) {
        let _cold = self.lock();
        self.enter(HELD_OPEN);
    }

    /// Lets all calls through, whatever their outcome, until [`reset`](Self::reset) or
    /// [`hold_open`](Self::hold_open).
    pub fn hold_closed(&self) {
        let _cold = self.lock();
        self.enter(HELD_CLOSED);
    }

    /// Closes it and forgets all counts.
    pub fn reset(&self) {
        self.close(&mut self.lock());
    }

    #[cold]
    fn open_from(&self, phase: u64, now: Timestamp) -> bool {
        let mut cold = self.lock();
        // If several calls fail at the same time, the first one opens it.
        let is_same = self.phase.load(Ordering::Acquire) == phase;
        if is_same {
            self.open(&mut cold, now);
        }
        is_same
    }

    fn open(&self, cold: &mut Cold, now: Timestamp) {
        let until = now + self.rules.open_time(cold.openings, &mut cold.rng);
        cold.openings = cold.openings.saturating_add(1);
        self.until.store(until.as_nanos(), Ordering::Release);
        self.enter(OPEN);
    }

    fn close(&self, cold: &mut Cold) {
        cold.openings = 0;
        self.consecutive.store(0, Ordering::Relaxed);
        if let Some(counter) = &self.counter {
            counter.clear();
        }
        self.enter(CLOSED);
    }

    /// From now on, the trials under way have as much time as a trial may take.
    fn await_answer(&self, now: Timestamp) {
        self.until.store((now + self.rules.trial_timeout).as_nanos(), Ordering::Release);
    }

    fn give_back(&self, cold: &mut Cold) {
        cold.trials.taken -= 1;
        let phase = self.phase.load(Ordering::Acquire);
        self.phase.store(phase & !KIND | HALF_OPEN, Ordering::Release);
    }

    /// Begins the next round, so that trials and failures of earlier rounds can be recognised.
    fn enter(&self, kind: u64) {
        let round = self.phase.load(Ordering::Acquire) / ROUND;
        self.phase.store((round.wrapping_add(1) * ROUND) | kind, Ordering::Release);
    }

    fn is_on_trial(&self, trial: &Trial) -> bool {
        let phase = self.phase.load(Ordering::Acquire);
        trial.round == phase / ROUND && matches!(phase & KIND, HALF_OPEN | FULL)
    }

    fn lock(&self) -> MutexGuard<'_, Cold> {
        self.cold.lock().expect("no panic under the lock")
    }
}

#[cfg(test)]
mod tests;
