//! The load that servers report, and how clients use it.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use ::http::{Request, Response, StatusCode};
use evenkeel_core::{
    connect::Connect,
    endpoint::{Address, Endpoint},
    load::ServerLoad,
    node::Node,
    policy::Prequal,
    probe::LoadProbe,
};
use evenkeel_http::{
    GrpcLoadProbe, HttpConnector, HttpLoadProbe, LoadMeter, ReportForm, ReportLoadBody,
    ReportLoadLayer,
};
use evenkeel_layers::balance::BalanceLayer;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use tokio::sync::Semaphore;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

use crate::sockets::support::{Payload, get, serve, text, within};

const MINUTE: Duration = Duration::from_secs(60);

type Answer = Response<ReportLoadBody<Payload>>;

/// A server that holds its requests until the doors are open.
#[derive(Clone)]
struct Server {
    meter: LoadMeter,
    doors: Arc<Semaphore>,
    calls: Arc<AtomicUsize>,
    is_failing: Arc<AtomicBool>,
}

impl Server {
    fn new() -> Self {
        Self {
            meter: LoadMeter::new(),
            doors: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            calls: Arc::default(),
            is_failing: Arc::default(),
        }
    }

    async fn start(&self, layer: impl Fn(LoadMeter) -> ReportLoadLayer) -> Address {
        let server = self.clone();
        let stack = layer(self.meter.clone()).layer(service_fn(move |_: Request<Incoming>| {
            let server = server.clone();
            async move {
                server.calls.fetch_add(1, SeqCst);
                _ = server.doors.acquire().await.unwrap();
                let mut response = Response::new(Full::from("hello"));
                if server.is_failing.load(SeqCst) {
                    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                }
                Ok::<_, Infallible>(response)
            }
        }));
        serve(move |request| {
            let answer = stack.clone().oneshot(request);
            async move { answer.await.unwrap() }
        })
        .await
    }

    fn close_doors(&self) {
        self.doors.forget_permits(Semaphore::MAX_PERMITS);
    }

    fn open_doors(&self) {
        self.doors.add_permits(1_000);
    }

    /// Waits until this number of requests is in flight.
    async fn has(&self, in_flight: u32) {
        within(async {
            while self.meter.in_flight() != in_flight {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

fn alone(address: &Address) -> Arc<Node> {
    Arc::new(Node::new(Endpoint::new(address.clone())))
}

async fn probed(probe: &impl LoadProbe, address: &Address) -> ServerLoad {
    within(probe.probe(&alone(address))).await.unwrap()
}

#[tokio::test]
async fn probes_learn_how_many_requests_are_in_flight_and_are_none_themselves() {
    let server = Server::new();
    let address = server.start(ReportLoadLayer::new).await;
    server.close_doors();
    let service = HttpConnector::<Payload>::new().connect(&alone(&address));
    let waiting: Vec<_> = (0..3).map(|_| tokio::spawn(service.clone().oneshot(get("/")))).collect();
    server.has(3).await;

    let (http, grpc) = (HttpLoadProbe::new(), GrpcLoadProbe::new());
    for _ in 0..3 {
        assert_eq!(probed(&http, &address).await.in_flight(), 3.0);
        assert_eq!(probed(&grpc, &address).await.in_flight(), 3.0);
    }
    assert_eq!(server.calls.load(SeqCst), 3, "no probe came through");

    server.open_doors();
    for answer in waiting {
        assert_eq!(text(answer.await.unwrap().unwrap()).await, "hello");
    }
    server.has(0).await;
    assert!(Duration::ZERO < probed(&http, &address).await.latency());
}

#[tokio::test]
async fn a_cancelled_request_leaves_no_trace() {
    let server = Server::new();
    let address = server.start(ReportLoadLayer::new).await;
    server.close_doors();
    let service = HttpConnector::<Payload>::new().connect(&alone(&address));
    let waiting = tokio::spawn(service.oneshot(get("/")));
    server.has(1).await;

    waiting.abort();
    server.has(0).await;

    let load = probed(&HttpLoadProbe::new(), &address).await;
    assert_eq!(load, ServerLoad::new(0.0, Duration::ZERO));
    assert_eq!(server.meter.report().requests_per_second, 0.0);
}

#[tokio::test]
async fn a_request_that_fails_gives_no_latency() {
    let server = Server::new();
    let address = server.start(ReportLoadLayer::new).await;
    server.is_failing.store(true, SeqCst);
    let service = HttpConnector::<Payload>::new().connect(&alone(&address));
    for _ in 0..10 {
        text(within(service.clone().oneshot(get("/"))).await.unwrap()).await;
    }
    server.has(0).await;
    assert_eq!(server.meter.load().latency(), Duration::ZERO, "it must not look quick");
}

#[tokio::test]
async fn the_answer_of_a_server_may_depend_on_the_path_and_headers_of_the_probe() {
    let server = Server::new();
    let layer = |meter| {
        ReportLoadLayer::new(meter).path("/load").answer_with(|uri, headers, load| {
            let is_cached = uri.query() == Some("key=a") && headers.contains_key("x-sync");
            let share = if is_cached { 0.1 } else { 1.0 };
            ServerLoad::new(f64::from(load.in_flight() + 10.0) * share, load.latency())
        })
    };
    let address = server.start(layer).await;
    let probe = |path: &str| {
        HttpLoadProbe::new().path(path).header("x-sync".parse().unwrap(), "1".parse().unwrap())
    };
    assert_eq!(probed(&probe("/load?key=a"), &address).await.in_flight(), 1.0);
    assert_eq!(probed(&probe("/load?key=b"), &address).await.in_flight(), 10.0);
}

#[tokio::test]
async fn a_server_that_does_not_report_its_load_is_an_error() {
    let address = serve(|_| async { Response::new(Full::from("hello")) }).await;
    let node = alone(&address);
    within(HttpLoadProbe::new().probe(&node)).await.unwrap_err();
    within(GrpcLoadProbe::new().probe(&node)).await.unwrap_err();
}

#[tokio::test]
async fn a_client_with_prequal_leaves_a_server_that_is_full_before_its_own_requests_suffer() {
    let (full, free) = (Server::new(), Server::new());
    let probes = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
    let counting = |probes: &Arc<AtomicUsize>| {
        let probes = probes.clone();
        move |meter| {
            let probes = probes.clone();
            ReportLoadLayer::new(meter).answer_with(move |_, _, load| {
                probes.fetch_add(1, SeqCst);
                load
            })
        }
    };
    let addresses =
        [full.start(counting(&probes[0])).await, free.start(counting(&probes[1])).await];
    full.close_doors();
    // Requests of another client.
    let others = HttpConnector::<Payload>::new().connect(&alone(&addresses[0]));
    for _ in 0..20 {
        tokio::spawn(others.clone().oneshot(get("/")));
    }
    full.has(20).await;

    let endpoints: Vec<_> = addresses.into_iter().map(Endpoint::new).collect();
    let mut client = ServiceBuilder::new()
        .layer(
            // A busy machine is no reason to forget what a server said.
            BalanceLayer::with_policy(endpoints, Prequal::default().max_age(MINUTE))
                .probe(HttpLoadProbe::new())
                .probe_timeout(MINUTE)
                .seed(1),
        )
        .service(HttpConnector::<Payload>::new());
    client.ready().await.unwrap();
    // A server that is asked again has answered before.
    within(async {
        while probes.iter().any(|probes| probes.load(SeqCst) < 3) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    for _ in 0..50 {
        let answer = within(client.ready().await.unwrap().call(get("/"))).await.unwrap();
        assert_eq!(text(answer).await, "hello");
    }
    assert_eq!(full.calls.load(SeqCst), 20);
}

#[tokio::test]
async fn reports_ride_on_responses_and_say_what_the_application_says() {
    let server = Server::new();
    server.meter.application_utilization(0.5);
    server.meter.metric("queue", 3.0);
    let address = server.start(|meter| ReportLoadLayer::new(meter).report(ReportForm::Text)).await;
    let service = HttpConnector::<Payload>::new().connect(&alone(&address));
    let response = within(service.oneshot(get("/"))).await.unwrap();
    let header = response.headers()["endpoint-load-metrics"].to_str().unwrap();
    let report = ReportForm::Text.read(header.strip_prefix("TEXT ").unwrap().as_bytes()).unwrap();
    assert_eq!((report.application_utilization, report.named_metrics["queue"]), (0.5, 3.0));
    assert_eq!(report.server_load.unwrap().in_flight(), 1.0);
}

/// A body as long as its frames.
async fn whole(answer: Answer) -> Bytes {
    answer.into_body().collect().await.unwrap().to_bytes()
}

#[tokio::test]
async fn a_probe_over_http_is_answered_with_plain_text() {
    let stack =
        ReportLoadLayer::new(LoadMeter::new()).layer(service_fn(|_: Request<Payload>| async {
            Ok::<_, Infallible>(Response::new(Payload::default()))
        }));
    let answer = stack.oneshot(get(evenkeel_http::PROBE_PATH)).await.unwrap();
    assert_eq!(answer.headers()["cache-control"], "no-store");
    let body = whole(answer).await;
    assert!(body.starts_with(b"TEXT named_metrics.evenkeel.in_flight=0,"), "{body:?}");
}

#[cfg(feature = "orca")]
mod orca {
    use evenkeel_core::policy::ClientSideWeighted;
    use evenkeel_http::OrcaLayer;

    use super::*;

    fn weighted(endpoints: Vec<Endpoint>) -> BalanceLayer {
        let policy = ClientSideWeighted::new()
            .blackout(Duration::ZERO)
            .update_interval(Duration::from_millis(100));
        BalanceLayer::with_policy(endpoints, policy).seed(1)
    }

    /// Two servers. The same requests load one of them three times as much.
    async fn two(layer: impl Fn(LoadMeter) -> ReportLoadLayer) -> ([Server; 2], Vec<Endpoint>) {
        let servers = [Server::new(), Server::new()];
        let mut endpoints = Vec::new();
        for (server, utilization) in servers.iter().zip([0.2, 0.6]) {
            server.meter.application_utilization(utilization);
            endpoints.push(Endpoint::new(server.start(&layer).await));
        }
        (servers, endpoints)
    }

    fn calls(servers: &[Server; 2]) -> [usize; 2] {
        [servers[0].calls.load(SeqCst), servers[1].calls.load(SeqCst)]
    }

    /// Sends requests until the server that is less loaded gets more than twice as many.
    async fn settles<S, R>(client: &mut S, servers: &[Server; 2])
    where
        S: Service<Request<Payload>, Response = Response<R>, Error: std::fmt::Debug>,
        R: hyper::body::Body<Error: std::fmt::Debug>,
    {
        within(async {
            loop {
                let before = calls(servers);
                for _ in 0..20 {
                    let ready = ServiceExt::ready(&mut *client).await.unwrap();
                    text(ready.call(get("/")).await.unwrap()).await;
                }
                let after = calls(servers);
                if 2 * (after[1] - before[1]) < after[0] - before[0] {
                    return;
                }
                // Rates are measured over half a second.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
    }

    #[tokio::test]
    async fn shares_follow_reports_on_responses_in_every_form() {
        for form in [ReportForm::Text, ReportForm::Json, ReportForm::Binary] {
            let (servers, endpoints) = two(|meter| ReportLoadLayer::new(meter).report(form)).await;
            let mut client = ServiceBuilder::new()
                .layer(weighted(endpoints))
                .service(HttpConnector::<Payload>::new().load_reports());
            settles(&mut client, &servers).await;
        }
    }

    #[tokio::test]
    async fn shares_follow_reports_out_of_band() {
        let (servers, endpoints) = two(ReportLoadLayer::new).await;
        let mut client = ServiceBuilder::new()
            .layer(weighted(endpoints))
            .layer(OrcaLayer::new().interval(Duration::from_secs(1)))
            .service(HttpConnector::<Payload>::new());
        settles(&mut client, &servers).await;
    }

    #[tokio::test]
    async fn a_server_that_reports_nothing_out_of_band_is_asked_once() {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let address = serve(move |request: Request<Incoming>| {
            let is_post = request.method() == ::http::Method::POST;
            count.fetch_add(usize::from(is_post), SeqCst);
            async move {
                let mut response = Response::new(Payload::default());
                if is_post {
                    response.headers_mut().insert("grpc-status", 12.into());
                }
                response
            }
        })
        .await;
        let mut client = ServiceBuilder::new()
            .layer(weighted(vec![Endpoint::new(address)]))
            .layer(OrcaLayer::new().interval(Duration::from_millis(10)))
            .service(HttpConnector::<Payload>::new());
        client.ready().await.unwrap();
        within(async {
            while asked.load(SeqCst) == 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        // Longer than the first delay before it would be asked again, and time to ask: a request there and back.
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(2)).await;
        tokio::time::resume();
        text(client.call(get("/")).await.unwrap()).await;
        assert_eq!(asked.load(SeqCst), 1);
    }

    #[tokio::test]
    async fn grpc_finds_reports_in_the_trailers() {
        let meter = LoadMeter::with_system();
        meter.cpu_utilization(0.25);
        let stack = ReportLoadLayer::new(meter.clone()).report(ReportForm::Binary).layer(
            service_fn(|_: Request<Payload>| async {
                let mut trailers = ::http::HeaderMap::new();
                trailers.insert("grpc-status", 13.into());
                let body = Full::from("message")
                    .with_trailers(async { Some(Ok::<_, Infallible>(trailers)) });
                let mut response = Response::new(body);
                let grpc = "application/grpc".parse().unwrap();
                response.headers_mut().insert("content-type", grpc);
                Ok::<_, Infallible>(response)
            }),
        );
        let answer = stack.oneshot(get("/greeter.Greeter/Greet")).await.unwrap();
        assert!(!answer.headers().contains_key("endpoint-load-metrics-bin"));
        assert_eq!(meter.in_flight(), 1);
        let trailers = answer.into_body().collect().await.unwrap().trailers().cloned().unwrap();

        assert_eq!(meter.in_flight(), 0);
        assert_eq!(trailers["grpc-status"], "13");
        assert!(trailers.contains_key("endpoint-load-metrics-bin"));
    }
}
