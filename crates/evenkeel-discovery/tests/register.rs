//! Registration over real registries: entered, kept, lost, entered again, left.

#![cfg(any(feature = "consul", feature = "etcd"))]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may panic and read the clock"
)]

#[cfg(feature = "consul")]
#[path = "register/consul.rs"]
mod consul;
#[cfg(feature = "etcd")]
#[path = "register/etcd.rs"]
mod etcd;
#[cfg(feature = "etcd")]
#[path = "etcd/real.rs"]
mod etcd_real;
#[cfg(feature = "consul")]
#[path = "consul/real.rs"]
mod real;
#[path = "support/servers.rs"]
mod servers;
#[path = "support/slow_motion.rs"]
mod slow_motion;
#[path = "support/watching.rs"]
mod watching;
