//! The result of a drain.

/// The result of a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainReport {
    /// Whether the server was removed from its registry.
    pub deregistered: Deregistered,
    /// Requests that were in flight when the server closed.
    pub in_flight: usize,
    /// Requests that were cut, of those in flight and those on the way. Incomplete heads count. So does a
    /// response with an end that its reader has not taken; only [`serve`](crate::Drain::serve) sees these,
    /// and over HTTP/2 they count as one for each connection.
    pub requests_cut: usize,
    /// Whether the server ended within the bound, and was not interrupted.
    pub is_in_time: bool,
}

impl Default for DrainReport {
    /// The report of a server that ended by itself.
    fn default() -> Self {
        let deregistered = Deregistered::NotAsked;
        Self { deregistered, in_flight: 0, requests_cut: 0, is_in_time: true }
    }
}

/// Whether a server was removed from its registry. Of several results, the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Deregistered {
    /// There was nothing to do.
    NotAsked,
    /// It was removed.
    Done,
    /// Removing it failed.
    Failed,
    /// Removing it took too long.
    TimedOut,
    /// A second Ctrl-C came before it was removed.
    Interrupted,
}
