//! A connection that notices when its peer closes it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use evenkeel_net::Stream;
use hyper_util::client::legacy::connect::{Connected, Connection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::dial::Dial;

/// A connection. When it ends, its node is [checked](Dial::look_again) if that is wanted.
#[derive(Debug)]
pub(crate) struct Watched {
    stream: Stream,
    /// `None` if that is not wanted, or once its end was seen.
    dial: Option<Dial>,
}

impl Watched {
    pub(crate) fn new(stream: Stream, dial: Option<Dial>) -> Self {
        Self { stream, dial }
    }
}

impl Connection for Watched {
    fn connected(&self) -> Connected {
        self.stream.connected()
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = buffer.remaining();
        let result = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer));
        let is_end = result.is_err() || 0 < room && room == buffer.remaining();
        if is_end && let Some(dial) = self.dial.take() {
            dial.look_again();
        }
        Poll::Ready(result)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, buffers)
    }
}
