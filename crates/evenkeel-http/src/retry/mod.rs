//! What may be retried over HTTP and gRPC.

mod body;
mod call;
mod judge;
mod peek;
mod rules;

pub(crate) use self::body::Replayed;
pub use self::{
    body::{ReplayBody, Superseded},
    call::{HttpCall, Idempotent, PreviousAttempts},
    peek::{Peek, PeekedBody},
    rules::{HttpRetry, Seen},
};
