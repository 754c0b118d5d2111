//! Trials: attempts that show whether a node is fit again.

use std::sync::{Arc, Weak};

use crate::observe::{Admission, Pass, Report};

/// Lets in attempts as trials, and learns how they end: what observes a node for a
/// [breaker](super::breaker::Breaker) or for [ejection](super::outlier::Outlier).
///
/// Each trial comes back once, to [`finish_trial`](Self::finish_trial) or
/// [`cancel_trial`](Self::cancel_trial), however its attempt ends.
pub trait Judge: Send + Sync + 'static {
    /// A place among the trials.
    type Trial: Send + Sync;

    /// The attempt has ended, or [is judged](crate::attempt::Attempt::judge_trial) by the head of
    /// its response.
    fn finish_trial(&self, trial: Self::Trial, report: &Report);

    /// The answer [may be late by design](crate::attempt::Attempt::set_untimed): another attempt
    /// may have the place.
    fn give_place(&self, trial: &mut Self::Trial);

    /// The attempt was dropped without an end.
    fn cancel_trial(&self, trial: Self::Trial);
}

/// The pass of an attempt that goes ahead as a trial.
struct TrialPass<J: Judge> {
    judge: Arc<J>,
    /// `None` once it has come back.
    trial: Option<J::Trial>,
}

/// Lets an attempt in as `trial`.
pub(super) fn admit_trial<J: Judge>(judge: &Weak<J>, trial: J::Trial) -> Admission {
    match judge.upgrade() {
        Some(judge) => Admission::Trial(Box::new(TrialPass { judge, trial: Some(trial) })),
        // Only while the node itself is being dropped.
        None => Admission::Refused,
    }
}

impl<J: Judge> Pass for TrialPass<J> {
    fn ended(mut self: Box<Self>, report: &Report) {
        if let Some(trial) = self.trial.take() {
            self.judge.finish_trial(trial, report);
        }
    }

    fn give_place(mut self: Box<Self>) -> Option<Box<dyn Pass>> {
        let Self { judge, trial } = &mut *self;
        judge.give_place(trial.as_mut()?);
        Some(self)
    }
}

impl<J: Judge> Drop for TrialPass<J> {
    fn drop(&mut self) {
        if let Some(trial) = self.trial.take() {
            self.judge.cancel_trial(trial);
        }
    }
}
