//! The behaviour of the crate, from outside. What only holds under loom is in `tests/loom`.

#![cfg(not(loom))]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may panic and read the clock, which is often the paused one"
)]

mod budget;
mod failing;
mod hashing;
mod laws;
mod limit;
mod limit_model;
mod subset;
