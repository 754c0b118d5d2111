//! The behaviour of every discovery and registration, most of it with real servers.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may panic and read the clock, which is often the paused one"
)]

#[cfg(any(feature = "consul", feature = "etcd", feature = "kubernetes"))]
mod bad_days;
mod combine;
mod conformance;
#[cfg(feature = "consul")]
mod consul;
#[cfg(feature = "dns")]
mod dns;
#[cfg(feature = "dns")]
mod dns_servers;
#[cfg(feature = "etcd")]
mod etcd;
#[cfg(all(unix, feature = "json", feature = "yaml", feature = "toml"))]
mod file;
#[cfg(feature = "kubernetes")]
mod kubernetes;
#[cfg(all(feature = "json", feature = "yaml", feature = "toml"))]
mod parse;
#[cfg(any(feature = "consul", feature = "etcd"))]
mod register;
mod subset;
mod support;
mod watch;
