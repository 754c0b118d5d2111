//! The errors of a registration.

use std::time::Duration;

/// Another instance entered later under the same id; its entry counts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("another instance registered as `{id}` after this one")]
#[non_exhaustive]
pub struct Taken {
    /// The id of both.
    pub id: String,
}

/// The registry has lost the entry, which is being entered again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the registry has lost the entry `{id}`")]
#[non_exhaustive]
pub struct EntryLost {
    /// The id of the entry.
    pub id: String,
}

/// The registry took too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the registry did not answer within {after:?}")]
#[non_exhaustive]
pub struct NotInTime {
    /// How much time it had.
    pub after: Duration,
}
