//! Endpoints from DNS: the addresses of a host, or the SRV records of a service.
//!
//! | | asks for | gives |
//! |---|---|---|
//! | [`Dns::new`]`("db.internal:5432")` | A and AAAA | an endpoint for each address, with this port |
//! | [`Dns::srv`]`("_grpc._tcp.shop.internal")` | SRV, then A and AAAA of the targets | ports, weights and tiers too |
//!
//! **When it asks.** As often as the answer's TTL says, kept within [`ttl_bounds`](Dns::ttl_bounds)
//! (1 s to 30 s): at 0.7 to 0.8 of it, so that fresh news is there before the old expires. It also
//! asks when a balancer reports that an endpoint cannot be reached: at once up to 3 times after a
//! calm, then once a second. A handle and all its clones ask once, however many balancers watch.
//!
//! **What it believes.** SERVFAIL, a timeout or an unreachable server change nothing: the last
//! addresses stay in use for [`max_stale`](Dns::max_stale) (5 min), and then the set becomes empty.
//! If a server answers that a name does not exist or has no address, that is believed when a second
//! answer confirms it, at least one negative TTL later (within the same bounds). If one address
//! family fails and the other answers, the answer is used together with the last known addresses of
//! the other family.
//!
//! **Addresses.** Each is an endpoint of its own, as in gRPC (A61), IPv6 and IPv4 in turns as RFC
//! 8305 orders them. Where a name has both families, each endpoint has an
//! [alternative](evenkeel_core::endpoint::Endpoint::alternatives) of the other one, which is tried
//! when its own address does not answer. So a server that listens on one family only is reached at
//! every turn. The order of the answer does not matter.
//!
//! **SRV** (RFC 2782). The priority is the endpoint's tier and the weight its weight. Weight 0
//! means "a very small share" there and "drained" here, so it becomes 1, the share that the RFC's
//! own algorithm gives it. A target with several addresses shares its weight among them; then all
//! weights are 64 times as large. A record with port 0 is skipped. The target `.` says that the
//! service is not offered. Targets are asked for by their own TTL: new ones at once, known ones at
//! most 16 a second, the longest unasked first.
//!
//! **Servers.** Those of the system, with its hosts file and search domains, unless the name says
//! `dns://10.0.0.53:53/db.internal:5432`. A name without a final dot is tried in the search
//! domains, as the system's configuration says (`search` and `ndots`). A name with a final dot,
//! such as `db.internal.:5432`, is asked for as it is, which saves pods in Kubernetes some queries.
//! Of the resulting full names, the first with records counts, for both families; records of the
//! others are not added. If a server answers that it cannot say (SERVFAIL, REFUSED), that full name
//! is passed over, but then only the full name that counted before can count, or any if none did. A
//! name in the hosts file is not asked for.
//!
//! A server that answers FORMERR or NOTIMP, or nothing, is asked once more without EDNS (RFC 6891,
//! section 7). Of several servers, the others are asked when one cannot say. Answers that are too
//! large for UDP are fetched over TCP, so the set is bounded by what fits in 64 KiB, about 4,000
//! addresses.
//!
//! ```
//! use std::time::Duration;
//! use evenkeel::discovery::Dns;
//!
//! let hosts = Dns::new("db.internal:5432")?;
//! let services = Dns::srv("_grpc._tcp.shop.internal")?
//!     .nameserver("10.0.0.53:53".parse()?)
//!     .ttl_bounds(Duration::from_secs(2), Duration::from_secs(10));
//! # let _ = (hosts, services);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! It does not check DNSSEC, speak DNS over TLS, or answer for `unix:` and numeric addresses.

mod answer;
#[cfg(all(feature = "fuzzing", feature = "consul"))]
pub(crate) mod fuzzing;
mod hickory;
mod memory;
mod resolver;
mod search;
mod source;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use evenkeel_core::endpoint::Address;

use self::{
    hickory::Hickory,
    source::{DnsSource, Question},
};
use crate::{settings::follows, watch::Reconnect};

pub use self::source::{NoSuchName, NotConfirmed};

/// Follows the addresses of a host or the SRV records of a service.
///
/// See the [module docs](self). A clone shares the queries of its original.
#[derive(Clone, Debug)]
pub struct Dns {
    reconnect: Reconnect<DnsSource<Hickory>>,
}

/// A text that is not the name of a host and a port, or of a service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` cannot be looked up: {reason}")]
#[non_exhaustive]
pub struct DnsNameError {
    /// The text as given.
    pub text: String,
    /// What is wrong with it, and what to write.
    pub reason: &'static str,
}

impl Dns {
    /// The addresses of a host: `host:port`, `dns:///host:port` or `dns://server:53/host:port`.
    ///
    /// # Errors
    /// If it is none of these, or if the host is an IP address.
    pub fn new(name: impl AsRef<str>) -> Result<Self, DnsNameError> {
        let text = name.as_ref();
        let error = |reason| DnsNameError { text: text.to_owned(), reason };
        let (server, name) = split_server(text).map_err(error)?;
        let question = match name.parse() {
            Ok(Address::Name { host, port }) if !host.contains('%') => {
                Question::Host { host, port }
            }
            Ok(Address::Socket(_) | Address::Name { .. }) => {
                return Err(error("it is an address already; use a fixed list"));
            }
            _ => return Err(error("write host:port, dns:///host:port or dns://server/host:port")),
        };
        Ok(Self::ask(question, server))
    }

    /// The SRV records of a service: `_service._proto.name`, also after `dns:///` or
    /// `dns://server:53/`.
    ///
    /// # Errors
    /// If it is no domain name.
    pub fn srv(name: impl AsRef<str>) -> Result<Self, DnsNameError> {
        let text = name.as_ref();
        let error = |reason| DnsNameError { text: text.to_owned(), reason };
        let (server, name) = split_server(text).map_err(error)?;
        if name.is_empty() || name.contains(':') || !hickory::is_name(name) {
            return Err(error("write _service._proto.name, without a port"));
        }
        Ok(Self::ask(Question::Service { name: Arc::from(name) }, server))
    }

    fn ask(question: Question, server: Option<SocketAddr>) -> Self {
        let resolver = Hickory::new(server.into_iter().collect());
        let source = DnsSource::new(question, resolver);
        Self { reconnect: Reconnect::new(source).max_stale(MAX_STALE) }
    }

    /// Asks this server instead of those of the system. Can be called again to add more servers.
    ///
    /// The system's hosts file and search domains are then ignored.
    #[must_use]
    pub fn nameserver(self, server: SocketAddr) -> Self {
        self.with(|source| source.resolver.servers.push(server))
    }

    /// Sets the bounds within which a time to live is believed. Default: 1 s to 30 s.
    ///
    /// With a small `min`, a TTL of 0 burdens the server. With a large `max`, dead addresses stay
    /// in use for as long as the zone's TTL says.
    ///
    /// # Panics
    /// If `min` is zero or above `max`.
    #[must_use]
    pub fn ttl_bounds(self, min: Duration, max: Duration) -> Self {
        assert!(Duration::ZERO < min, "a time to live of zero spins");
        assert!(min <= max, "the least time to live lies above the greatest");
        self.with(|source| source.ttl_bounds = (min, max))
    }

    /// Sets how long the last addresses are used while no server answers. Default: 5 min.
    ///
    /// A short one turns an outage of DNS into an outage of the service; with a long one, an
    /// address may belong to another service by then.
    #[must_use]
    pub fn max_stale(self, age: Duration) -> Self {
        self.with(|source| source.max_stale = age).set(|settings| settings.max_stale = Some(age))
    }

    /// Sets how long one question may take, all tries together. Default: 10 s.
    ///
    /// Each try at a server may take a quarter of it. A short one gives up on slow servers; a long
    /// one is slow to notice a dead one.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        self.with(|source| source.resolver.timeout = timeout)
    }
}

follows!(Dns by DnsSource<Hickory>, with backoff seed);

const MAX_STALE: Duration = Duration::from_secs(300);

/// The server that a `dns:` name specifies, and the rest of the name.
fn split_server(text: &str) -> Result<(Option<SocketAddr>, &str), &'static str> {
    let Some(rest) = text.strip_prefix("dns:") else {
        return Ok((None, text));
    };
    let Some(rest) = rest.strip_prefix("//") else {
        return Ok((None, rest));
    };
    let (server, name) = rest.split_once('/').ok_or("a `/` is missing after the server")?;
    if server.is_empty() {
        return Ok((None, name));
    }
    let with_port = || server.parse().ok().map(|ip| SocketAddr::new(ip, 53));
    let server = server.parse().ok().or_else(with_port);
    Ok((Some(server.ok_or("the server is no IP address, with or without a port")?), name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_with_and_without_a_server() {
        let server =
            |text| split_server(text).map(|(server, name)| (server.map(|s| s.to_string()), name));

        assert_eq!(server("db:1"), Ok((None, "db:1")));
        assert_eq!(server("dns:db:1"), Ok((None, "db:1")));
        assert_eq!(server("dns:///db:1"), Ok((None, "db:1")));
        assert_eq!(server("dns://10.0.0.1/db:1"), Ok((Some("10.0.0.1:53".into()), "db:1")));
        assert_eq!(server("dns://[::1]:54/db:1"), Ok((Some("[::1]:54".into()), "db:1")));
        assert!(server("dns://ns.internal/db:1").is_err());
        assert!(server("dns://10.0.0.1").is_err());
    }

    #[test]
    fn a_name_that_cannot_be_looked_up_is_refused_at_once() {
        for name in
            ["db", "10.0.0.1:80", "[::1]:80", "unix:/a", "", "dns://x/db:1", ":80", "a..b:1"]
        {
            assert!(Dns::new(name).is_err(), "{name} was taken");
        }
        for name in ["", "_grpc._tcp.shop:80", "a..b"] {
            assert!(Dns::srv(name).is_err(), "{name} was taken");
        }
        assert!(Dns::srv("_grpc._tcp.shop.internal.").is_ok());
        assert!(Dns::new("db.internal.:5432").is_ok());
    }
}
