//! A server that stops, as its callers see it over real sockets.

mod bytes;
mod callers;
mod entries;
mod servers;
mod signals;
mod steps;

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{Router, body::Body, routing::get};
use evenkeel_core::{BoxError, deregister::Deregister};
use evenkeel_http::{Deregistered, Drain, DrainHandle, DrainReport, Phase};
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::{JoinHandle, JoinSet},
    time::Instant,
};

type Caller = Client<HttpConnector, Empty<Bytes>>;

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

struct Running {
    address: SocketAddr,
    handle: DrainHandle,
    server: JoinHandle<Result<DrainReport, BoxError>>,
}

impl Running {
    async fn start(drain: Drain, app: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let handle = drain.handle();
        let app = app.route_service("/ready", drain.readiness());
        let server = tokio::spawn(drain.serve(listener, app));
        Self { address, handle, server }
    }

    async fn report(self) -> DrainReport {
        tokio::time::timeout(PATIENCE, self.server).await.expect("it ends").unwrap().unwrap()
    }
}

fn app() -> Router {
    Router::new().route(
        "/",
        get(|| async {
            tokio::time::sleep(Duration::from_millis(2)).await;
            "hello"
        }),
    )
}

fn caller(is_http2: bool) -> Caller {
    Client::builder(TokioExecutor::new()).http2_only(is_http2).build_http()
}

async fn ask(
    caller: &Caller,
    address: SocketAddr,
    path: &str,
) -> Result<Response<Incoming>, BoxError> {
    let uri = format!("http://{address}{path}");
    Ok(caller.request(Request::get(uri).body(Empty::new())?).await?)
}

async fn read(response: Response<Incoming>) -> Result<Bytes, BoxError> {
    Ok(response.into_body().collect().await?.to_bytes())
}

/// A connection that is written and read byte by byte.
struct Raw(TcpStream);

impl Raw {
    async fn to(server: &Running) -> Self {
        Self(TcpStream::connect(server.address).await.unwrap())
    }

    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    /// All that arrives until the end of the first response, which says `hello`.
    async fn hello(&mut self) -> String {
        let mut text = String::new();
        while !text.ends_with("hello") {
            let mut buffer = [0; 1024];
            let read = tokio::time::timeout(PATIENCE, self.0.read(&mut buffer)).await;
            let read = read.expect("it hangs").unwrap();
            assert_ne!(read, 0, "closed after {text:?}");
            text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
        }
        text
    }
}

/// Returns when the server has read what was sent before.
async fn settle(server: &Running) {
    let mut later = Raw::to(server).await;
    later.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    later.hello().await;
}
