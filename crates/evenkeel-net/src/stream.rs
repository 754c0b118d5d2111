//! A connection of any kind.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// A connection: TCP, a Unix socket, or TLS over either.
///
/// Vectored writes reach the socket, or the TLS session, as one write.
pub struct Stream {
    io: Io,
}

enum Io {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(tokio::net::UnixStream),
    #[cfg(feature = "tls")]
    Tls(Box<tokio_rustls::client::TlsStream<Stream>>),
}

/// Bytes in both directions.
trait ReadWrite: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> ReadWrite for T {}

impl Stream {
    /// The protocol that both sides of TLS agreed on (ALPN), such as `h2`. `None` without TLS.
    #[must_use]
    pub fn alpn_protocol(&self) -> Option<&[u8]> {
        match &self.io {
            #[cfg(feature = "tls")]
            Io::Tls(stream) => stream.get_ref().1.alpn_protocol(),
            _ => None,
        }
    }

    fn io(&mut self) -> &mut dyn ReadWrite {
        match &mut self.io {
            Io::Tcp(stream) => stream,
            #[cfg(unix)]
            Io::Unix(stream) => stream,
            #[cfg(feature = "tls")]
            Io::Tls(stream) => stream,
        }
    }
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Self { io: Io::Tcp(stream) }
    }
}

#[cfg(unix)]
impl From<tokio::net::UnixStream> for Stream {
    fn from(stream: tokio::net::UnixStream) -> Self {
        Self { io: Io::Unix(stream) }
    }
}

#[cfg(feature = "tls")]
impl From<tokio_rustls::client::TlsStream<Stream>> for Stream {
    fn from(stream: tokio_rustls::client::TlsStream<Stream>) -> Self {
        Self { io: Io::Tls(Box::new(stream)) }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().io()).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self.get_mut().io()).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().io()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().io()).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Tcp(stream) => stream.is_write_vectored(),
            #[cfg(unix)]
            Io::Unix(stream) => stream.is_write_vectored(),
            #[cfg(feature = "tls")]
            Io::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self.get_mut().io()).poll_write_vectored(cx, buffers)
    }
}

/// For clients of hyper-util, over `TokioIo`: HTTP/2 if ALPN agreed on it.
#[cfg(feature = "hyper")]
impl hyper_util::client::legacy::connect::Connection for Stream {
    fn connected(&self) -> hyper_util::client::legacy::connect::Connected {
        let connected = hyper_util::client::legacy::connect::Connected::new();
        match self.alpn_protocol() {
            Some(b"h2") => connected.negotiated_h2(),
            _ => connected,
        }
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.io {
            Io::Tcp(_) => "tcp",
            #[cfg(unix)]
            Io::Unix(_) => "unix",
            #[cfg(feature = "tls")]
            Io::Tls(_) => "tls",
        };
        f.debug_struct("Stream").field("kind", &kind).finish_non_exhaustive()
    }
}
