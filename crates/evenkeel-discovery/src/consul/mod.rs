//! Endpoints from Consul: the healthy instances of a service, by blocking queries.
//!
//! **When to use it.** Where services enter themselves, or are entered, in Consul. A change that an
//! agent announces is reported within milliseconds: the agent holds a query back until there is
//! one.
//!
//! **When not.** Where only Consul's DNS can be reached: use [`Dns`](crate::Dns).
//!
//! ```
//! use evenkeel::discovery::consul::{Agents, Consul};
//!
//! let web = Consul::new(Agents::local(), "web");
//! # let _ = web;
//! ```
//!
//! With options:
//!
//! ```
//! use std::time::Duration;
//! use evenkeel::discovery::consul::{Agents, AddressOf, Consul};
//!
//! let agents = Agents::at(["http://10.0.0.1:8500", "http://10.0.0.2:8500"])?
//!     .token_file("/run/secrets/consul");
//! let web = Consul::new(agents, "web")
//!     .tag("v2")
//!     .filter("Service.Meta.canary != \"true\"")
//!     .datacenter("dc2")
//!     .address(AddressOf::Tagged("lan_ipv6".into()))
//!     .passing_only()
//!     .wait(Duration::from_secs(60));
//! # let _ = web;
//! # Ok::<(), evenkeel::discovery::ServerError>(())
//! ```
//!
//! **Health and weight.** The worst of an instance's checks counts, including those of its node.
//! Passing gives `Weights.Passing`. Warning gives `Weights.Warning`, or leaves the instance out
//! with [`passing_only`](Consul::passing_only). Critical leaves it out. An instance in maintenance
//! stays with weight 0: it gets no new requests and finishes what it has. Weights are kept within 0
//! to 65,535.
//!
//! **Address.** The service's own, else its node's; or another by [`AddressOf`]. It may be IPv6, a
//! host name or a Unix socket. An entry without a usable address or port is left out and does not
//! affect the others. Of several entries with one address, the one with the greatest weight counts.
//!
//! **Metadata.** The service's `Meta`, and `consul.id`, `consul.node`, `consul.datacenter` and
//! `tags` (sorted, separated by commas). The zone is `Meta.zone` of the service, else of the node
//! ([`zone_key`](Consul::zone_key)).
//!
//! **What it believes.** The first answer is believed as it is. Later, an answer without any
//! endpoint, and one that misses some after the index went backwards or a node got another ID, are
//! believed when they still hold after [`hold`](Consul::hold) (5 s). Agents that restarted without
//! data and servers that restored a snapshot give such answers until services have entered
//! themselves again. New endpoints are always used at once. An answer that is empty because the
//! token may not see the service is a failure ([`NotPermitted`]), and changes nothing.
//!
//! **On a bad day.** Answers that are refused, hanging, garbled, truncated, redirected or too large
//! (64 MiB), and those with an error status, change nothing. The last set stays, the watchers get
//! the failure as an error, and it is logged once. Then the next agent is asked, or the same one
//! after 0.5 s to 10 s. An agent that hangs is noticed within 5 s and [`timeout`](Agents::timeout):
//! while it holds a query back, it has to give a sign of life every 5 s. A refused connection is
//! not a sign of life. A connection with a vanished peer is noticed within 8 s, by TCP's
//! keep-alive.
//!
//! **What it costs.** One connection to one agent for each service, whatever the number of
//! balancers, and another for a moment every 5 s. An agent accepts 200 connections from one address
//! unless configured otherwise. Each query returns the whole list, once per [`wait`](Consul::wait)
//! while nothing changes; an identical list is not parsed again. After five in a row, queries
//! follow each other at 10 a second while they bring news, and slow down to one a second while they
//! do not. When a balancer reports that an endpoint cannot be reached, the list is asked for at
//! once, and then again after 5 s to 60 s, because a held query reports its end by itself.
//!
//! **Other frameworks.** An entry of go-kit is an ordinary service. go-micro v2 writes metadata and
//! version into tags, which [`go_micro`](Consul::go_micro) reads.
//!
//! It does not read prepared queries, sidecar proxies or the key-value store. With an agent older
//! than 1.11, it does not notice that part of a list was withheld for lack of rights.

pub(crate) mod agent;
mod agents;
mod answer;
mod environment;
mod error;
#[cfg(all(feature = "fuzzing", feature = "dns"))]
pub(crate) mod fuzzing;
mod index;
mod line;
pub(crate) mod micro;
pub(crate) mod query;
mod source;

use std::{sync::Arc, time::Duration};

use self::source::ConsulSource;
use crate::{settings::follows, watch::Reconnect};

pub use self::{
    agents::Agents,
    answer::AddressOf,
    environment::EnvironmentError,
    error::{AgentRefused, AgentTimeout, NotPermitted, TokenUnreadable},
    query::Consistency,
};

/// Follows the instances of a service in Consul.
///
/// See the [module docs](self). A clone shares the session of its original.
#[derive(Clone, Debug)]
pub struct Consul {
    reconnect: Reconnect<ConsulSource>,
}

impl Consul {
    /// The instances of `service`. The name is sent as it is.
    #[must_use]
    pub fn new(agents: Agents, service: impl Into<Arc<str>>) -> Self {
        Self { reconnect: Reconnect::new(ConsulSource::new(service.into(), agents)) }
    }

    /// Takes only instances with this tag. Can be called again to require more tags.
    #[must_use]
    pub fn tag(self, tag: impl Into<Arc<str>>) -> Self {
        self.with(|source| source.query.tags.push(tag.into()))
    }

    /// Takes only instances that match this expression of Consul's filter language. Default: all.
    #[must_use]
    pub fn filter(self, expression: impl Into<Arc<str>>) -> Self {
        self.with(|source| source.query.filter = Some(expression.into()))
    }

    /// Sets the data centre. Default: that of the agent.
    #[must_use]
    pub fn datacenter(self, name: impl Into<Arc<str>>) -> Self {
        self.with(|source| source.query.datacenter = Some(name.into()))
    }

    /// Sorts instances by round trip time from a node, nearest first.
    ///
    /// `_agent` is the agent's own node. Default: in the order of their addresses. The order changes
    /// with the measurements, and each change is news. It is useful for `pick_first`.
    #[must_use]
    pub fn near(self, node: impl Into<Arc<str>>) -> Self {
        self.with(|source| {
            source.query.near = Some(node.into());
            source.reading.is_ordered = true;
        })
    }

    /// Takes the instances of the peered cluster with this name (Consul 1.13). Default: its own.
    #[must_use]
    pub fn peer(self, name: impl Into<Arc<str>>) -> Self {
        self.with(|source| source.query.peer = Some(name.into()))
    }

    /// Sets which server may answer. Default: [`Consistency::Leader`].
    #[must_use]
    pub fn consistency(self, consistency: Consistency) -> Self {
        self.with(|source| source.query.consistency = consistency)
    }

    /// Reads entries of go-micro v2, which encodes metadata and version in tags. Default: off.
    ///
    /// The metadata entry `protocol` says what a node speaks: `grpc`, or go-micro's own; select
    /// with [`filter`](crate::DiscoveryExt::filter). Zone and version come from the tags.
    #[must_use]
    pub fn go_micro(self) -> Self {
        self.with(|source| source.reading.is_micro = true)
    }

    /// Leaves out instances with a warning check. Default: used with their warning weight.
    #[must_use]
    pub fn passing_only(self) -> Self {
        self.with(|source| source.reading.warnings = false)
    }

    /// Sets which address of an instance is used. Default: [`AddressOf::Service`].
    #[must_use]
    pub fn address(self, address: AddressOf) -> Self {
        self.with(|source| source.reading.address = address)
    }

    /// Sets the key in `Meta` that holds the zone. Default: `zone`.
    #[must_use]
    pub fn zone_key(self, key: impl Into<String>) -> Self {
        self.with(|source| source.reading.zone_key = key.into())
    }

    /// Sets how long an agent may hold a query back. Default: 50 s; Consul's maximum is 10 min.
    ///
    /// Each time the agent sends the whole list, so a short one costs both sides more with more
    /// endpoints. A long one is cut by proxies that end requests without an answer, many of them
    /// after 60 s.
    ///
    /// # Panics
    /// If it is below 10 ms or above 10 min.
    #[must_use]
    pub fn wait(self, wait: Duration) -> Self {
        let bounds = Duration::from_millis(10)..=Duration::from_secs(600);
        assert!(bounds.contains(&wait), "a wait of {wait:?}");
        self.with(|source| source.wait = wait)
    }
}

follows!(Consul by ConsulSource, with backoff hold max_stale seed);
