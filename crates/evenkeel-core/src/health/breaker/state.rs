//! What a breaker does with calls.

/// What a breaker does with calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Lets all of them through, and counts.
    Closed,
    /// Refuses all of them until it is time for a trial.
    Open,
    /// Lets a few in as a trial.
    HalfOpen,
    /// Refuses all of them, by hand.
    HeldOpen,
    /// Lets all of them through and counts nothing, by hand.
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
