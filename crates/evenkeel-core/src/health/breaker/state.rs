//! The state of a breaker.

/// What a breaker does with calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Lets all calls through, and counts them.
    Closed,
    /// Refuses all calls until it is time for a trial.
    Open,
    /// Lets a few calls in as a trial.
    HalfOpen,
    /// Refuses all calls: held open by hand.
    HeldOpen,
    /// Lets all calls through and counts nothing: held closed by hand.
    HeldClosed,
}

impl State {
    /// Its name in metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::HeldOpen => "held_open",
            Self::HeldClosed => "held_closed",
        }
    }
}
