//! Where a registry's server listens.

use std::{fmt, net::IpAddr, path::PathBuf, str::FromStr};

use evenkeel_core::{
    endpoint::{Address, Endpoint},
    number::digits,
};
use http::{Uri, uri::Authority};

/// Where a registry's server listens: `http://host:port`, `https://host:port` or `unix:///path`.
///
/// ```
/// use evenkeel::discovery::Server;
///
/// let server: Server = "10.0.0.1:8500".parse()?;
/// assert_eq!(server.to_string(), "http://10.0.0.1:8500");
/// assert!("http://".parse::<Server>().is_err());
/// # Ok::<(), evenkeel::discovery::ServerError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub(crate) place: Place,
    pub(crate) is_tls: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Tcp(Authority),
    Unix(PathBuf),
}

/// A text that does not say where a server listens, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no server: {reason} (write http://host:port, https://host:port or unix:///path)"
)]
#[non_exhaustive]
pub struct ServerError {
    /// The text as given.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl Server {
    /// The host and the port, as requests name them.
    #[cfg_attr(not(any(feature = "consul", feature = "etcd")), allow(dead_code))]
    pub(crate) fn host(&self) -> &str {
        match &self.place {
            Place::Tcp(authority) => authority.as_str(),
            Place::Unix(_) => "localhost",
        }
    }

    /// The host alone, as a certificate names it.
    pub(crate) fn host_name(&self) -> &str {
        match &self.place {
            Place::Tcp(authority) => authority.host(),
            Place::Unix(_) => "localhost",
        }
    }

    /// Where it listens, to be connected to.
    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint::new(match &self.place {
            Place::Tcp(authority) => {
                let host = authority.host().trim_start_matches('[').trim_end_matches(']');
                let port = authority.port_u16().unwrap_or_default();
                match host.parse::<IpAddr>() {
                    Ok(ip) => Address::Socket((ip, port).into()),
                    Err(_) => Address::Name { host: host.into(), port },
                }
            }
            Place::Unix(path) => Address::unix(path),
        })
    }

    /// The URI of a path on this server.
    #[cfg_attr(not(feature = "etcd"), allow(dead_code))]
    pub(crate) fn uri(&self) -> Result<Uri, http::Error> {
        let scheme = if self.is_tls { "https" } else { "http" };
        Uri::builder().scheme(scheme).authority(self.host()).path_and_query("/").build()
    }
}

impl FromStr for Server {
    type Err = ServerError;

    fn from_str(text: &str) -> Result<Self, ServerError> {
        let error = |reason| ServerError { text: text.to_owned(), reason };
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() {
                return Err(error("the path is empty"));
            }
            return Ok(Self { place: Place::Unix(path.into()), is_tls: false });
        }
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let is_tls = match scheme {
            "http" => false,
            "https" => true,
            _ => return Err(error("the scheme is neither http nor https nor unix")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#', '@']) {
            return Err(error("there is more than a host and a port"));
        }
        let authority: Authority =
            rest.parse().map_err(|_| error("the host and the port cannot be read"))?;
        if authority.port().and_then(|port| digits(port.as_str())).is_none_or(|port: u16| port == 0)
        {
            return Err(error("the port is missing"));
        }
        Ok(Self { place: Place::Tcp(authority), is_tls })
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Tcp(authority) if self.is_tls => write!(f, "https://{authority}"),
            Place::Tcp(authority) => write!(f, "http://{authority}"),
            Place::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_survives_being_written_and_read() {
        for text in ["http://10.0.0.1:8500", "https://consul.internal:8501", "unix:///run/c.sock"] {
            assert_eq!(text.parse::<Server>().unwrap().to_string(), text);
        }
        let v6: Server = "http://[::1]:8500/".parse().unwrap();
        assert_eq!(v6.uri().unwrap().to_string(), "http://[::1]:8500/");
    }

    #[test]
    fn a_server_is_an_endpoint_and_a_name_for_its_certificate() {
        for (text, address, name) in [
            ("https://[::1]:8501", "[::1]:8501", "[::1]"),
            ("http://10.0.0.1:8500", "10.0.0.1:8500", "10.0.0.1"),
            ("https://consul.internal:8501", "consul.internal:8501", "consul.internal"),
            ("unix:///run/c.sock", "unix:/run/c.sock", "localhost"),
        ] {
            let server: Server = text.parse().unwrap();
            assert_eq!(server.endpoint().address, address.parse().unwrap());
            assert_eq!(server.host_name(), name);
        }
    }

    #[test]
    fn an_invalid_server_is_refused() {
        for text in [
            "",
            "http://",
            "ftp://a:1",
            "http://a",
            "a:0",
            "a:65536",
            "a:+1",
            "a:1/b",
            "u@a:1",
            "unix:",
        ] {
            assert!(text.parse::<Server>().is_err(), "{text} was taken");
        }
    }
}
