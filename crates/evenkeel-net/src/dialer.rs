//! How one connection is made.

use std::{future::Future, io, net::SocketAddr, time::Duration};

use evenkeel_core::{
    BoxError,
    endpoint::{Address, Endpoint},
};
use socket2::{SockRef, TcpKeepalive};
use tokio::{net::TcpStream, time::timeout};

use crate::{happy_eyeballs, stream::Stream};

/// How long a silent TCP peer may take to answer the first probe, and each further one.
#[cfg(any(target_os = "linux", target_os = "macos", target_os = "windows"))]
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// How many probes a silent TCP peer gets.
#[cfg(any(target_os = "linux", target_os = "macos", target_os = "windows"))]
const PROBES: u32 = 3;

/// Makes connections to endpoints.
///
/// A connection goes to the endpoint's address, or to an alternative if that does not answer (RFC 8305) or is
/// a name that is not found in time. The next address is also tried when the one before has been silent for 250 ms,
/// sooner if the timeout leaves less for each. A name is resolved by the system. TCP connections send without delay
/// (`TCP_NODELAY`).
///
/// ```
/// use std::time::Duration;
/// use evenkeel::core::{BoxError, endpoint::Endpoint};
/// use evenkeel::net::Dialer;
/// use tokio::io::AsyncReadExt;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// # let address = listener.local_addr()?;
/// # tokio::spawn(async move {
/// #     let (mut stream, _) = listener.accept().await?;
/// #     tokio::io::AsyncWriteExt::write_all(&mut stream, b"hello").await
/// # });
/// let dialer = Dialer::new().connect_timeout(Duration::from_millis(200));
///
/// let mut stream = dialer.connect(&Endpoint::new(address)).await?;
///
/// let mut said = String::new();
/// stream.read_to_string(&mut said).await?;
/// assert_eq!(said, "hello");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Dialer {
    connect_timeout: Duration,
    tcp_keep_alive: Option<Duration>,
    #[cfg(feature = "tls")]
    tls: std::sync::Arc<crate::tls::Handshake>,
    /// The protocols offered in a TLS handshake, best first.
    alpn_protocols: &'static [&'static [u8]],
}

/// A connection was not made in time: name, TCP and TLS together.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("no connection within {after:?}")]
#[non_exhaustive]
pub struct ConnectTimeout {
    /// How long the connection was awaited.
    pub after: Duration,
}

impl ConnectTimeout {
    /// The failure of a connection that was awaited for `after`.
    #[must_use]
    pub fn new(after: Duration) -> Self {
        Self { after }
    }
}

impl Dialer {
    /// A dialer with the defaults below. With the feature `tls` it trusts the system's authorities.
    #[must_use]
    pub fn new() -> Self {
        Self {
            connect_timeout: Duration::from_millis(500),
            tcp_keep_alive: Some(Duration::from_secs(5)),
            #[cfg(feature = "tls")]
            tls: std::sync::Arc::new(crate::tls::Handshake::new(crate::tls::Tls::system())),
            alpn_protocols: &[],
        }
    }

    /// Sets how long a connection may take: name, TCP and TLS together. Default: 500 ms.
    ///
    /// That is ample inside a data centre and short between continents. A lost SYN is sent again after
    /// 1 s, so a shorter timeout ends before the second SYN.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets how long a TCP connection may be silent before it is probed. Default: 5 s.
    ///
    /// A silent peer gets three probes, a second apart: by default a host that is gone is noticed within 8 s.
    /// With `None`, only a write notices it.
    #[must_use]
    pub fn tcp_keep_alive(mut self, idle: impl Into<Option<Duration>>) -> Self {
        self.tcp_keep_alive = idle.into();
        self
    }

    /// Sets how TLS is spoken. Default: trusts the system's authorities.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: crate::tls::Tls) -> Self {
        self.tls = std::sync::Arc::new(crate::tls::Handshake::new(tls));
        self
    }

    /// Sets the protocols offered in a TLS handshake (ALPN), best first. Default: none.
    ///
    /// A configuration from [`Tls::from_config`](crate::Tls::from_config) that names protocols keeps them.
    #[must_use]
    pub fn alpn_protocols(mut self, protocols: &'static [&'static [u8]]) -> Self {
        self.alpn_protocols = protocols;
        self
    }

    /// Whether TLS checks every certificate for one name, instead of the host that a connection is for.
    #[must_use]
    pub fn has_server_name(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.tls.has_server_name();
        #[cfg(not(feature = "tls"))]
        return false;
    }

    /// Makes one connection, in plain text.
    ///
    /// # Errors
    /// A [`ConnectTimeout`], or an [`io::Error`]: of several addresses that failed, the last error about an
    /// address, else the last error.
    pub async fn connect(&self, endpoint: &Endpoint) -> Result<Stream, BoxError> {
        self.within_timeout(self.dial(endpoint)).await
    }

    /// Makes one connection over TLS, to an endpoint that proves to be `host`.
    ///
    /// `host` is a name or an IP address as in a URI. [`Tls::server_name`](crate::Tls::server_name) replaces
    /// it.
    ///
    /// # Errors
    /// As [`connect`](Self::connect); a [`TlsError`](crate::TlsError) if the configuration cannot be used; an
    /// [`io::Error`] with rustls' error inside if the handshake fails. Without the feature `tls`, always.
    pub async fn connect_tls(&self, endpoint: &Endpoint, host: &str) -> Result<Stream, BoxError> {
        #[cfg(feature = "tls")]
        return self
            .within_timeout(async {
                let stream = self.dial(endpoint).await?;
                self.tls.shake_hands(stream, host, self.alpn_protocols).await
            })
            .await;
        #[cfg(not(feature = "tls"))]
        return Err(format!("TLS to {host} at {} needs the feature `tls`", endpoint.address).into());
    }

    async fn within_timeout(
        &self,
        connecting: impl Future<Output = Result<Stream, BoxError>>,
    ) -> Result<Stream, BoxError> {
        let after = self.connect_timeout;
        timeout(after, connecting).await.map_err(|_| ConnectTimeout { after })?
    }

    async fn dial(&self, endpoint: &Endpoint) -> Result<Stream, BoxError> {
        let delay = |addresses| happy_eyeballs::attempt_delay(self.connect_timeout, addresses);
        let alternatives = &endpoint.alternatives;
        let mut addresses: Vec<SocketAddr> = match &endpoint.address {
            Address::Socket(address) => vec![*address],
            Address::Name { host, port } => {
                let looked_up = tokio::net::lookup_host((&**host, *port));
                if alternatives.is_empty() {
                    looked_up.await?.collect()
                } else {
                    let looked_up = timeout(delay(1 + alternatives.len()), looked_up).await;
                    looked_up.ok().and_then(Result::ok).into_iter().flatten().collect()
                }
            }
            #[cfg(unix)]
            Address::Unix(path) => return Ok(tokio::net::UnixStream::connect(path).await?.into()),
            other => return Err(format!("{other} cannot be connected to on this system").into()),
        };
        addresses.extend(alternatives.iter());
        let delay = delay(addresses.len());
        let stream = happy_eyeballs::connect(addresses, delay).await?;
        self.set_options(&stream)?;
        Ok(stream.into())
    }

    fn set_options(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let Some(idle) = self.tcp_keep_alive else { return Ok(()) };
        let keep_alive = TcpKeepalive::new().with_time(idle);
        #[cfg(any(target_os = "linux", target_os = "macos", target_os = "windows"))]
        let keep_alive = keep_alive.with_interval(PROBE_INTERVAL).with_retries(PROBES);
        SockRef::from(stream).set_tcp_keepalive(&keep_alive)
    }
}

impl Default for Dialer {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_connection_sends_without_delay_and_notices_a_peer_that_is_gone() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connect = async || TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();

        let stream = connect().await;
        Dialer::new().set_options(&stream).unwrap();
        let socket = SockRef::from(&stream);
        assert!(stream.nodelay().unwrap());
        assert!(socket.keepalive().unwrap());
        #[cfg(target_os = "linux")]
        {
            assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(5));
            assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(1));
            assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3);
        }

        let stream = connect().await;
        Dialer::new().tcp_keep_alive(None).set_options(&stream).unwrap();
        assert!(!SockRef::from(&stream).keepalive().unwrap());
    }
}
