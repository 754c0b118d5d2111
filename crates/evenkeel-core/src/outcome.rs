//! What became of an attempt.

use std::time::Duration;

/// What became of an attempt, as the balancer and the health machines see it.
///
/// An attempt that was cancelled has no outcome of its own: what it says all the same is told at
/// [`cut`](crate::cut).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The endpoint did what was asked.
    Success,
    /// The endpoint failed, or could not be reached.
    Failure,
    /// The endpoint asked for less traffic, for this long if it said so.
    Throttled(Option<Duration>),
    /// Says nothing of the endpoint, for example a request that was itself at fault.
    Ignored,
}

impl Outcome {
    /// Its name in metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Throttled(_) => "throttled",
            Self::Ignored => "ignored",
        }
    }
}
