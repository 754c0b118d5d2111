//! What may be retried over HTTP and gRPC.

mod body;
mod peek;
mod rules;

pub use self::{
    body::{ReplayBody, Superseded},
    peek::{Peek, PeekedBody},
    rules::{HttpCall, HttpRetry, Idempotent, PreviousAttempts, Seen},
};
