//! The servers: a child process of the bench, so that their time does not count for the clients.

use std::{
    convert::Infallible,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};

use super::{SERVERS, grpc};
use crate::measure::local_runtime;

/// The argument that makes the bench's own binary a server.
pub const ARGUMENT: &str = "serve";

/// Flow control windows that never block. With them, h2 does not take many short answers for an
/// attack.
pub(super) const STREAM_WINDOW: u32 = 2 << 20;
pub(super) const CONNECTION_WINDOW: u32 = 8 << 20;

/// Servers in a child process, which ends with them.
pub(super) struct Servers {
    pub(super) http: Vec<SocketAddr>,
    pub(super) grpc: Vec<SocketAddr>,
    child: Child,
}

impl Servers {
    pub(super) fn start() -> Self {
        let this = std::env::current_exe().expect("the bench is a file");
        let mut command = Command::new(this);
        command.arg(ARGUMENT).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the bench can be started again");

        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let mut addresses = lines.map(|line| {
            line.expect("the child speaks").parse::<SocketAddr>().expect("it names addresses")
        });
        let http = addresses.by_ref().take(SERVERS).collect();
        let grpc = addresses.take(SERVERS).collect();
        Self { http, grpc, child }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        // Its standard input is closed first, which ends it.
        drop(self.child.wait());
    }
}

/// Prints its addresses, and serves until its standard input ends.
pub fn run() {
    local_runtime().block_on(async {
        for _ in 0..SERVERS {
            listen(serve_http1).await;
        }
        for _ in 0..SERVERS {
            listen(serve_grpc).await;
        }
        let end = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
        drop(end.await);
    });
}

async fn listen<F>(serve: impl Fn(TcpStream) -> F + Send + 'static)
where
    F: Future<Output = hyper::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    println!("{}", listener.local_addr().expect("it is bound"));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).expect("it is a socket");
            tokio::spawn(serve(stream));
        }
    });
}

async fn serve_http1(stream: TcpStream) -> hyper::Result<()> {
    let answer = service_fn(|_: Request<Incoming>| async {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"Hello, world!"))))
    });
    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await
}

async fn serve_grpc(stream: TcpStream) -> hyper::Result<()> {
    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .serve_connection(TokioIo::new(stream), service_fn(grpc::answer))
        .await
}
