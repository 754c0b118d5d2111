//! The behaviour of the crate, most of it over real sockets.
//!
//! What needs a process of its own is beside this one.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may panic and read the clock, which is often the paused one"
)]

#[cfg(feature = "server")]
mod drain;
mod fleet;
mod hash_by;
mod retry;
mod runtimes;
mod sockets;
#[cfg(feature = "sticky")]
mod sticky;
mod trials;
#[cfg(feature = "server")]
mod wire;
