//! The errors of an API server and of its answers.

use std::{sync::Arc, time::Duration};

/// The API server refused a list or a watch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the API server answered {status} {reason}: {message}")]
#[non_exhaustive]
pub struct ServerRefused {
    /// The HTTP status: 401 if the token is unknown, 403 without the rights, 429 when overloaded.
    pub status: u16,
    /// The server's name for the error, such as `Forbidden`.
    pub reason: String,
    /// The server's message, shortened to 300 bytes.
    pub message: String,
    /// After which time the server wants to be asked again, if it says so.
    pub retry_after: Option<Duration>,
}

/// The API server gave no complete answer in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the API server gave no answer within {after:?}")]
#[non_exhaustive]
pub struct ServerTimeout {
    /// How much time it had.
    pub after: Duration,
}

/// The service has endpoints, but none with the wanted port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no endpoint of {service} has {wanted}; there are {there}")]
#[non_exhaustive]
pub struct NoSuchPort {
    /// The service.
    pub service: Arc<str>,
    /// The port that was asked for.
    pub wanted: String,
    /// The ports of the service, by name and number.
    pub there: String,
}

/// The address of the API server, or the credentials for it, cannot be determined.
#[derive(Debug, thiserror::Error)]
#[error("no usable address or credentials for the API server")]
#[non_exhaustive]
pub struct NoAccess {
    #[source]
    pub(super) source: evenkeel_core::BoxError,
}
