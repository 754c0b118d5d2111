//! One client on several runtimes, some of which are not driven.

use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use evenkeel_core::{BoxError, endpoint::Endpoint};
use evenkeel_http::HttpConnector;
use evenkeel_layers::balance::BalanceLayer;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use hyper::{
    body::{Bytes, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
};
use tower::{Layer, Service, ServiceExt};

/// Nothing here may hang: anything that takes longer than this has failed.
async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it hangs")
}

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn multi_thread() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// Answers on HTTP/1.1 and HTTP/2, and counts its connections.
async fn serve(connections: Arc<AtomicUsize>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            connections.fetch_add(1, SeqCst);
            let answer = service_fn(|_: Request<Incoming>| async {
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"hello"))))
            });
            tokio::spawn(async move {
                let server = auto::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(socket), answer).await;
            });
        }
    });
    address
}

async fn ask<S, B>(client: S) -> Bytes
where
    S: Service<Request<Empty<Bytes>>, Response = Response<B>, Error = BoxError>,
    B: http_body::Body<Data = Bytes, Error: std::fmt::Debug>,
{
    let request = Request::get("/").body(Empty::new()).unwrap();
    let response = within(client.oneshot(request)).await.unwrap();
    within(response.into_body().collect()).await.unwrap().to_bytes()
}

#[test]
fn a_connection_whose_runtime_rests_does_not_hold_up_the_calls_of_others() {
    let server = multi_thread();
    for (connector, is_one_kept) in
        [(HttpConnector::new(), false), (HttpConnector::new().http2(), true)]
    {
        let connections = Arc::new(AtomicUsize::new(0));
        let address = server.block_on(serve(connections.clone()));
        let client = BalanceLayer::p2c(vec![Endpoint::new(address)]).layer(connector);
        let (resting, driven, threaded) = (current_thread(), current_thread(), multi_thread());

        // The first call starts all background tasks, and then its runtime rests.
        for runtime in [&resting, &driven, &threaded, &resting, &driven, &threaded] {
            assert_eq!(runtime.block_on(ask(client.clone())), "hello");
        }

        if is_one_kept {
            assert_eq!(connections.load(SeqCst), 3, "each runtime keeps its connection");
        }
        drop((resting, driven));
        assert_eq!(current_thread().block_on(ask(client.clone())), "hello");
        assert_eq!(threaded.block_on(ask(client)), "hello");
    }
}
