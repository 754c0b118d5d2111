//! Trials of endpoints that recover: judged by the head of the response, for a body of any length.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use evenkeel_core::{BoxError, connect::Connect, endpoint::Endpoint, node::Node, traffic::Traffic};
use evenkeel_http::HttpTraffic;
use evenkeel_layers::{balance::BalanceLayer, breaker::CircuitBreakerLayer, outlier::OutlierLayer};
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Bytes, Frame};
use tower::{Layer, Service, ServiceExt, service_fn, util::BoxCloneSyncService};

type Payload = UnsyncBoxBody<Bytes, BoxError>;

/// Endpoints in this process, over HTTP without sockets, and how often each was called. The first fails while it is
/// unhealthy. `/stream` has a head and no end.
#[derive(Clone, Default)]
struct Servers(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    calls: HashMap<String, u32>,
    is_ill: bool,
}

impl Servers {
    fn set_ill(&self, is_ill: bool) {
        self.0.lock().unwrap().is_ill = is_ill;
    }

    fn calls(&self) -> u32 {
        self.0.lock().unwrap().calls.get("10.0.0.1:1").copied().unwrap_or_default()
    }

    fn answer(&self, address: &str, request: &Request<()>) -> Response<Payload> {
        let mut state = self.0.lock().unwrap();
        *state.calls.entry(address.into()).or_default() += 1;
        let is_failing = address == "10.0.0.1:1" && state.is_ill;
        let body: Payload = match request.uri().path() {
            "/stream" => {
                let frames = futures_util::stream::pending::<Result<Frame<Bytes>, BoxError>>();
                StreamBody::new(frames).boxed_unsync()
            }
            _ => Full::<Bytes>::from("hello").map_err(|never| match never {}).boxed_unsync(),
        };
        Response::builder()
            .status(if is_failing { 500 } else { 200 })
            .header("content-type", request.headers().get("content-type").unwrap())
            .body(body)
            .unwrap()
    }
}

impl Connect for Servers {
    type Service = BoxCloneSyncService<Request<()>, Response<Payload>, BoxError>;
    type Traffic = HttpTraffic;

    fn connect(&self, node: &Arc<Node>) -> Self::Service {
        let (servers, address) = (self.clone(), node.address().to_string());
        BoxCloneSyncService::new(service_fn(
            move |request| -> BoxFuture<'static, Result<Response<Payload>, BoxError>> {
                let (servers, address) = (servers.clone(), address.clone());
                Box::pin(async move {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    Ok(servers.answer(&address, &request))
                })
            },
        ))
    }

    fn traffic(&self) -> HttpTraffic {
        HttpTraffic::new()
    }
}

fn endpoints() -> Vec<Endpoint> {
    (1..6).map(|port| format!("10.0.0.1:{port}").parse().unwrap()).collect()
}

fn request(path: &str, content_type: &str) -> Request<()> {
    Request::get(path).header("content-type", content_type).body(()).unwrap()
}

/// The first endpoint becomes unhealthy and is left out for longer than that lasts. The call that then tries it is a
/// stream that is read forever. Returns how many of the next hundred short calls go there.
async fn calls_beside_a_trial<C>(servers: &Servers, connect: C, content_type: &str) -> u32
where
    C: Connect<Service = <Servers as Connect>::Service, Traffic = HttpTraffic>
        + Send
        + Sync
        + 'static,
    HttpTraffic: Traffic<Request<()>, Response<Payload>, BoxError>,
{
    let mut client = BalanceLayer::round_robin(endpoints()).layer(connect);
    servers.set_ill(true);
    while servers.calls() == 0 {
        client.ready().await.unwrap().call(request("/", content_type)).await.unwrap();
    }
    servers.set_ill(false);
    tokio::time::sleep(Duration::from_secs(40)).await;

    let mut streams = Vec::new();
    while servers.calls() == 1 {
        let stream = request("/stream", content_type);
        streams.push(client.ready().await.unwrap().call(stream).await.unwrap());
    }
    for _ in 0..100 {
        client.ready().await.unwrap().call(request("/", content_type)).await.unwrap();
    }
    assert!(!streams.is_empty(), "they are still there");
    servers.calls() - 2
}

#[tokio::test(start_paused = true)]
async fn a_trial_that_goes_on_as_a_stream_keeps_no_other_call_out() {
    for content_type in ["text/plain", "application/grpc"] {
        let servers = Servers::default();
        let outlier = OutlierLayer::new().consecutive_errors(1).seed(1).layer(servers.clone());
        let calls = calls_beside_a_trial(&servers, outlier, content_type).await;
        assert!(15 <= calls, "ejected, {content_type}: {calls}");

        let servers = Servers::default();
        let breaker = CircuitBreakerLayer::new().consecutive_failures(1).seed(1);
        let calls = calls_beside_a_trial(&servers, breaker.layer(servers.clone()), content_type);
        let calls = calls.await;
        assert!(15 <= calls, "behind a breaker, {content_type}: {calls}");
    }
}
