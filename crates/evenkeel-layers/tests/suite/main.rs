//! The behaviour of the layers, one module a layer.
//!
//! What needs an allocator, recorder or subscriber of its own is in a binary of its own beside this one.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may panic and read the clock, which is often the paused one"
)]

mod admission;
mod alone;
mod balance;
mod black_hole;
mod breaker;
mod comeback;
mod concurrency;
mod deadline;
mod extremes;
mod fail_fast;
mod hedge;
mod mirror;
mod rate_limit;
mod retry;
