//! Servers for the tests, and a minimal balancer.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use ::http::{Request, Response, header};
use evenkeel_core::{
    BoxError,
    attempt::{Attempt, Holder},
    connect::Connect,
    endpoint::{Address, Endpoint},
    node::{Listener, Node},
    observe::{Observer, Report},
    outcome::Outcome,
    time::Timestamp,
    traffic::Traffic,
};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::{Body, Bytes, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::mpsc,
};
use tower::Service;

pub(crate) type Payload = Full<Bytes>;

/// Nothing here may hang: anything that takes longer than this has failed.
pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it hangs")
}

pub(crate) async fn listen() -> (TcpListener, Address) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().into();
    (listener, address)
}

/// Serves HTTP/1.1 and HTTP/2 with `answer`.
pub(crate) async fn serve<H, F, R>(answer: H) -> Address
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<R>> + Send + 'static,
    R: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            tokio::spawn(serve_stream(stream, answer.clone()));
        }
    });
    address
}

pub(crate) async fn serve_stream<S, H, F, R>(stream: S, answer: H)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<R>> + Send + 'static,
    R: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let service = service_fn(move |request| {
        let answer = answer(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let _ = auto::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// Answers with what the server saw: version, authority, path, and the body.
pub(crate) async fn echo(request: Request<Incoming>) -> Response<Payload> {
    let authority = match request.uri().authority() {
        Some(authority) => authority.to_string(),
        None => request.headers()[header::HOST].to_str().unwrap().to_owned(),
    };
    let has_both = request.uri().authority().is_some() && request.headers().contains_key("host");
    assert!(!has_both, "an authority is said once");
    let head = format!("{:?} {authority} {} ", request.version(), request.uri().path());
    let body = request.into_body().collect().await.unwrap().to_bytes();
    Response::new(Full::from([head.as_bytes(), &body].concat()))
}

pub(crate) fn get(uri: &str) -> Request<Payload> {
    Request::get(uri).body(Full::default()).unwrap()
}

pub(crate) async fn text<R>(response: Response<R>) -> String
where
    R: Body<Error: std::fmt::Debug>,
{
    let bytes = within(response.into_body().collect()).await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Counts how often a node was reported as unreachable.
#[derive(Default)]
pub(crate) struct Unreachable(AtomicU32);

impl Unreachable {
    pub(crate) fn times(&self) -> u32 {
        self.0.load(SeqCst)
    }
}

impl Listener for Unreachable {
    fn opened(&self, _: &Node) {}
    fn closed(&self, _: &Node) {}
    fn unreachable(&self, _: &Node) {
        self.0.fetch_add(1, SeqCst);
    }
}

pub(crate) fn node(endpoint: impl Into<Endpoint>) -> (Arc<Node>, Arc<Unreachable>) {
    let unreachable = Arc::new(Unreachable::default());
    let endpoint = endpoint.into();
    let decay = Some(Duration::from_secs(10));
    let node = Node::joining(endpoint, unreachable.clone(), decay);
    node.latency().record(Outcome::Success, LATENCY_BEFORE, Timestamp::from_nanos(START));
    (Arc::new(node), unreachable)
}

/// How attempts at `node` end, from now on.
pub(crate) fn ends(node: &Node) -> mpsc::UnboundedReceiver<Report> {
    struct Ends(mpsc::UnboundedSender<Report>);

    impl Observer for Ends {
        fn ended(&self, _: &Node, report: &Report) {
            // A test may have seen enough.
            let _ = self.0.send(*report);
        }
    }

    let (ends, ended) = mpsc::unbounded_channel();
    node.observe(Arc::new(Ends(ends)));
    ended
}

/// What the latency estimate shows of the outcome of the first attempt.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Nothing,
    /// Only how long it took, or was awaited: as for a success.
    Latency,
    FailureOrThrottled,
}

const START: u64 = 1 << 50;
const LATENCY_BEFORE: Duration = Duration::from_millis(10);
const LATENCY: Duration = Duration::from_millis(15);

pub(crate) fn told(node: &Node) -> Told {
    let latency = node.latency().estimate().expect("there was one before");
    // An estimate keeps seven digits.
    let is = |expected: Duration| latency.abs_diff(expected) < Duration::from_micros(1);
    if is(LATENCY_BEFORE) {
        Told::Nothing
    } else if is(LATENCY) {
        Told::Latency
    } else {
        Told::FailureOrThrottled
    }
}

struct Held(Arc<Node>, AtomicU64);

impl Holder for Held {
    fn node(&self) -> &Arc<Node> {
        &self.0
    }
    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.1.fetch_add(LATENCY.as_nanos() as u64, SeqCst))
    }
    fn recently(&self) -> Timestamp {
        Timestamp::from_nanos(self.1.load(SeqCst))
    }
}

/// A balancer over one node: it counts the attempt and reports its outcome.
#[derive(Clone)]
pub(crate) struct Stack<S, T> {
    service: S,
    traffic: T,
    held: Arc<Held>,
}

pub(crate) fn stack<C: Connect>(connect: &C, node: &Arc<Node>) -> Stack<C::Service, C::Traffic> {
    let held = Arc::new(Held(node.clone(), AtomicU64::new(START)));
    Stack { service: connect.connect(node), traffic: connect.traffic(), held }
}

impl<S, T, Q> Service<Q> for Stack<S, T>
where
    S: Service<Q, Error = BoxError, Future: Send + 'static>,
    T: Traffic<Q, S::Response, BoxError>,
{
    type Response = T::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<T::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: Q) -> Self::Future {
        let mut attempt = Attempt::new(self.held.clone()).erase();
        attempt.start_clock();
        let answer = self.service.call(request);
        let traffic = self.traffic.clone();
        Box::pin(async move { traffic.finish(attempt, answer.await) })
    }
}
