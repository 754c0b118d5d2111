//! Sources of endpoints: lists, streams, files, DNS, Consul, etcd, Kubernetes; and registration
//! there.
//!
//! A [`Discovery`](evenkeel_core::discover::Discovery) is a cheap handle. Each of its watches
//! yields the current set first and then what changes. A balancer does the watching.
//!
//! ```
//! use evenkeel::core::{discover::{Discovery, Update}, endpoint::Endpoint};
//! use evenkeel::discovery::{DiscoveryExt, Fixed, channel};
//! use futures_util::StreamExt;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! let (sender, announced) = channel();
//! let discovery = announced.fallback(Fixed::parse(["10.9.0.1:80"])?);
//! let mut watch = discovery.watch();
//!
//! let a: Endpoint = "10.0.0.1:80".parse()?;
//! sender.set([a.clone()]);
//! assert_eq!(watch.next().await.unwrap().unwrap(), Update::Set(vec![a.clone()]));
//!
//! sender.remove(&a.address);
//! assert_eq!(watch.next().await.unwrap().unwrap(), Update::Set(vec!["10.9.0.1:80".parse()?]));
//! # Ok::<(), evenkeel::core::endpoint::AddressError>(())
//! # }).unwrap();
//! ```
//!
//! # Which one
//! | discovery | endpoints come from | use it when | feature |
//! |---|---|---|---|
//! | `Vec<Endpoint>`, [`Fixed`] | the program | they never change | |
//! | [`channel()`] | the program, while it runs | a control plane of your own pushes them; in tests | |
//! | [`Changes`] | a stream of tower's `Change` | a discovery for tower's balancer exists already | |
//! | [`Poll`] | an async function, at an interval | a registry can be asked, but does not push | |
//! | [`watch::Reconnect`] | sessions of a [`watch::Source`] | a registry pushes, and its connection can break | |
//! | `File` | a JSON, YAML or TOML file | configuration management or a ConfigMap writes it | `json`, `yaml`, `toml` (default) |
//! | `Dns` | A, AAAA and SRV records | the platform has nothing better, as with headless services | `dns` |
//! | `Consul` | the healthy instances of a service in Consul | services are in Consul | `consul` |
//! | `Etcd` | keys of etcd, in any of six layouts | services are in etcd | `etcd` |
//! | `Kubernetes` | the endpoint slices of a service | services run in Kubernetes | `kubernetes` |
//!
//! Any of them can be made from an address such as `consul:///web?tag=v2`: see
//! [`targets::discover`].
//!
//! Discoveries can be combined with [`DiscoveryExt`]:
//!
//! | combinator | gives |
//! |---|---|
//! | [`merge`](combine::merge) | the endpoints of both; the first counts where both name an address |
//! | [`fallback`](combine::fallback) | those of the second while the first has none |
//! | [`filter`, `map`](combine::filter_map) | some of them; each changed |
//! | [`subset`](combine::subset) | as many as one client of thousands needs |
//!
//! # What all of them promise
//! - **The last good set stays** when a source fails or ends. Watchers get the failure as an error
//!   item, after which the watch goes on. A failure is logged when it begins and when it ends.
//! - **What has not changed is not announced again.**
//! - **One source is read once**, however many watchers and clones share its handle. Reading starts
//!   when a watch is first polled, so no runtime is needed to set one up, and ends with the last
//!   watch.
//! - **Memory is bounded** by the set itself: a watcher that falls 1,024 changes behind gets the
//!   whole set instead.
//! - **A request for fresh news** (`refresh`), which a balancer makes when it cannot reach an
//!   endpoint, is granted at once up to 3 times after a calm, and then once a second.
//!
//! # The other side
//! With [`register`], a service enters itself in Consul or etcd, keeps its entry alive and leaves
//! in the right order.
//!
//! # What this crate does not do
//! It does not balance, connect, or check whether endpoints are healthy: the layers do. It does not
//! resolve the host names of endpoints: that is done when connecting, where both address families
//! can be raced. It installs no logger; it reports through `tracing`.

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "consul")]
pub mod consul;
#[cfg(feature = "dns")]
pub mod dns;
#[cfg(feature = "etcd")]
pub mod etcd;
#[cfg(any(feature = "json", feature = "yaml", feature = "toml"))]
pub mod file;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;

pub mod changes;
pub mod channel;
pub mod combine;
pub mod error;
pub mod fixed;
#[cfg(all(feature = "fuzzing", feature = "consul", feature = "dns"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod poll;
pub mod register;
pub mod targets;
pub mod watch;

/// TLS to registries: names of evenkeel-net.
#[cfg(feature = "tls")]
pub mod tls {
    pub use evenkeel_net::{Identity, Tls, TlsError};
}

#[cfg(any(feature = "consul", feature = "kubernetes"))]
mod checks;
#[cfg(any(feature = "consul", feature = "etcd", feature = "kubernetes"))]
mod client;
mod clock;
mod entry;
#[cfg(any(feature = "consul", feature = "etcd"))]
mod go;
mod journal;
#[cfg(any(feature = "consul", feature = "kubernetes"))]
mod pace;
mod refresh;
mod running;
mod session;
mod set;
mod settings;
mod trust;

#[cfg(any(feature = "consul", feature = "etcd", feature = "kubernetes"))]
pub use client::{Server, ServerError};
#[cfg(feature = "consul")]
pub use consul::Consul;
#[cfg(feature = "dns")]
pub use dns::Dns;
#[cfg(feature = "etcd")]
pub use etcd::Etcd;
#[cfg(any(feature = "json", feature = "yaml", feature = "toml"))]
pub use file::File;
#[cfg(feature = "kubernetes")]
pub use kubernetes::Kubernetes;

pub use changes::Changes;
pub use channel::{ChannelDiscovery, Sender, channel};
pub use combine::DiscoveryExt;
pub use fixed::Fixed;
pub use poll::Poll;
