//! The trial calls of a half-open breaker.

use std::{sync::Weak, time::Duration};

use crate::{
    health::judge::{Judge, admit_trial},
    observe,
};

/// Whether a call may go ahead.
#[derive(Debug)]
pub enum BreakerAdmission {
    /// It may, and is recorded with [`Breaker::record`](super::Breaker::record).
    Free,
    /// It may, and must be given to [`Breaker::finish_trial`](super::Breaker::finish_trial) or
    /// [`Breaker::cancel_trial`](super::Breaker::cancel_trial).
    Trial(Trial),
    /// It may not, for this long if that is known.
    Refused(Option<Duration>),
}

impl BreakerAdmission {
    /// The same for an attempt at a node. `judge` learns how a trial ends.
    #[must_use]
    pub fn for_attempt(self, judge: &Weak<impl Judge<Trial = Trial>>) -> observe::Admission {
        match self {
            Self::Free => observe::Admission::Free,
            Self::Trial(trial) => admit_trial(judge, trial),
            Self::Refused(_) => observe::Admission::Refused,
        }
    }
}

/// A place in the trial of a half-open breaker.
#[derive(Debug)]
#[must_use = "a place that is never given back is lost for the whole trial"]
pub struct Trial {
    pub(super) round: u64,
    /// Whether it takes a place: see [`Breaker::give_place`](super::Breaker::give_place).
    pub(super) is_placed: bool,
}

/// The trial calls since the breaker became half open.
#[derive(Debug, Default)]
pub(super) struct Trials {
    /// Places of trials that are under way or have succeeded.
    pub(super) taken: u32,
    pub(super) succeeded: u32,
    /// Whether a trial has begun since the last answer. The time of the first of them counts:
    /// otherwise trials that are given up one after another would never run out of time.
    awaits_answer: bool,
}

impl Trials {
    pub(super) fn are_under_way(&self) -> bool {
        self.succeeded < self.taken
    }

    /// Takes a place. Returns whether it is the first since the last answer.
    pub(super) fn begin(&mut self) -> bool {
        self.taken += 1;
        !std::mem::replace(&mut self.awaits_answer, true)
    }

    /// Counts a success, unless others have taken all `places` meanwhile.
    pub(super) fn succeed(&mut self, trial: &Trial, places: u32) {
        if !trial.is_placed {
            if self.taken == places {
                return;
            }
            self.taken += 1;
        }
        self.succeeded += 1;
    }

    /// Notes an answer. Returns whether other trials are under way; their time begins with it.
    pub(super) fn answer(&mut self) -> bool {
        self.awaits_answer = self.are_under_way();
        self.awaits_answer
    }
}
