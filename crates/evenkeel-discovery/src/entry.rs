//! The entry of a service in a registry.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use evenkeel_core::endpoint::Address;

/// The entry of a service in a registry: what its callers need to find it.
///
/// ```
/// use std::time::Duration;
/// use evenkeel::discovery::register::{Check, Entry};
///
/// let entry = Entry::new("web", "10.0.0.1:8080".parse()?)
///     .weight(10)
///     .zone("eu-1a")
///     .tag("v2")
///     .version("2.4.1")
///     .check(Check::http("http://10.0.0.1:8080/health", Duration::from_secs(5)));
/// assert_eq!(entry.id, "web-10.0.0.1-8080");
/// # Ok::<(), evenkeel::core::endpoint::AddressError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// The name under which callers look for it.
    pub service: Arc<str>,
    /// The instance of the service. Default: the service and the address.
    pub id: String,
    /// Where callers reach it.
    pub address: Address,
    /// Its share relative to the others; 0 means that it gets no new requests. Default: 1.
    pub weight: u32,
    /// The zone in which it runs. Default: unknown.
    pub zone: Option<String>,
    /// Its tags. Default: none.
    pub tags: Vec<String>,
    /// Its version. Default: unknown.
    pub version: Option<String>,
    /// Other data for its callers. Default: empty.
    pub metadata: BTreeMap<String, String>,
    /// How the registry checks it, if it can. Default: by heartbeats alone, which are always sent.
    pub checks: Vec<Check>,
    /// Why it gets no new requests for now. Default: none, so it gets them.
    pub maintenance: Option<String>,
}

impl Entry {
    /// An instance of `service` that its callers reach at `address`.
    ///
    /// In Consul, an unspecified IP address (`0.0.0.0`) stands for the address of the agent's node.
    /// etcd has no nodes and refuses it.
    #[must_use]
    pub fn new(service: impl Into<Arc<str>>, address: Address) -> Self {
        let service = service.into();
        let place = address.to_string();
        let place: Vec<_> = place
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '.')
            .filter(|p| !p.is_empty())
            .collect();
        Self {
            id: format!("{service}-{}", place.join("-")),
            service,
            address,
            weight: 1,
            zone: None,
            tags: vec![],
            version: None,
            metadata: BTreeMap::new(),
            checks: vec![],
            maintenance: None,
        }
    }

    /// Sets the instance of the service.
    ///
    /// If two instances use one id, the one that entered last counts, and the other reports that it
    /// is left out.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = id.into();
        self
    }

    /// Sets its share relative to the others; with 0 it gets no new requests.
    #[must_use]
    pub fn weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    /// Sets the zone in which it runs.
    #[must_use]
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// Adds a tag.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// Sets its version.
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// Adds one entry to its metadata.
    #[must_use]
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// Adds a check that the registry makes, if it can: Consul does, etcd does not.
    #[must_use]
    pub fn check(mut self, check: Check) -> Self {
        self.checks.push(check);
        self
    }

    /// Whether any registry could hold it: the service and the id are not empty, and the port is
    /// not 0.
    ///
    /// # Errors
    /// If not. A registry's further conditions are in
    /// [`Registry::validate`](crate::register::Registry::validate).
    pub fn validate(&self) -> Result<(), InvalidEntry> {
        let reason = if self.service.is_empty() {
            "the service has no name"
        } else if self.id.is_empty() {
            "the id is empty"
        } else if self.address.port() == Some(0) {
            "port 0 cannot be connected to: enter the port that was bound"
        } else {
            return Ok(());
        };
        Err(InvalidEntry::new(self, reason))
    }

    /// Its metadata, with zone and version, which most registries store there.
    #[cfg_attr(not(any(feature = "consul", feature = "etcd")), allow(dead_code))]
    pub(crate) fn all_metadata(&self) -> BTreeMap<String, String> {
        let mut all = self.metadata.clone();
        let own = [("zone", &self.zone), ("version", &self.version)];
        for (key, value) in own {
            if let Some(value) = value {
                all.insert(key.to_owned(), value.clone());
            }
        }
        all
    }

    /// Its weight, or 0 in maintenance.
    #[cfg_attr(not(any(feature = "consul", feature = "etcd")), allow(dead_code))]
    pub(crate) fn effective_weight(&self) -> u32 {
        if self.maintenance.is_some() { 0 } else { self.weight }
    }
}

/// A check that the registry makes by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Check {
    /// What to probe.
    pub probe: Probe,
    /// The interval. Consul's minimum is 1 s.
    pub interval: Duration,
    /// How long an answer may take. Default: the interval, and 10 s at most.
    pub timeout: Duration,
    /// Headers of a check over HTTP. Default: none.
    pub headers: BTreeMap<String, String>,
    /// Whether a check over gRPC uses TLS. Default: no; over HTTP the URL decides.
    pub is_tls: bool,
}

/// The probe of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Probe {
    /// A GET of this URL: 2xx passes, 429 warns, anything else is critical.
    Http(String),
    /// A connection to this `host:port`.
    Tcp(String),
    /// `grpc.health.v1.Health/Check` at this `host:port`, or `host:port/service`.
    Grpc(String),
}

impl Check {
    /// A GET of `url` at each `interval`.
    #[must_use]
    pub fn http(url: impl Into<String>, interval: Duration) -> Self {
        Self::new(Probe::Http(url.into()), interval)
    }

    /// A connection to `address` at each `interval`.
    #[must_use]
    pub fn tcp(address: impl Into<String>, interval: Duration) -> Self {
        Self::new(Probe::Tcp(address.into()), interval)
    }

    /// A gRPC health check of `target` at each `interval`.
    #[must_use]
    pub fn grpc(target: impl Into<String>, interval: Duration) -> Self {
        Self::new(Probe::Grpc(target.into()), interval)
    }

    /// Sets how long an answer may take.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Adds a header to a check over HTTP, such as a `Host` that the server requires.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.insert(name.into(), value.into());
        self
    }

    /// Makes a check over gRPC use TLS.
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.is_tls = true;
        self
    }

    fn new(probe: Probe, interval: Duration) -> Self {
        let timeout = interval.min(Duration::from_secs(10));
        Self { probe, interval, timeout, headers: BTreeMap::new(), is_tls: false }
    }
}

/// An entry that could be entered, but then never be called, found or removed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{id}` of the service `{service}` cannot be registered: {reason}")]
#[non_exhaustive]
pub struct InvalidEntry {
    /// The name of the service.
    pub service: String,
    /// The id of the entry.
    pub id: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl InvalidEntry {
    /// `entry` cannot be registered, for this reason.
    #[must_use]
    pub fn new(entry: &Entry, reason: &'static str) -> Self {
        Self { service: entry.service.to_string(), id: entry.id.clone(), reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_made_of_service_and_address() {
        let id = |address: &str| Entry::new("web", address.parse().unwrap()).id;
        assert_eq!(id("10.0.0.1:80"), "web-10.0.0.1-80");
        assert_eq!(id("[2001:db8::1]:80"), "web-2001-db8-1-80");
        assert_eq!(id("a.internal:80"), "web-a.internal-80");
        assert_eq!(id("unix:/run/a.sock"), "web-unix-run-a.sock");
    }

    #[test]
    fn an_entry_that_could_never_be_called_is_refused() {
        let entry = |address: Address| Entry::new("web", address);
        let bound: std::net::SocketAddr = "10.0.0.1:0".parse().unwrap();
        let refused = entry(bound.into()).validate().unwrap_err();
        assert!(refused.to_string().contains("port 0"), "{refused}");
        let name = Address::Name { host: "a".into(), port: 0 };
        assert!(entry(name).validate().is_err());
        assert!(entry("a:1".parse().unwrap()).id("").validate().is_err());
        assert!(Entry::new("", "a:1".parse().unwrap()).validate().is_err());
        assert_eq!(entry("a:1".parse().unwrap()).validate(), Ok(()));
        assert_eq!(entry("unix:/run/a.sock".parse().unwrap()).validate(), Ok(()));
    }

    #[test]
    fn zone_and_version_are_part_of_the_metadata() {
        let entry = Entry::new("web", "a:1".parse().unwrap()).zone("z").version("7");
        let entry = entry.metadata("k", "v");
        let all = entry.all_metadata();
        assert_eq!(
            (all["zone"].as_str(), all["version"].as_str(), all["k"].as_str()),
            ("z", "7", "v")
        );
    }
}
