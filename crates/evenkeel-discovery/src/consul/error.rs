//! The errors of an agent of Consul.

use std::{sync::Arc, time::Duration};

/// An agent answered with an error status.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{agent} answered {status}: {message}")]
#[non_exhaustive]
pub struct AgentRefused {
    /// The agent.
    pub agent: String,
    /// The HTTP status: 403 without the rights, 429 when it is overloaded, 500 without a leader.
    pub status: u16,
    /// The agent's message, shortened to 200 bytes.
    pub message: String,
}

/// An agent gave no complete answer in time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{agent} gave no answer within {after:?}")]
#[non_exhaustive]
pub struct AgentTimeout {
    /// The agent.
    pub agent: String,
    /// How much time it had.
    pub after: Duration,
}

/// The token has no right to read the service, so an empty answer says nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the token may not read the service `{service}` or its nodes, so nothing is known of it")]
#[non_exhaustive]
pub struct NotPermitted {
    /// The service.
    pub service: Arc<str>,
}

/// The file with the token cannot be read.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the token in {path} cannot be read")]
#[non_exhaustive]
pub struct TokenUnreadable {
    /// Where the file should be.
    pub path: String,
    #[source]
    pub(crate) source: Arc<std::io::Error>,
}
