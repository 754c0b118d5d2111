//! The reasons for a node to be closed.

/// One reason for a node to be closed. A node is open while none of them holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Gate {
    /// It is known, but not yet part of the set that requests see.
    Joining,
    /// Its weight is zero: it finishes what it has and gets nothing new.
    Draining,
    /// Discovery no longer names it. It never opens again.
    Retired,
    /// Its service failed for good and is being rebuilt.
    Broken,
    /// Outlier detection took it out.
    Ejected,
    /// Its circuit breaker is open.
    Breaker,
    /// It fails its active health check.
    Unhealthy,
    /// It has as many requests as its limit allows.
    Limit,
    /// Its rate limit is used up.
    RateLimit,
    /// No health check of it has passed yet, and it gets no request before one has.
    Unchecked,
}

impl Gate {
    /// All gates, in the order of their bits.
    pub const ALL: [Self; 10] = [
        Self::Joining,
        Self::Draining,
        Self::Retired,
        Self::Broken,
        Self::Ejected,
        Self::Breaker,
        Self::Unhealthy,
        Self::Limit,
        Self::RateLimit,
        Self::Unchecked,
    ];

    pub(crate) const fn bit(self) -> u32 {
        1 << self as u8
    }

    /// Whether it is a judgement of the node's health, which may be wrong, and not a fact.
    #[must_use]
    pub const fn is_of_health(self) -> bool {
        matches!(self, Self::Ejected | Self::Breaker | Self::Unhealthy)
    }

    /// Its name in metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Draining => "draining",
            Self::Retired => "retired",
            Self::Broken => "broken",
            Self::Ejected => "ejected",
            Self::Breaker => "breaker",
            Self::Unhealthy => "unhealthy",
            Self::Limit => "limit",
            Self::RateLimit => "rate_limit",
            Self::Unchecked => "unchecked",
        }
    }

    pub(crate) const fn guard_bit(self) -> u32 {
        self.bit() << Self::ALL.len()
    }
}

/// How far a gate is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// To all attempts.
    Open,
    /// To attempts that an observer lets in as a trial.
    Guarded,
    /// To no attempt.
    Closed,
}
