//! The errors of a member of etcd and of a watch.

use std::time::Duration;

/// A member refused a call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{member} refused: {message} (gRPC status {code})")]
#[non_exhaustive]
pub struct MemberRefused {
    /// The member.
    pub member: String,
    /// The gRPC status: 7 without the rights, 14 when unavailable or without a leader, 16 for an
    /// unknown token.
    pub code: i32,
    /// The member's message.
    pub message: String,
}

impl MemberRefused {
    /// Whether the revision that was asked for is compacted or in the member's future.
    pub(super) fn is_out_of_range(&self) -> bool {
        self.code == tonic::Code::OutOfRange as i32
    }

    /// Whether the revision that was asked for is compacted. The message distinguishes it from one
    /// in the member's future.
    pub(super) fn is_compacted(&self) -> bool {
        self.is_out_of_range() && self.message.contains("compacted")
    }
}

/// A member gave no answer in time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{member} gave no answer within {after:?}")]
#[non_exhaustive]
pub struct MemberTimeout {
    /// The member.
    pub member: String,
    /// How much time it had.
    pub after: Duration,
}

/// A watch ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{member} ended the watch: {reason}")]
#[non_exhaustive]
pub struct WatchEnded {
    /// The member.
    pub member: String,
    /// The reason that it gives, or that it gives none.
    pub reason: String,
}
