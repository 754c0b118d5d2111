//! Making one connection to a registry's server.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use evenkeel_core::BoxError;
use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::{
    client::legacy::connect::{Connected, Connection},
    rt::TokioIo,
};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tower::Service;

use super::server::{Place, Server};

/// How long a connection may be silent before the system probes whether the peer is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Connects to one server, regardless of the URI.
#[derive(Clone, Debug)]
pub(crate) struct Dial {
    server: Server,
    timeout: Duration,
    #[cfg(feature = "tls")]
    tls: Option<std::sync::Arc<rustls::ClientConfig>>,
}

/// No connection was made in time.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("no connection within {after:?}")]
pub(crate) struct DialTimeout {
    after: Duration,
}

impl Dial {
    pub(crate) fn new(server: Server, timeout: Duration) -> Self {
        Self {
            server,
            timeout,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// Sets the TLS configuration for `https`.
    #[cfg(feature = "tls")]
    pub(crate) fn tls(
        mut self,
        tls: Option<&crate::tls::Tls>,
        protocols: &[&[u8]],
    ) -> Result<Self, BoxError> {
        if self.server.is_tls {
            let system = crate::tls::Tls::system();
            self.tls = Some(tls.unwrap_or(&system).config(protocols)?);
        }
        Ok(self)
    }

    /// Opens one connection, over TLS if the server's URL asks for it.
    pub(crate) async fn connect(self) -> Result<Stream, BoxError> {
        let after = self.timeout;
        let connected = tokio::time::timeout(after, self.stream()).await;
        connected.map_err(|_| DialTimeout { after })?
    }

    async fn stream(self) -> Result<Stream, BoxError> {
        let io: Box<dyn Io> = match &self.server.place {
            #[cfg(unix)]
            Place::Unix(path) => Box::new(tokio::net::UnixStream::connect(path).await?),
            #[cfg(not(unix))]
            Place::Unix(_) => return Err("this system has no Unix sockets".into()),
            Place::Tcp(authority) => {
                let bare = authority.host().trim_start_matches('[').trim_end_matches(']');
                let port = authority.port_u16().unwrap_or_default();
                let stream = tokio::net::TcpStream::connect((bare, port)).await?;
                stream.set_nodelay(true)?;
                keep_alive(&stream)?;
                Box::new(stream)
            }
        };
        if !self.server.is_tls {
            return Ok(Stream { io: TokioIo::new(io), is_http2: false });
        }
        #[cfg(feature = "tls")]
        return self.encrypt(io).await;
        #[cfg(not(feature = "tls"))]
        return Err("https needs the feature `tls`".into());
    }

    #[cfg(feature = "tls")]
    async fn encrypt(&self, io: Box<dyn Io>) -> Result<Stream, BoxError> {
        let Place::Tcp(authority) = &self.server.place else {
            return Err("TLS is spoken over TCP alone".into());
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = rustls::pki_types::ServerName::try_from(host)?;
        let config = self.tls.clone().ok_or("no configuration for TLS")?;
        let stream = tokio_rustls::TlsConnector::from(config).connect(name, io).await?;
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok(Stream { io: TokioIo::new(Box::new(stream)), is_http2 })
    }
}

impl Service<Uri> for Dial {
    type Response = Stream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(self.clone().connect())
    }
}

/// Has the system check whether a silent peer is still there. A connection is silent for minutes
/// while a registry holds an answer back, and also when the peer has restarted or is gone. The
/// latter is noticed within 8 s.
fn keep_alive(stream: &tokio::net::TcpStream) -> io::Result<()> {
    let keep_alive = TcpKeepalive::new().with_time(KEEP_ALIVE);
    #[cfg(any(target_os = "linux", target_os = "macos", target_os = "windows"))]
    let keep_alive = keep_alive.with_interval(Duration::from_secs(1)).with_retries(3);
    SockRef::from(stream).set_tcp_keepalive(&keep_alive)
}

/// Bytes in both directions.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// TCP, a Unix socket, or TLS over TCP.
pub(crate) struct Stream {
    io: TokioIo<Box<dyn Io>>,
    /// Whether TLS has agreed on HTTP/2.
    is_http2: bool,
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        if self.is_http2 { Connected::new().negotiated_h2() } else { Connected::new() }
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
