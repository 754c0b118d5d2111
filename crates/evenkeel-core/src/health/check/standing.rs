//! What a probe finds, and what is known of an endpoint.

/// The result of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProbeResult {
    /// The endpoint is healthy.
    Passed,
    /// There was no answer, or none that is conclusive.
    Failed,
    /// The endpoint itself says that it must not be used.
    Denied,
}

/// What is known of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// No probe of it has ended yet.
    Unknown,
    /// It is healthy.
    Up,
    /// It is not healthy.
    Down,
}
