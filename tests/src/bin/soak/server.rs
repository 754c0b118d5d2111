//! A server that records the requests it sees, and misbehaves on command.

use std::{
    convert::Infallible,
    future::pending,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
    time::sleep,
};

use crate::ledger::Ledger;

/// The header that numbers requests.
pub(crate) const NUMBER: &str = "x-number";

/// The behaviour of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Mood {
    Well,
    Slow,
    /// It answers 503 at once.
    Failing,
    /// It takes requests and never answers.
    Hanging,
    /// It closes the connection instead of answering.
    Closing,
}

impl Mood {
    pub(crate) const ALL: [Self; 5] =
        [Self::Well, Self::Slow, Self::Failing, Self::Hanging, Self::Closing];
}

/// A server. Dropping it kills it: the port refuses connections, and open ones are cut.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    task: AbortHandle,
}

struct Shared {
    ledger: Arc<Ledger>,
    mood: AtomicU8,
    connections: Arc<AtomicUsize>,
}

impl Server {
    pub(crate) async fn start(ledger: Arc<Ledger>, connections: Arc<AtomicUsize>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared { ledger, mood: AtomicU8::new(0), connections });
        let task = tokio::spawn(serve(listener, shared.clone())).abort_handle();
        Self { address, shared, task }
    }

    pub(crate) fn set(&self, mood: Mood) {
        self.shared.mood.store(mood as u8, Relaxed);
    }

    pub(crate) fn is_well(&self) -> bool {
        self.shared.mood() == Mood::Well
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn mood(&self) -> Mood {
        Mood::ALL[usize::from(self.mood.load(Relaxed))]
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // For example, no file descriptors are left. The client has to handle that.
                let Ok((socket, _)) = accepted else { continue };
                connections.spawn(connection(socket, shared.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Counts a connection while it is open.
struct Open(Arc<AtomicUsize>);

impl Open {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Relaxed);
        Self(count.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

async fn connection(socket: TcpStream, shared: Arc<Shared>) {
    let _open = Open::new(&shared.connections);
    let server = Builder::new(TokioExecutor::new());
    let answer = service_fn(|request| answer(request, shared.clone()));
    // Connections that break are part of the test.
    _ = server.serve_connection(TokioIo::new(socket), answer).await;
}

/// The error that closes the connection.
#[derive(Debug, thiserror::Error)]
#[error("the server closes the connection")]
struct Closed;

async fn answer(
    request: Request<Incoming>,
    shared: Arc<Shared>,
) -> Result<Response<Full<Bytes>>, Closed> {
    let number =
        request.headers().get(NUMBER).and_then(|number| number.to_str().ok()?.parse().ok());
    shared.ledger.seen(number.expect("every request has its number"));
    let body = request.into_body().collect().await.map_err(|_| Closed)?.to_bytes();
    let status = match shared.mood() {
        Mood::Well => StatusCode::OK,
        Mood::Slow => {
            sleep(Duration::from_millis(100)).await;
            StatusCode::OK
        }
        Mood::Failing => StatusCode::SERVICE_UNAVAILABLE,
        Mood::Hanging => pending::<Result<_, Infallible>>().await.expect("never"),
        Mood::Closing => return Err(Closed),
    };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    Ok(response)
}
