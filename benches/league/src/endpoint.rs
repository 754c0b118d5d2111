//! One endpoint, in a process of its own, which answers or fails on command.
//!
//! Commands are lines on its standard input: `ok`, `fail`, `slow` or `hang`. The process ends when
//! its input or its parent ends, so that none is left over. On SIGTERM it stops gracefully. First
//! its health check fails, while it still accepts connections for [`ACCEPTS_ON`]. Then it refuses
//! new connections, closes idle ones, and answers the requests that it has.

use std::{
    convert::Infallible,
    future::{pending, ready},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::{conn::auto::Builder, graceful::GracefulShutdown},
};
use rustix::process::{Signal, set_parent_process_death_signal};
use tokio::{
    io::{AsyncBufReadExt, BufReader, stdin},
    net::{TcpListener, TcpSocket},
    signal::unix::{SignalKind, signal},
    time::{sleep, timeout},
};

use crate::BoxError;

/// Argument that makes this process an endpoint: `--endpoint ADDRESS HEALTH_ADDRESS BACKLOG
/// keep|close`.
pub(crate) const ARGUMENT: &str = "--endpoint";

/// The path of health checks, on the second port.
pub(crate) const HEALTH_PATH: &str = "/health";

const GRPC: &str = "application/grpc";

/// How long an answer takes.
const SERVICE_TIME: Duration = Duration::from_millis(2);

/// The factor of a slow answer.
const SLOWNESS: u32 = 100;

/// How long a stopping endpoint still accepts connections from clients that do not know of the
/// stop.
const ACCEPTS_ON: Duration = Duration::from_millis(100);

/// Requests that are not answered within this time are cut off.
const STOPS_WITHIN: Duration = Duration::from_secs(2);

/// The behaviour of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Ok,
    /// Answers 500 at once; INTERNAL in gRPC.
    Fail,
    /// Answers after a hundred times the service time.
    Slow,
    /// Never answers.
    Hang,
}

impl Mode {
    const ALL: [Self; 4] = [Self::Ok, Self::Fail, Self::Slow, Self::Hang];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Fail => "fail",
            Self::Slow => "slow",
            Self::Hang => "hang",
        }
    }
}

struct State {
    mode: AtomicU8,
    is_stopping: AtomicBool,
    closes: bool,
}

impl State {
    fn mode(&self) -> Mode {
        Mode::ALL[usize::from(self.mode.load(Relaxed))]
    }
}

/// Serves until the process is told to stop.
pub(crate) fn run(words: &[String]) -> Result<(), BoxError> {
    let [requests, health, backlog, keep] = words else {
        return Err("usage: --endpoint ADDRESS HEALTH_ADDRESS BACKLOG keep|close".into());
    };
    // A stopped process (SIGSTOP) does not see its input end, so it also ends with its parent.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let (requests, health, backlog) = (requests.parse()?, health.parse()?, backlog.parse()?);
    let closes = keep == "close";
    let state = Arc::new(State { mode: AtomicU8::new(0), is_stopping: false.into(), closes });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(requests, health, backlog, state))
}

async fn serve(
    requests: SocketAddr,
    health: SocketAddr,
    backlog: u32,
    state: Arc<State>,
) -> Result<(), BoxError> {
    let requests = listen(requests, backlog)?;
    let health = listen(health, 64)?;
    let mut term = signal(SignalKind::terminate())?;
    let health_state = state.clone();
    println!("ready");

    let connections = GracefulShutdown::new();
    tokio::spawn(async move { accept(health, &health_state, &GracefulShutdown::new()).await });
    let told = tokio::spawn(listen_to_input(state.clone()));
    let stopping = async {
        term.recv().await;
        state.is_stopping.store(true, Relaxed);
        sleep(ACCEPTS_ON).await;
    };
    tokio::select! {
        () = accept(requests, &state, &connections) => {}
        () = stopping => {}
        _ = told => return Ok(()),
    }
    // Requests that have not ended by then are cut off.
    _ = timeout(STOPS_WITHIN, connections.shutdown()).await;
    Ok(())
}

fn listen(address: SocketAddr, backlog: u32) -> std::io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(backlog)
}

async fn listen_to_input(state: Arc<State>) {
    let mut lines = BufReader::new(stdin()).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some(mode) = Mode::ALL.iter().position(|mode| mode.word() == line) {
            state.mode.store(u8::try_from(mode).unwrap_or_default(), Relaxed);
        }
    }
}

/// Waits forever. When it is dropped, connections are refused.
async fn accept(listener: TcpListener, state: &Arc<State>, connections: &GracefulShutdown) {
    let server = Builder::new(TokioExecutor::new());
    loop {
        // A connection that closes before it is accepted needs no handling.
        let Ok((socket, _)) = listener.accept().await else { continue };
        _ = socket.set_nodelay(true);
        let state = state.clone();
        let answer = service_fn(move |request| answer(request, state.clone()));
        let connection = server.serve_connection(TokioIo::new(socket), answer).into_owned();
        tokio::spawn(connections.watch(connection));
    }
}

async fn answer(
    request: Request<Incoming>,
    state: Arc<State>,
) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
    let mode = state.mode();
    match mode {
        Mode::Ok => sleep(SERVICE_TIME).await,
        Mode::Fail => {}
        Mode::Slow => sleep(SERVICE_TIME * SLOWNESS).await,
        Mode::Hang => pending().await,
    }
    let is_health = request.uri().path() == HEALTH_PATH;
    let is_grpc = request.headers().get(header::CONTENT_TYPE).is_some_and(|value| value == GRPC);
    let mut response =
        Response::new(if is_grpc { grpc_body(mode) } else { Full::default().boxed() });
    let headers = response.headers_mut();
    if is_grpc {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(GRPC));
    }
    if state.closes && request.version() < http::Version::HTTP_2 {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if mode == Mode::Fail && !is_grpc {
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    } else if is_health && state.is_stopping.load(Relaxed) {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    Ok(response)
}

/// An empty message and the status: OK or INTERNAL.
fn grpc_body(mode: Mode) -> BoxBody<Bytes, Infallible> {
    let mut trailers = HeaderMap::new();
    let status = if mode == Mode::Fail { "13" } else { "0" };
    trailers.insert("grpc-status", HeaderValue::from_static(status));
    Full::new(Bytes::from_static(&[0; 5])).with_trailers(ready(Some(Ok(trailers)))).boxed()
}
