//! Trial requests of a node that is on probation.

/// Whether an attempt may go ahead at a node that is on probation.
#[derive(Debug)]
pub enum Admission {
    /// It may: the node is not on probation.
    Free,
    /// It may, as a trial.
    Trial(Trial),
    /// It may not.
    Refused,
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
