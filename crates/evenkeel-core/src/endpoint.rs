//! What a discovery names: an address and what is known of it.

use std::{
    collections::BTreeMap,
    fmt,
    net::{Ipv6Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    sync::Arc,
};

use crate::number::digits;

/// Where an endpoint listens. It is also the endpoint's identity.
///
/// ```
/// use evenkeel::core::endpoint::Address;
///
/// assert!(matches!("[::1]:80".parse(), Ok(Address::Socket(_))));
/// assert!(matches!("db.internal:5432".parse(), Ok(Address::Name { .. })));
/// assert!(matches!("unix:/run/app.sock".parse(), Ok(Address::Unix(_))));
/// assert!("db.internal".parse::<Address>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Address {
    /// An IP address and a port.
    Socket(SocketAddr),
    /// A host name and a port, resolved when connecting.
    Name {
        /// The host name, or an IPv6 address with the name of an interface: `fe80::1%eth0`.
        host: Arc<str>,
        /// The port.
        port: u16,
    },
    /// A Unix domain socket.
    Unix(PathBuf),
}

/// A text that is no address, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no address: {reason} (write 10.0.0.1:80, [::1]:80, host:80 or unix:/path)")]
#[non_exhaustive]
pub struct AddressError {
    /// The text as it was given.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl Address {
    /// The address of a Unix domain socket.
    #[must_use]
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self::Unix(path.into())
    }

    /// The port, where there is one.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Socket(address) => Some(address.port()),
            Self::Name { port, .. } => Some(*port),
            Self::Unix(_) => None,
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let error = |reason| AddressError { text: text.to_owned(), reason };
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() {
                Err(error("the path is empty"))
            } else {
                Ok(Self::unix(path))
            };
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return if address.port() == 0 {
                Err(error("port 0 cannot be connected to"))
            } else {
                Ok(Self::Socket(address))
            };
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(|| error("the port is missing"))?;
        let port = digits(port).ok_or_else(|| error("the port is no number from 1 to 65535"))?;
        if port == 0 {
            return Err(error("port 0 cannot be connected to"));
        }
        match zoned_address(host) {
            Some(address) => Ok(Self::Name { host: address.into(), port }),
            None if is_host_name(host) => Ok(Self::Name { host: host.into(), port }),
            None => Err(error("the host is neither an IP address nor a host name")),
        }
    }
}

/// The address in `[fe80::1%eth0]`. The system resolves the name of the interface when connecting.
fn zoned_address(host: &str) -> Option<&str> {
    let inner = host.strip_prefix('[')?.strip_suffix(']')?;
    let (address, zone) = inner.split_once('%')?;
    let is_zone = (1..=15).contains(&zone.len())
        && zone.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    (is_zone && address.parse::<Ipv6Addr>().is_ok()).then_some(inner)
}

/// Letters, digits, `-`, `_` and dots, as names on real networks have them; labels are not empty.
fn is_host_name(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    // A last label of digits would be a mistyped IPv4 address, not a name (RFC 3696, section 2).
    let last_is_number =
        host.rsplit('.').next().is_some_and(|label| label.bytes().all(|b| b.is_ascii_digit()));
    host.len() <= 253 && !last_is_number && host.split('.').all(is_label)
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(f),
            // Only an IPv6 address with a zone has one.
            Self::Name { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Socket(address)
    }
}

/// What a discovery names: an address, its weight, its zone, and what else is known of it.
///
/// ```
/// use evenkeel::core::endpoint::Endpoint;
///
/// let endpoint: Endpoint = "10.0.0.1:80".parse().unwrap();
/// let endpoint = endpoint.weight(10).zone("eu-1a").metadata("version", "7");
/// assert_eq!(endpoint.weight, 10);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Endpoint {
    /// Where it listens, and its identity.
    pub address: Address,
    /// Its share relative to the others; 0 means drained: it finishes what it has. Default 1.
    pub weight: u32,
    /// The zone it runs in. Default unknown.
    pub zone: Option<Arc<str>>,
    /// Its tier: 0 is used first. Default 0.
    pub priority: u32,
    /// What else is known of it. Default empty.
    pub metadata: Arc<BTreeMap<String, String>>,
    /// Other places where it may listen, tried if its address does not answer. Default none.
    pub alternatives: Arc<[SocketAddr]>,
}

impl Endpoint {
    /// An endpoint of weight 1 in tier 0 of which only the address is known.
    #[must_use]
    pub fn new(address: impl Into<Address>) -> Self {
        Self {
            address: address.into(),
            weight: 1,
            zone: None,
            priority: 0,
            metadata: Arc::default(),
            alternatives: Arc::default(),
        }
    }

    /// Sets the weight: its share relative to the others, 0 to drain it.
    #[must_use]
    pub fn weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    /// Sets the zone it runs in.
    #[must_use]
    pub fn zone(mut self, zone: impl Into<Arc<str>>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// Sets its tier: 0 is used first.
    #[must_use]
    pub fn priority(mut self, priority: u32) -> Self {
        self.priority = priority;
        self
    }

    /// Sets other places where it may listen, such as its address of the other family (gRPC A61).
    ///
    /// A leaf that connects tries them after the address, as RFC 8305 says. They are not part of
    /// the identity.
    #[must_use]
    pub fn alternatives(mut self, addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        self.alternatives = addresses.into_iter().collect();
        self
    }

    /// Adds one entry to its metadata.
    #[must_use]
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        Arc::make_mut(&mut self.metadata).insert(key.into(), value.into());
        self
    }
}

impl FromStr for Endpoint {
    type Err = AddressError;

    fn from_str(address: &str) -> Result<Self, AddressError> {
        address.parse().map(|address: Address| Self::new(address))
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self::new(address)
    }
}

impl From<Address> for Endpoint {
    fn from(address: Address) -> Self {
        Self::new(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_survives_being_written_and_read() {
        for text in [
            "10.0.0.1:80",
            "[2001:db8::1]:443",
            "a-b.internal:1",
            "unix:/run/a.sock",
            "[fe80::1%2]:443",
            "[fe80::1%eth0]:443",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn an_invalid_address_is_refused_with_a_reason() {
        for text in
            ["", ":80", "host", "host:0", "10.0.0.1:0", "host:65536", "unix:", "a..b:1", "::1:x"]
        {
            assert!(text.parse::<Address>().is_err(), "{text} was taken");
        }
        for text in ["host:+80", "[fe80::1%]:80", "[fe80::1%a b]:80", "[a%eth0]:80", "[::1]:+80"] {
            assert!(text.parse::<Address>().is_err(), "{text} was taken");
        }
        assert!("10.0.0.256:80".parse::<Address>().is_err(), "a mistyped IPv4 address is no name");
    }
}
