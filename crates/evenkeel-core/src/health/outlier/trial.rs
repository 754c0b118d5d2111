//! Trial requests of a node that is on probation.

use std::sync::Weak;

use crate::{
    health::judge::{Judge, admit_trial},
    observe,
};

/// Whether an attempt may go ahead at a node that is on probation.
#[derive(Debug)]
pub enum OutlierAdmission {
    /// It may: the node is not on probation.
    Free,
    /// It may, as a trial.
    Trial(Trial),
    /// It may not.
    Refused,
}

impl OutlierAdmission {
    /// The same for an attempt at a node. `judge` learns how a trial ends.
    #[must_use]
    pub fn for_attempt(self, judge: &Weak<impl Judge<Trial = Trial>>) -> observe::Admission {
        match self {
            Self::Free => observe::Admission::Free,
            Self::Trial(trial) => admit_trial(judge, trial),
            Self::Refused => observe::Admission::Refused,
        }
    }
}

/// A place in the probation of a node. Give it to [`Outlier::finish_trial`](super::Outlier::finish_trial) or
/// [`Outlier::cancel_trial`](super::Outlier::cancel_trial).
#[derive(Debug)]
#[must_use = "a place that is never given back is lost for the whole probation"]
pub struct Trial {
    pub(super) round: u64,
    /// Whether it takes one of the places: see `Outlier::give_place`.
    pub(super) is_placed: bool,
}
