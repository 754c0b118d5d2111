//! The outcome of an attempt.

use std::time::Duration;

/// The outcome of an attempt, as the balancer and the health machines see it.
///
/// A cancelled attempt has no outcome. What it says of the endpoint is explained at
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
    /// It says nothing of the endpoint, for example because the request itself was at fault.
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
