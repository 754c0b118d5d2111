//! One connection of a server that drains.

use std::{
    future::Future,
    io,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use hyper_util::server::graceful::GracefulConnection;
use pin_project_lite::pin_project;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::sleep,
};

use super::{
    heads::Heads,
    state::{DrainHandle, Phase, Tail, Visits},
};

/// What begins every connection of HTTP/2 (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Drives a connection until it has ended or may be dropped.
///
/// When hyper is told to close, it drops a kept-alive HTTP/1.1 connection even if part of a request's head
/// has arrived. Such a head gets `max_idle` to become complete. hyper also waits without a bound for an HTTP/2
/// preface and for the acknowledgement of a `GOAWAY`. If no request is in flight, a peer gets `max_idle` for them.
pub(super) async fn drive<C: GracefulConnection>(
    connection: C,
    line: Arc<Line>,
    visits: Arc<Visits>,
    handle: DrainHandle,
    max_idle: Duration,
) {
    let seen = Seen { connection, line, visits, handle: handle.clone(), tail: None };
    let mut seen = pin!(seen);
    tokio::select! {
        // In this order: what has arrived is read before it is judged. The caller knows of an error.
        biased;
        () = seen.as_mut() => return,
        () = handle.reached(Phase::Closing) => {}
    }
    if seen.line.has_half_head() {
        // It counts as cut unless it becomes complete or the peer gives up, even if this task is dropped.
        handle.0.half_heads.fetch_add(1, Relaxed);
        let has_ended = loop {
            let was_idle = seen.is_idle();
            tokio::select! {
                has_ended = seen.as_mut().until_whole() => break has_ended,
                // The response before it is not bounded.
                () = sleep(max_idle) => if was_idle && seen.is_idle() { return },
            }
        };
        handle.0.half_heads.fetch_sub(1, Relaxed);
        if has_ended {
            return;
        }
    }
    seen.as_mut().graceful_shutdown();
    loop {
        let before = seen.moved();
        tokio::select! {
            () = seen.as_mut() => return,
            () = sleep(max_idle) => {
                if seen.is_idle() && seen.moved() == before {
                    return;
                }
            }
        }
    }
}

pin_project! {
    /// A connection, and what is observed of it above and below hyper.
    struct Seen<C> {
        #[pin]
        connection: C,
        line: Arc<Line>,
        visits: Arc<Visits>,
        handle: DrainHandle,
        tail: Option<Tail>,
    }
}

impl<C: GracefulConnection> Seen<C> {
    fn graceful_shutdown(self: Pin<&mut Self>) {
        self.project().connection.graceful_shutdown();
    }

    /// Drives it until the head is complete or the connection has ended. Returns whether it has ended.
    async fn until_whole(mut self: Pin<&mut Self>) -> bool {
        std::future::poll_fn(|cx| match self.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(true),
            Poll::Pending if self.line.has_half_head() => Poll::Pending,
            Poll::Pending => Poll::Ready(false),
        })
        .await
    }

    /// Bytes in either direction, and requests.
    fn moved(&self) -> (u64, u64, usize) {
        let line = &self.line;
        (line.received.load(Relaxed), line.sent.load(Relaxed), self.visits.begun())
    }

    /// Whether no request is in flight and nothing waits for the peer to read it.
    fn is_idle(&self) -> bool {
        self.visits.in_flight() == 0 && !self.line.is_blocked.load(Relaxed)
    }
}

impl<C: GracefulConnection> Future for Seen<C> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let polled = this.connection.poll(cx);
        // The body of a response counts as ended once hyper has taken it.
        let is_tail = this.line.is_blocked.load(Relaxed) && this.visits.in_flight() == 0;
        if is_tail != this.tail.is_some() {
            *this.tail = is_tail.then(|| Tail::new(&this.handle.0));
        }
        polled.map(|_| ())
    }
}

/// What is observed of a connection below hyper.
#[derive(Debug, Default)]
pub(super) struct Line {
    received: AtomicU64,
    sent: AtomicU64,
    /// Whether the peer does not read what is to be sent.
    is_blocked: AtomicBool,
    /// How many bytes of the HTTP/2 preface it began with; `usize::MAX` if it began otherwise.
    preface: AtomicUsize,
    has_half_head: AtomicBool,
}

impl Line {
    fn receive(&self, bytes: &[u8], heads: &mut Heads) {
        if bytes.is_empty() {
            return;
        }
        self.received.fetch_add(bytes.len() as u64, Relaxed);
        let matched = self.preface.load(Relaxed);
        if matched < PREFACE.len() {
            let rest = &PREFACE[matched..];
            let length = rest.len().min(bytes.len());
            let is_preface = bytes[..length] == rest[..length];
            self.preface.store(if is_preface { matched + length } else { usize::MAX }, Relaxed);
        }
        if matched != PREFACE.len() {
            heads.read(bytes);
            self.has_half_head.store(heads.has_half(), Relaxed);
        }
    }

    /// Whether part of the head of an HTTP/1.1 request has arrived.
    fn has_half_head(&self) -> bool {
        self.preface.load(Relaxed) == usize::MAX && self.has_half_head.load(Relaxed)
    }
}

/// A connection that is observed below hyper.
pub(super) struct Watched<T> {
    io: T,
    line: Arc<Line>,
    heads: Heads,
}

impl<T> Watched<T> {
    pub(super) fn new(io: T) -> (Self, Arc<Line>) {
        let line = Arc::<Line>::default();
        (Self { io, line: line.clone(), heads: Heads::default() }, line)
    }

    fn note_sent(&self, sent: &Poll<io::Result<usize>>) {
        self.line.is_blocked.store(sent.is_pending(), Relaxed);
        if let Poll::Ready(Ok(sent)) = sent {
            self.line.sent.fetch_add(*sent as u64, Relaxed);
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.io).poll_read(cx, buffer);
        this.line.receive(&buffer.filled()[before..], &mut this.heads);
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let sent = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.note_sent(&sent);
        sent
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let sent = Pin::new(&mut self.io).poll_write_vectored(cx, buffers);
        self.note_sent(&sent);
        sent
    }
}
