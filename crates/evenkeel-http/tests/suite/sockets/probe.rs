//! What probes find over real sockets, and that requests avoid endpoints that fail them.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use ::http::{HeaderValue, Request, Response, header};
use evenkeel_core::{
    BoxError,
    endpoint::{Address, Endpoint},
    error::cause,
    health::check::{NotServing, Probe, Standing},
    node::Node,
};
use evenkeel_http::{GrpcProbe, HttpConnector, HttpProbe, ServedBy, TcpProbe};
use evenkeel_layers::{
    active_health::{ActiveHealthLayer, Results},
    balance::BalanceLayer,
};
use futures_util::StreamExt;
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tonic::{Status, body::Body};
use tonic_prost::ProstCodec;
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};

use crate::sockets::support::{Payload, get, listen, serve, serve_stream, within};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn node_at(address: &Address) -> Arc<Node> {
    Arc::new(Node::new(Endpoint::new(address.clone())))
}

async fn probed(probe: &impl Probe, address: &Address) -> Result<(), BoxError> {
    within(probe.probe(&node_at(address))).await
}

fn is_denied(found: Result<(), BoxError>) -> bool {
    cause::<NotServing>(&*found.unwrap_err()).is_some()
}

/// Waits until a condition is true.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(ms(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.expect(what);
}

/// A server with a health that the test sets: a status, or 0 to hang.
#[derive(Clone)]
struct Server {
    address: Address,
    health: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
    probes: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
}

impl Server {
    async fn start() -> Self {
        let (listener, address) = listen().await;
        let server = Self {
            address,
            health: Arc::new(AtomicUsize::new(200)),
            requests: Arc::default(),
            probes: Arc::default(),
            connections: Arc::default(),
        };
        let started = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                server.connections.fetch_add(1, SeqCst);
                let server = server.clone();
                tokio::spawn(serve_stream(stream, move |request| answer(server.clone(), request)));
            }
        });
        started
    }

    fn is(&self, health: usize) {
        self.health.store(health, SeqCst);
    }
}

async fn answer(server: Server, request: Request<Incoming>) -> Response<Payload> {
    if request.uri().path() != "/healthz" {
        server.requests.fetch_add(1, SeqCst);
        return Response::new(Full::from("hello"));
    }
    server.probes.fetch_add(1, SeqCst);
    let health = server.health.load(SeqCst);
    if health == 0 {
        std::future::pending::<()>().await;
    }
    let mut response = Response::new(Full::from(format!("{} all is well", request.method())));
    *response.status_mut() = ::http::StatusCode::from_u16(health as u16).unwrap();
    if let Some(host) = request.headers().get(header::HOST) {
        response.headers_mut().insert("saw-host", host.clone());
    }
    if let Some(token) = request.headers().get(header::AUTHORIZATION) {
        response.headers_mut().insert("saw-token", token.clone());
    }
    response
}

#[tokio::test]
async fn a_status_that_is_not_expected_is_a_denial() {
    let server = Server::start().await;
    let probe = HttpProbe::new("/healthz").doubt_status(429..=429).or_status(418..=418);
    for (status, is_well) in [(200, true), (299, true), (301, false), (418, true), (503, false)] {
        server.is(status);
        let found = probed(&probe, &server.address).await;
        assert_eq!(found.is_ok(), is_well, "{status}");
        assert!(is_well || is_denied(found), "{status}");
    }
    server.is(429);
    assert!(!is_denied(probed(&probe, &server.address).await), "it may pass");
}

#[tokio::test]
async fn headers_and_bodies_are_sent_and_looked_at() {
    let server = Server::start().await;
    let probe = || {
        HttpProbe::new("/healthz")
            .host("orders.internal")
            .method(::http::Method::OPTIONS)
            .header(header::AUTHORIZATION, HeaderValue::from_static("token"))
    };
    let name = ::http::HeaderName::from_static;
    let value = HeaderValue::from_static;
    let good = [
        probe().expect_header(name("saw-host"), value("orders.internal")),
        probe().expect_header(name("saw-token"), value("token")),
        probe().expect_header(name("saw-token"), None),
        probe().expect_body("OPTIONS all is"),
        probe().expect_body(""),
        probe().expect_body_with(|body| body.ends_with(b"well")),
        probe().max_body(7).expect_body_with(|body| body == b"OPTIONS"),
    ];
    for probe in good {
        probed(&probe, &server.address).await.unwrap();
    }
    let bad = [
        probe().expect_header(name("saw-host"), value("other")),
        probe().expect_header(name("missing"), None),
        probe().expect_body("ill"),
        probe().max_body(7).expect_body("well"),
    ];
    for probe in bad {
        assert!(is_denied(probed(&probe, &server.address).await), "{probe:?}");
    }
}

#[tokio::test]
async fn an_endpoint_that_does_not_answer_has_failed_and_not_denied() {
    let (listener, address) = listen().await;
    let probe = HttpProbe::new("/healthz");
    let closing = tokio::spawn(async move {
        let accepted = listener.accept().await.unwrap();
        drop((accepted, listener));
    });
    assert!(!is_denied(probed(&probe, &address).await), "closed without an answer");
    closing.await.unwrap();
    assert!(!is_denied(probed(&probe, &address).await), "refused");
    assert!(!is_denied(probed(&TcpProbe::new(), &address).await), "refused");
    assert!(!is_denied(probed(&GrpcProbe::new(), &address).await), "refused");
}

#[tokio::test]
async fn each_probe_has_a_connection_of_its_own_unless_it_is_kept() {
    let server = Server::start().await;
    let node = node_at(&server.address);
    for (are_kept, connections) in [(false, 10), (true, 1)] {
        let before = server.connections.load(SeqCst);
        let probe = HttpProbe::new("/healthz").keep_connections(are_kept);
        for _ in 0..10 {
            within(probe.probe(&node)).await.unwrap();
        }
        assert_eq!(server.connections.load(SeqCst) - before, connections, "{are_kept}");
    }
}

#[tokio::test]
async fn a_kept_connection_that_hangs_is_not_used_twice() {
    for http2 in [false, true] {
        let server = Server::start().await;
        let connector = HttpConnector::<Payload>::new();
        let connector = if http2 { connector.http2() } else { connector };
        let probe = HttpProbe::new("/healthz").connector(&connector).keep_connections(true);
        let node = node_at(&server.address);
        within(probe.probe(&node)).await.unwrap();
        server.is(0);
        assert!(tokio::time::timeout(ms(50), probe.probe(&node)).await.is_err());
        server.is(200);
        within(probe.probe(&node)).await.unwrap();
        within(probe.probe(&node)).await.unwrap();
        assert_eq!(server.connections.load(SeqCst), 2, "{http2}");
    }
}

#[tokio::test]
async fn another_port_may_be_asked() {
    let (health, (_listener, other)) = (Server::start().await, listen().await);
    let port = health.address.port().unwrap();
    probed(&HttpProbe::new("/healthz").port(port), &other).await.unwrap();
    probed(&TcpProbe::new().port(port), &other).await.unwrap();
    assert_eq!(health.probes.load(SeqCst), 1);
}

#[tokio::test]
async fn requests_keep_away_from_an_endpoint_from_its_first_503_to_its_second_200() {
    let (ill, well) = (Server::start().await, Server::start().await);
    let (client, results) = balanced(&[&ill, &well], |layer| layer);
    until("both are probed", || 0 < ill.probes.load(SeqCst) * well.probes.load(SeqCst)).await;

    ill.is(503);
    until("the gate closes", || results.of(&ill.address) == Standing::Down).await;
    let before = ill.requests.load(SeqCst);
    for _ in 0..20 {
        assert_eq!(client().await, well.address);
    }
    assert_eq!(ill.requests.load(SeqCst), before);

    ill.is(200);
    until("the gate opens", || results.of(&ill.address) == Standing::Up).await;
    let served: Vec<_> = [client().await, client().await].into();
    assert!(served.contains(&ill.address));
}

#[tokio::test]
#[allow(clippy::disallowed_methods, reason = "a test over sockets measures real time")]
async fn an_endpoint_that_hangs_is_closed_after_three_lost_answers() {
    let (hangs, well) = (Server::start().await, Server::start().await);
    let (client, results) = balanced(&[&hangs, &well], |layer| {
        layer.interval(ms(200)).interval_edge(ms(50)).timeout(ms(150)).fall(3)
    });
    until("it is probed", || results.of(&hangs.address) == Standing::Up).await;

    hangs.is(0);
    let (before, began) = (hangs.probes.load(SeqCst), Instant::now());
    until("the gate closes", || results.of(&hangs.address) == Standing::Down).await;

    // Tests with a paused clock bound how long this takes; here the machine may be busy.
    let took = began.elapsed();
    assert!(hangs.probes.load(SeqCst) - before <= 3, "three lost answers are enough");
    assert!(ms(150 + 2 * 150) < took, "one lost answer closes nothing: {took:?}");
    assert_eq!(client().await, well.address);
}

#[tokio::test]
async fn before_the_first_probe_has_passed_there_is_no_request() {
    let (ill, well) = (Server::start().await, Server::start().await);
    ill.is(503);
    let (client, results) = balanced(&[&ill, &well], |layer| layer.closed_at_first(true));

    assert_eq!(client().await, well.address);

    assert!(0 < well.probes.load(SeqCst));
    assert_eq!(results.of(&well.address), Standing::Up);
    assert_eq!(ill.requests.load(SeqCst), 0);
}

/// Asks once, and returns which server answered.
type Ask = Box<dyn Fn() -> std::pin::Pin<Box<dyn Future<Output = Address>>>>;

fn balanced(
    servers: &[&Server],
    set: impl Fn(ActiveHealthLayer<HttpProbe>) -> ActiveHealthLayer<HttpProbe>,
) -> (Ask, Results) {
    let endpoints: Vec<_> =
        servers.iter().map(|server| Endpoint::new(server.address.clone())).collect();
    let health = ActiveHealthLayer::new(HttpProbe::new("/healthz"));
    let health = set(health.interval(ms(30)).interval_edge(ms(10)));
    let results = health.results();
    let client = ServiceBuilder::new()
        .layer(BalanceLayer::round_robin(endpoints))
        .layer(health)
        .service(HttpConnector::<Payload>::new());
    // It runs from the first request on.
    let first = client.clone();
    tokio::spawn(async move { _ = first.oneshot(get("/")).await });
    let ask: Ask = Box::new(move || {
        let client = client.clone();
        Box::pin(async move {
            let response = within(client.oneshot(get("/"))).await.unwrap();
            response.extensions().get::<ServedBy>().unwrap().address().clone()
        })
    });
    (ask, results)
}

/// gRPC's health service as tonic serves it.
#[derive(Clone)]
struct GrpcServer {
    address: Address,
    status: Arc<watch::Sender<i32>>,
    has_watch: bool,
    calls: Arc<Mutex<Vec<String>>>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

const SERVING: i32 = 1;
const NOT_SERVING: i32 = 2;
/// Not a serving status: the method fails with it as a code.
const UNIMPLEMENTED: i32 = -12;
const UNAVAILABLE: i32 = -14;
/// Ends the streams of `Watch`.
const HANG_UP: i32 = 99;

impl GrpcServer {
    async fn start(status: i32, has_watch: bool) -> Self {
        let (sender, _) = watch::channel(status);
        let server = Arc::new(Mutex::new(None::<Self>));
        let known = server.clone();
        let address = serve(move |request| {
            let server = known.lock().unwrap().clone().expect("started");
            async move { server.answer(request).await }
        })
        .await;
        let status = Arc::new(sender);
        let started = Self { address, status, has_watch, calls: Arc::default() };
        *server.lock().unwrap() = Some(started.clone());
        started
    }

    fn is(&self, status: i32) {
        self.status.send_replace(status);
    }

    fn calls(&self, method: &str) -> usize {
        let calls = self.calls.lock().unwrap();
        calls.iter().filter(|path| path.ends_with(method)).count()
    }

    async fn answer(self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        assert_eq!(request.headers()[header::TE], "trailers");
        self.calls.lock().unwrap().push(path.clone());
        let mut server = tonic::server::Grpc::new(ProstCodec::default());
        match &*path {
            "/grpc.health.v1.Health/Check" => {
                let check = move |request| std::future::ready(self.check(&request));
                server.unary(service_fn(check), request).await
            }
            "/grpc.health.v1.Health/Watch" if self.has_watch => {
                let watch = move |_: tonic::Request<HealthRequest>| {
                    let statuses = WatchStream::new(self.status.subscribe())
                        .take_while(|status| std::future::ready(*status != HANG_UP))
                        .map(|status| Ok::<_, Status>(HealthResponse { status }));
                    std::future::ready(Ok(tonic::Response::new(statuses)))
                };
                server.server_streaming(service_fn(watch), request).await
            }
            _ => Status::unimplemented("no such method").into_http(),
        }
    }

    fn check(
        &self,
        request: &tonic::Request<HealthRequest>,
    ) -> Result<tonic::Response<HealthResponse>, Status> {
        match &*request.get_ref().service {
            "" | "orders.v1.Orders" => match *self.status.borrow() {
                code @ ..0 => Err(Status::new(tonic::Code::from(-code), "as you wish")),
                status => Ok(tonic::Response::new(HealthResponse { status })),
            },
            _ => Err(Status::not_found("unknown service")),
        }
    }
}

#[tokio::test]
async fn a_check_says_what_the_service_says_of_itself() {
    let server = GrpcServer::start(SERVING, false).await;
    let probe = GrpcProbe::new();
    let orders = GrpcProbe::new().service("orders.v1.Orders");
    probed(&probe, &server.address).await.unwrap();
    probed(&orders, &server.address).await.unwrap();
    let other = GrpcProbe::new().service("other");
    assert!(is_denied(probed(&other, &server.address).await), "NOT_FOUND");

    for status in [NOT_SERVING, 0, 3, 77] {
        server.is(status);
        assert!(is_denied(probed(&orders, &server.address).await), "{status}");
    }
    server.is(UNIMPLEMENTED);
    probed(&probe, &server.address).await.unwrap();
    server.is(UNAVAILABLE);
    assert!(!is_denied(probed(&probe, &server.address).await), "it may pass");
}

#[tokio::test]
async fn a_server_without_a_health_service_is_healthy_and_one_without_grpc_is_not() {
    let without = serve(|_| async { Status::unimplemented("").into_http::<Body>() }).await;
    probed(&GrpcProbe::new(), &without).await.unwrap();
    let web = Server::start().await;
    assert!(!is_denied(probed(&GrpcProbe::new(), &web.address).await));
}

#[tokio::test]
async fn a_watched_endpoint_is_closed_and_opened_when_it_says_so() {
    let server = GrpcServer::start(SERVING, true).await;
    // Probes are a minute apart, so only the messages of the stream have an effect here.
    let results = follows(&server, ms(60_000));
    until("it is followed", || server.calls("Watch") == 1).await;
    until("it was probed", || results.of(&server.address) == Standing::Up).await;

    for _ in 0..3 {
        server.is(NOT_SERVING);
        until("the gate closes", || results.of(&server.address) == Standing::Down).await;
        server.is(SERVING);
        until("the gate opens", || results.of(&server.address) == Standing::Up).await;
    }

    assert_eq!((server.calls("Check"), server.calls("Watch")), (1, 1));
}

#[tokio::test]
async fn a_watch_that_breaks_is_begun_again_and_causes_a_check() {
    let server = GrpcServer::start(SERVING, true).await;
    let results = follows(&server, ms(60_000));
    until("it is followed", || server.calls("Watch") == 1).await;
    let before = server.calls("Check");

    server.is(HANG_UP);
    until("it is checked at once", || before < server.calls("Check")).await;
    // It answers that check with an unhealthy status.
    until("the gate closes", || results.of(&server.address) == Standing::Down).await;
    assert_eq!(server.calls("Watch"), 1, "not without a pause");
}

#[tokio::test]
async fn where_there_is_no_watch_there_are_checks() {
    let server = GrpcServer::start(SERVING, false).await;
    let results = follows(&server, ms(20));
    until("it is checked", || 5 < server.calls("Check")).await;
    assert!(server.calls("Watch") < server.calls("Check"), "it is not asked again soon");

    server.is(NOT_SERVING);
    until("the gate closes", || results.of(&server.address) == Standing::Down).await;
    server.is(UNIMPLEMENTED);
    until("the gate opens", || results.of(&server.address) == Standing::Up).await;
}

/// A balancer over one endpoint that is followed, for as long as the test runs.
fn follows(server: &GrpcServer, interval: Duration) -> Results {
    let probe = GrpcProbe::new().service("orders.v1.Orders").watch();
    let health = ActiveHealthLayer::new(probe).interval(interval).interval_edge(ms(20));
    let results = health.results();
    let endpoints = vec![Endpoint::new(server.address.clone())];
    let connect = health.layer(HttpConnector::<Payload>::new());
    let mut client = BalanceLayer::p2c(endpoints).layer(connect);
    tokio::spawn(async move {
        _ = client.ready().await;
        std::future::pending::<()>().await;
    });
    results
}
