//! Connections that continue after the head of their response: upgraded ones, and tunnels of CONNECT.

use std::{
    any::Any,
    fmt,
    future::Future,
    io,
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    task::{Context, Poll, Wake, Waker, ready},
};

use futures_util::{future::FutureExt, task::AtomicWaker};
use http::{Extensions, Method, Request, Response, StatusCode};
use hyper::{
    client::conn::http1,
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Dropped when a tunnel ends: an attempt, a place in a limit, a count.
type Guard = Box<dyn Any + Send>;

/// A future that ends a tunnel from outside when it completes.
pub(crate) type Cut = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A tunnel that is open or may become so, in the extensions of a message.
///
/// `None` inside once both directions have ended, or the stream was dropped.
#[derive(Clone)]
pub(crate) struct Tunnel(Arc<Mutex<Option<Vec<Guard>>>>);

impl Tunnel {
    /// Replaces the upgrade that hyper has left in these extensions, if there is one.
    ///
    /// The tunnel ends when `cut` completes, if not before.
    pub(crate) fn open(
        extensions: &mut Extensions,
        cut: impl FnOnce() -> Option<Cut>,
    ) -> Option<Self> {
        let upgrade = extensions.remove::<OnUpgrade>()?;
        let tunnel = Self(Arc::new(Mutex::new(Some(Vec::new()))));
        let stream = TunnelStream::new(upgrade.clone(), tunnel.clone(), cut());
        let observed = observed(stream);
        debug_assert!(observed.is_some(), "hyper does these steps without waiting");
        let Some(observed) = observed else {
            // An upgrade that is not counted is better than one that cannot be used.
            extensions.insert(upgrade);
            return None;
        };
        extensions.insert(observed);
        Some(tunnel)
    }

    /// The tunnel that a response opens, whether the layers above know it yet or not.
    pub(crate) fn of_response(status: StatusCode, extensions: &mut Extensions) -> Option<Self> {
        if status != StatusCode::SWITCHING_PROTOCOLS && !status.is_success() {
            return None;
        }
        if let Some(tunnel) = extensions.get::<Self>() {
            return Some(tunnel.clone());
        }
        let tunnel = Self::open(extensions, || None)?;
        extensions.insert(tunnel.clone());
        Some(tunnel)
    }

    /// Keeps `guard` until the tunnel has ended. Returns it if that has ended already.
    pub(crate) fn hold<G: Send + 'static>(&self, guard: G) -> Result<(), G> {
        match &mut *self.0.lock().expect("no panic under the lock") {
            Some(guards) => {
                guards.push(Box::new(guard));
                Ok(())
            }
            None => Err(guard),
        }
    }

    fn end(&self) {
        let guards = self.0.lock().expect("no panic under the lock").take();
        // Dropped without the lock: it runs code of other types.
        drop(guards);
    }
}

/// A server's request that may become a tunnel.
pub(crate) struct Offer {
    tunnel: Option<Tunnel>,
    is_connect: bool,
}

impl Offer {
    pub(crate) fn of<B>(request: &mut Request<B>, cut: impl FnOnce() -> Option<Cut>) -> Self {
        let is_connect = *request.method() == Method::CONNECT;
        Self { tunnel: Tunnel::open(request.extensions_mut(), cut), is_connect }
    }

    /// Gives `guard` to the tunnel that `response` opens, or returns it if there is none.
    pub(crate) fn accept<R, G>(&mut self, response: &mut Response<R>, guard: G) -> Option<G>
    where
        G: Send + 'static,
    {
        let status = response.status();
        let is_opened =
            status == StatusCode::SWITCHING_PROTOCOLS || self.is_connect && status.is_success();
        let Some(tunnel) = self.tunnel.take().filter(|_| is_opened) else { return Some(guard) };
        // For the layers above.
        response.extensions_mut().insert(tunnel.clone());
        tunnel.hold(guard).err()
    }
}

/// The upgrade that callers of `hyper::upgrade::on` get in place of the one that `stream` waits for.
///
/// Only hyper can make an [`OnUpgrade`]. So a client connection of hyper is upgraded over `stream`, which
/// plays the server until then. None of this waits for anything outside.
fn observed(stream: TunnelStream) -> Option<OnUpgrade> {
    // tokio must not make it wait either, even if the calling task has used up its budget.
    tokio::task::unconstrained(async move { upgrade(stream) }).now_or_never()?
}

fn upgrade(stream: TunnelStream) -> Option<OnUpgrade> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).now_or_never()?.ok()?;
    let answer = sender.send_request(Request::new(String::new()));
    let mut connection = pin!(connection.with_upgrades());
    let mut cx = Context::from_waker(Waker::noop());
    // It reads before it writes, so it sees the answer only when it is polled again.
    let is_over = (0..4).any(|_| connection.as_mut().poll(&mut cx).is_ready());
    debug_assert!(is_over, "the answer is there as soon as the request is");
    Some(hyper::upgrade::on(answer.now_or_never()?.ok()?))
}

/// The bytes of a tunnel.
struct TunnelStream {
    stage: Stage,
    tunnel: Tunnel,
    wakers: Arc<Wakers>,
    cut: Option<Cut>,
    is_read_over: bool,
    is_write_over: bool,
}

enum Stage {
    /// Our own connection has not asked yet.
    Asking(OnUpgrade),
    /// It has asked, and has no answer yet.
    Asked(OnUpgrade),
    /// The real connection is not upgraded yet.
    Upgrading(OnUpgrade),
    Open(TokioIo<Upgraded>),
    Closed,
}

/// Tasks that wait for the upgrade or the cut: two may poll the halves of a stream.
#[derive(Default)]
struct Wakers {
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl Wake for Wakers {
    fn wake(self: Arc<Self>) {
        self.reader.wake();
        self.writer.wake();
    }
}

impl TunnelStream {
    fn new(upgrade: OnUpgrade, tunnel: Tunnel, cut: Option<Cut>) -> Self {
        Self {
            stage: Stage::Asking(upgrade),
            tunnel,
            wakers: Arc::default(),
            cut,
            is_read_over: false,
            is_write_over: false,
        }
    }

    /// The real stream, once it is open.
    fn poll_open(
        &mut self,
        cx: &mut Context<'_>,
        side: fn(&Wakers) -> &AtomicWaker,
    ) -> Poll<io::Result<Pin<&mut TokioIo<Upgraded>>>> {
        if self.cut.is_some() || matches!(self.stage, Stage::Upgrading(_)) {
            side(&self.wakers).register(cx.waker());
            let waker = Waker::from(self.wakers.clone());
            ready!(self.poll_upgrade(&mut Context::from_waker(&waker)))?;
        }
        match &mut self.stage {
            Stage::Open(upgraded) => Poll::Ready(Ok(Pin::new(upgraded))),
            _ => Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
        }
    }

    fn poll_upgrade(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.cut.as_mut().is_some_and(|cut| cut.as_mut().poll(cx).is_ready()) {
            self.cut = None;
            self.close();
        }
        if let Stage::Upgrading(upgrade) = &mut self.stage {
            match ready!(Pin::new(upgrade).poll(cx)) {
                Ok(upgraded) => self.stage = Stage::Open(TokioIo::new(upgraded)),
                Err(error) => {
                    self.close();
                    return Poll::Ready(Err(io::Error::other(error)));
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn close(&mut self) {
        self.stage = Stage::Closed;
        self.tunnel.end();
    }

    fn end_if_over(&self) {
        if self.is_read_over && self.is_write_over {
            self.tunnel.end();
        }
    }

    /// Whether our own connection is still writing; what it writes is dropped.
    fn take_request(&mut self) -> bool {
        if let Stage::Asking(upgrade) = &self.stage {
            self.stage = Stage::Asked(upgrade.clone());
        }
        matches!(self.stage, Stage::Asked(_))
    }
}

impl AsyncRead for TunnelStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &self.stage {
            Stage::Asking(_) => return Poll::Pending,
            Stage::Asked(upgrade) => {
                buffer.put_slice(b"HTTP/1.1 101 Switching Protocols\r\n\r\n");
                self.stage = Stage::Upgrading(upgrade.clone());
                return Poll::Ready(Ok(()));
            }
            Stage::Upgrading(_) | Stage::Open(_) | Stage::Closed => {}
        }
        let room = buffer.remaining();
        let result = match ready!(self.poll_open(cx, |wakers| &wakers.reader)) {
            Ok(upgraded) => ready!(upgraded.poll_read(cx, buffer)),
            Err(error) => Err(error),
        };
        if result.is_err() {
            // Nothing more arrives, and it is not known whether anything is still sent.
            self.close();
        } else if 0 < room && room == buffer.remaining() {
            self.is_read_over = true;
            self.end_if_over();
        }
        Poll::Ready(result)
    }
}

impl AsyncWrite for TunnelStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.take_request() {
            return Poll::Ready(Ok(bytes.len()));
        }
        ready!(self.poll_open(cx, |wakers| &wakers.writer))?.poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if matches!(self.stage, Stage::Asking(_) | Stage::Asked(_)) {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_open(cx, |wakers| &wakers.writer))?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = match ready!(self.poll_open(cx, |wakers| &wakers.writer)) {
            Ok(upgraded) => ready!(upgraded.poll_shutdown(cx)),
            Err(error) => Err(error),
        };
        self.is_write_over = true;
        self.end_if_over();
        Poll::Ready(result)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stage {
            Stage::Open(upgraded) => upgraded.is_write_vectored(),
            _ => false,
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.take_request() {
            return Poll::Ready(Ok(buffers.iter().map(|buffer| buffer.len()).sum()));
        }
        ready!(self.poll_open(cx, |wakers| &wakers.writer))?.poll_write_vectored(cx, buffers)
    }
}

impl Drop for TunnelStream {
    fn drop(&mut self) {
        self.tunnel.end();
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_has_used_up_its_budget_still_opens_a_tunnel() {
        // The budget of a task, after which tokio makes it wait.
        while tokio::task::consume_budget().now_or_never().is_some() {}
        let mut extensions = Extensions::new();
        extensions.insert(hyper::upgrade::on(Request::new(())));

        let tunnel = Tunnel::open(&mut extensions, || None);

        assert!(tunnel.is_some());
        assert!(extensions.get::<OnUpgrade>().is_some());
    }
}
