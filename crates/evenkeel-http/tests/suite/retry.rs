//! Retries over real sockets.

mod attempts;
mod bodies;
mod grpc;
mod statuses;

use std::{
    convert::Infallible,
    future::Future,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use evenkeel_core::{
    BoxError,
    backoff::Backoff,
    deadline::CarryDeadline,
    endpoint::Endpoint,
    error::{AttemptTimeout, cause},
    retry::{Budget, Reach, Verdict},
};
use evenkeel_http::{
    ConnectError, GrpcStatusLayer, HttpConnector, HttpDeadline, HttpRetry, Idempotent,
    RequestError, Seen,
};
use evenkeel_layers::{
    balance::BalanceLayer, deadline::DeadlineLayer, hedge::HedgeLayer, retry::RetryLayer,
};
use http::{HeaderMap, Method, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Bytes, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{io::AsyncReadExt, net::TcpListener};
use tower::{Layer, ServiceBuilder, ServiceExt, util::BoxCloneSyncService};

type Body = UnsyncBoxBody<Bytes, Infallible>;
type Client = BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>;

/// Nothing here may hang: anything that takes longer than this has failed.
async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it hangs")
}

fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).boxed_unsync()
}

/// A body of two frames, with a length that is not known in advance.
fn stream(first: &'static str, second: &'static str) -> Body {
    let frames = [first, second].map(|text| Ok(Frame::data(Bytes::from(text))));
    StreamBody::new(tokio_stream::iter(frames)).boxed_unsync()
}

fn request(method: Method, body: Body) -> Request<Body> {
    Request::builder().method(method).uri("/").body(body).unwrap()
}

fn idempotent(mut request: Request<Body>) -> Request<Body> {
    request.extensions_mut().insert(Idempotent(true));
    request
}

/// What the servers of a test have seen: headers and body of each attempt.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<(HeaderMap, String)>>>);

impl Log {
    fn bodies(&self) -> Vec<String> {
        self.0.lock().unwrap().iter().map(|(_, body)| body.clone()).collect()
    }
}

/// Answers each attempt with `answer` of its number, counted from 0 over all servers.
async fn server<A>(log: &Log, count: &Arc<AtomicUsize>, answer: A) -> Endpoint
where
    A: Fn(usize) -> Response<Body> + Clone + Send + Sync + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (log, count) = (log.clone(), count.clone());
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (log, count, answer) = (log.clone(), count.clone(), answer.clone());
            let service = service_fn(move |request: Request<Incoming>| {
                let (log, count, answer) = (log.clone(), count.clone(), answer.clone());
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await.unwrap().to_bytes();
                    let body = String::from_utf8(body.to_vec()).unwrap();
                    log.0.lock().unwrap().push((head.headers, body));
                    Ok::<_, Infallible>(answer(count.fetch_add(1, SeqCst)))
                }
            });
            tokio::spawn(async move {
                let server = auto::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(socket), service).await;
            });
        }
    });
    Endpoint::new(address)
}

/// Two servers that answer alike.
async fn servers<A>(answer: A) -> (Vec<Endpoint>, Log)
where
    A: Fn(usize) -> Response<Body> + Clone + Send + Sync + 'static,
{
    let (log, count) = (Log::default(), Arc::default());
    let endpoints =
        vec![server(&log, &count, answer.clone()).await, server(&log, &count, answer).await];
    (endpoints, log)
}

fn layer() -> RetryLayer<HttpRetry> {
    let millisecond = Duration::from_millis(1);
    RetryLayer::new(Budget::default())
        .backoff(Backoff::full_jitter(millisecond, millisecond))
        .rules(HttpRetry::new())
}

fn client(layer: RetryLayer<HttpRetry>, endpoints: Vec<Endpoint>, is_grpc: bool) -> Client {
    let connector = if is_grpc { HttpConnector::grpc() } else { HttpConnector::new() };
    let stack = ServiceBuilder::new()
        .layer(layer)
        // With this seed the turns begin at the first of two.
        .layer(BalanceLayer::round_robin(endpoints).seed(15_444_690))
        .service(connector);
    let stack = ServiceBuilder::new()
        .map_response(|response: Response<_>| {
            response.map(|body: evenkeel_http::PeekedBody<_>| {
                // In these tests failures come before the body.
                BodyExt::map_err(body, |error: hyper::Error| -> Infallible { panic!("{error}") })
                    .boxed_unsync()
            })
        })
        .service(stack);
    BoxCloneSyncService::new(stack)
}

async fn text(response: Response<Body>) -> String {
    let body = within(response.into_body().collect()).await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

fn status(status: u16) -> Response<Body> {
    Response::builder().status(status).body(full(format!("status {status}"))).unwrap()
}

fn header(mut response: Response<Body>, name: &'static str, value: &'static str) -> Response<Body> {
    response.headers_mut().insert(name, value.parse().unwrap());
    response
}

fn header_of(mut request: Request<Body>, name: &'static str, value: &'static str) -> Request<Body> {
    *request.uri_mut() = "/greeter.Greeter/Greet".parse().unwrap();
    request.headers_mut().insert(name, value.parse().unwrap());
    request
}

/// A gRPC response: its status is in the head, or in trailers after it.
fn grpc(code: &'static str, is_in_head: bool, pushback: Option<&'static str>) -> Response<Body> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", code.parse().unwrap());
    if let Some(pushback) = pushback {
        trailers.insert("grpc-retry-pushback-ms", pushback.parse().unwrap());
    }
    let mut response = if is_in_head {
        let mut response = Response::new(Empty::new().boxed_unsync());
        *response.headers_mut() = trailers;
        response
    } else {
        let frames = [Ok(Frame::trailers(trailers))];
        Response::new(StreamBody::new(tokio_stream::iter(frames)).boxed_unsync())
    };
    response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    response
}

fn grpc_call() -> Request<Body> {
    header_of(request(Method::POST, full("message")), "content-type", "application/grpc")
}
