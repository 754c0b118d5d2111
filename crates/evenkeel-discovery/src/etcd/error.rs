//! What a member of etcd can refuse, and what can become of a watch.

use std::time::Duration;

/// A member refused a call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{member} refused: {message} (gRPC status {code})")]
#[non_exhaustive]
pub struct MemberRefused {
    /// Which member.
    pub member: String,
    /// The gRPC status: 7 without the rights, 14 when it is unavailable or has no leader, 16 when the token
    /// is not known.
    pub code: i32,
    /// What it says.
    pub message: String,
}

impl MemberRefused {
    /// Whether a revision was asked for that the member has no more, or does not have yet.
    pub(super) fn is_out_of_range(&self) -> bool {
        self.code == tonic::Code::OutOfRange as i32
    }

    /// Whether a revision was asked for that the member has no more. Its text tells that from a revision that it
    /// does not have yet.
    pub(super) fn is_compacted(&self) -> bool {
        self.is_out_of_range() && self.message.contains("compacted")
    }
}

/// A member gave no answer within its time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{member} gave no answer within {after:?}")]
#[non_exhaustive]
pub struct NoAnswer {
    /// Which member.
    pub member: String,
    /// How much time it had.
    pub after: Duration,
}

/// A watch ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{member} ended the watch: {reason}")]
#[non_exhaustive]
pub struct WatchEnded {
    /// Which member.
    pub member: String,
    /// What it says, or that it says nothing.
    pub reason: String,
}
