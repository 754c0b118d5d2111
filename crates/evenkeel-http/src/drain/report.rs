//! What became of a drain.

/// What became of a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainReport {
    /// Whether it was taken out of its registry.
    pub deregistered: Deregistered,
    /// Requests that were under way when the door was closed.
    pub in_flight: usize,
    /// Those of them, and of those that had been on the way, that were cut; among the latter the heads of
    /// which half had come. A response is among them while its reader has not taken its end, which
    /// [`serve`](crate::Drain::serve) alone sees; over HTTP/2 such ends count as one a connection.
    pub requests_cut: usize,
    /// Whether the server ended within the bound, and was not interrupted.
    pub is_in_time: bool,
}

impl Default for DrainReport {
    /// That of a server that ended by itself.
    fn default() -> Self {
        let deregistered = Deregistered::NotAsked;
        Self { deregistered, in_flight: 0, requests_cut: 0, is_in_time: true }
    }
}

/// Whether a server was taken out of its registry; of several, what went worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Deregistered {
    /// There was nothing to be done.
    NotAsked,
    /// It was.
    Done,
    /// What was to do it failed.
    Failed,
    /// What was to do it took too long.
    TimedOut,
    /// A second Ctrl-C came before it was.
    Interrupted,
}
