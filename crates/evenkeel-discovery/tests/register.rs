//! Registration over real registries: entered, kept, lost, entered again, left.

#![cfg(feature = "consul")]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may panic and read the clock"
)]

#[path = "consul/real.rs"]
mod real;
#[path = "support/servers.rs"]
mod servers;
#[path = "support/watching.rs"]
mod watching;

#[path = "register/consul.rs"]
mod consul;
