//! HTTP/2 with prior knowledge: one connection to a node, shared by all its requests.
//!
//! hyper-util's client is not used, for three reasons. When connecting fails, requests that wait for
//! a connection queue behind each other there, so that the tenth waits ten timeouts; here they share
//! one try and its error. It needs a dozen clones and two locks for a request. And its pings cannot be
//! stopped when a server objects to them.

use std::{
    error::Error,
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use evenkeel_core::{BoxError, error::cause};
use futures_util::future::{FutureExt, Shared};
use http::{Request, Response, Uri, uri::Authority};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::TokioExecutor;
use tokio::{runtime, sync::oneshot};

use crate::{
    connector::RequestBody,
    dial::Dial,
    error::{ConnectError, RequestError, RuntimeEnded},
    per_runtime::{MAX_RUNTIMES, resting_runtime},
};

/// How often a request that was provably not sent is tried on a new connection.
const MAX_RECONNECTS: usize = 2;

/// The most server names for one node at the same time, over TLS without a fixed name, from one runtime.
const MAX_CONNECTIONS: usize = 8;

type Sender<B> = http2::SendRequest<B>;
type Connecting<B> = Shared<oneshot::Receiver<Result<Sender<B>, ConnectError>>>;
pub(crate) type Answer = Pin<Box<dyn Future<Output = Result<Response<Incoming>, BoxError>> + Send>>;

/// The HTTP/2 connections of one node.
pub(crate) struct Multiplexed<B> {
    dial: Dial,
    builder: http2::Builder<TokioExecutor>,
    /// Whether the server complained about pings. It gets none on later connections.
    is_ping_unwelcome: Arc<AtomicBool>,
    connections: Mutex<Vec<Line<B>>>,
}

/// A connection, and which requests it serves.
struct Line<B> {
    /// The server name, if that matters.
    authority: Option<Authority>,
    /// The current-thread runtime that drives it. It serves only callers there.
    runtime: Option<runtime::Id>,
    connecting: Connecting<B>,
}

impl<B: RequestBody> Multiplexed<B> {
    pub(crate) fn new(dial: Dial, builder: http2::Builder<TokioExecutor>) -> Self {
        Self { dial, builder, is_ping_unwelcome: Arc::default(), connections: Mutex::default() }
    }

    /// Sends a request with a complete URI.
    pub(crate) fn request(self: Arc<Self>, mut request: Request<B>) -> Answer {
        Box::pin(async move {
            for _ in 0..MAX_RECONNECTS {
                let mut sender = self.sender(request.uri()).await?;
                match sender.try_send_request(request).await {
                    Ok(response) => return Ok(response),
                    Err(mut error) => match error.take_message() {
                        // It is returned if no part of it was sent: the connection has closed since
                        // it was checked.
                        Some(unsent) => request = unsent,
                        None => return Err(self.failed(error.into_error())),
                    },
                }
            }
            let mut sender = self.sender(request.uri()).await?;
            sender.send_request(request).await.map_err(|error| self.failed(error))
        })
    }

    fn failed(&self, error: hyper::Error) -> BoxError {
        RequestError::new(self.dial.node().address().clone(), error).into()
    }

    /// The open connection, else the one that is being made, else a new one.
    async fn sender(&self, uri: &Uri) -> Result<Sender<B>, ConnectError> {
        for _ in 0..=MAX_RECONNECTS {
            // No answer: the runtime that was connecting has ended. This one can connect.
            if let Ok(connected) = self.connection(uri).await {
                return connected;
            }
        }
        Err(ConnectError::new(self.dial.node().address().clone(), RuntimeEnded.into()))
    }

    fn connection(&self, uri: &Uri) -> Connecting<B> {
        let (authority, runtime) = (self.dial.authority(uri), resting_runtime());
        let mut lines = self.connections.lock().expect("no panic under the lock");
        let found = lines
            .iter()
            .find(|line| line.runtime == runtime && line.authority.as_ref() == authority)
            .filter(|line| is_usable(&line.connecting));
        if let Some(line) = found {
            return line.connecting.clone();
        }
        lines.retain(|line| is_usable(&line.connecting));
        let of_runtime = lines.iter().filter(|line| line.runtime == runtime).count();
        let oldest = if of_runtime == MAX_CONNECTIONS {
            lines.iter().position(|line| line.runtime == runtime)
        } else {
            (lines.len() == MAX_CONNECTIONS * MAX_RUNTIMES).then_some(0)
        };
        if let Some(oldest) = oldest {
            drop(lines.remove(oldest));
        }
        let connecting = self.start(uri.clone());
        let authority = authority.cloned();
        lines.push(Line { authority, runtime, connecting: connecting.clone() });
        connecting
    }

    /// Connects in a separate task: the request that asked may be dropped while others wait for it.
    fn start(&self, uri: Uri) -> Connecting<B> {
        let (connected, connecting) = oneshot::channel();
        let dial = self.dial.clone();
        let is_ping_unwelcome = self.is_ping_unwelcome.clone();
        let mut builder = self.builder.clone();
        if is_ping_unwelcome.load(Relaxed) {
            builder.keep_alive_interval(None);
        }
        tokio::spawn(async move {
            let address = dial.node().address().clone();
            let stream = match dial.connect(uri).await {
                Ok(stream) => stream,
                Err(error) => {
                    // Nothing waits for it if the service is gone.
                    let _ = connected.send(Err(error));
                    return;
                }
            };
            match builder.handshake(stream).await {
                Err(error) => {
                    let _ = connected.send(Err(ConnectError::new(address, error.into())));
                }
                Ok((sender, connection)) => {
                    let _ = connected.send(Ok(sender));
                    if let Err(error) = connection.await
                        && is_too_many_pings(&error)
                    {
                        is_ping_unwelcome.store(true, Relaxed);
                    }
                }
            }
        });
        connecting.shared()
    }
}

impl<B> fmt::Debug for Multiplexed<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Multiplexed")
            .field("dial", &self.dial)
            .field("is_ping_unwelcome", &self.is_ping_unwelcome)
            .finish_non_exhaustive()
    }
}

/// Whether a connection is open or still being made.
fn is_usable<B>(connecting: &Connecting<B>) -> bool {
    match connecting.peek() {
        Some(Ok(Ok(sender))) => !sender.is_closed(),
        Some(_) => false,
        None => true,
    }
}

/// By default gRPC servers allow a ping every five minutes, and close the connection of a client that
/// sends more (gRFC A8 and A9).
fn is_too_many_pings(error: &(dyn Error + 'static)) -> bool {
    cause::<h2::Error>(error).is_some_and(|error| {
        error.is_go_away()
            && error.is_remote()
            && error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM)
    })
}
