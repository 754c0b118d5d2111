//! What may be retried over HTTP and gRPC.

mod body;
mod call;
mod peek;
mod rules;

pub use self::{
    body::{ReplayBody, Superseded},
    call::{HttpCall, Idempotent, PreviousAttempts},
    peek::{Peek, PeekedBody},
    rules::{HttpRetry, Seen},
};
