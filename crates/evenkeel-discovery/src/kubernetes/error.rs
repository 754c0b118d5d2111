//! What an API server can refuse, and what is wrong with its answers.

use std::{sync::Arc, time::Duration};

/// The API server refused a list or a watch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the API server answered {status} {reason}: {message}")]
#[non_exhaustive]
pub struct ServerRefused {
    /// The HTTP status: 401 if it does not know the token, 403 without the rights, 429 when it is overloaded.
    pub status: u16,
    /// What it calls that, such as `Forbidden`.
    pub reason: String,
    /// What it says, shortened to 300 bytes.
    pub message: String,
    /// When it wants to be asked again, where it says so.
    pub retry_after: Option<Duration>,
}

/// The API server gave no whole answer within its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the API server gave no answer within {after:?}")]
#[non_exhaustive]
pub struct NoAnswer {
    /// How much time it had.
    pub after: Duration,
}

/// The service has endpoints, but none with the port that is wanted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no endpoint of {service} has {wanted}; there are {there}")]
#[non_exhaustive]
pub struct NoSuchPort {
    /// The service.
    pub service: Arc<str>,
    /// The port as it was asked for.
    pub wanted: String,
    /// The ports that there are, by name and number.
    pub there: String,
}

/// How to reach the API server, and who asks, cannot be found out.
#[derive(Debug, thiserror::Error)]
#[error("there is no way to the API server")]
#[non_exhaustive]
pub struct NoAccess {
    #[source]
    pub(super) source: evenkeel_core::BoxError,
}
