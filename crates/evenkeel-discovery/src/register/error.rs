//! The errors of a registration.

use std::time::Duration;

use super::Entry;

/// An entry that could be entered, but then never be called, found or removed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{id}` of the service `{service}` cannot be registered: {reason}")]
#[non_exhaustive]
pub struct InvalidEntry {
    /// The name of the service.
    pub service: String,
    /// The id of the entry.
    pub id: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl InvalidEntry {
    /// `entry` cannot be registered, for this reason.
    #[must_use]
    pub fn new(entry: &Entry, reason: &'static str) -> Self {
        Self { service: entry.service.to_string(), id: entry.id.clone(), reason }
    }
}

/// Another instance entered later under the same id; its entry counts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("another instance has entered as `{id}` after this one")]
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
