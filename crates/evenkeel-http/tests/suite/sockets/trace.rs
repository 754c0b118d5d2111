//! The context of a trace, as a server gets it (W3C Trace Context, and Baggage).

use std::sync::{Arc, Mutex};

use ::http::{HeaderMap, Request, Response, StatusCode};
use evenkeel_core::{
    endpoint::{Address, Endpoint},
    retry::Budget,
};
use evenkeel_http::{HttpConnector, HttpRetry};
use evenkeel_layers::{
    balance::BalanceLayer, observe::ObserveLayer, per_endpoint::PerEndpoint, retry::RetryLayer,
};
use hyper::body::Incoming;
use tower::{ServiceBuilder, ServiceExt, util::MapRequestLayer};
use tracing::Span;

use crate::sockets::support::{Payload, serve, within};

const CALLERS: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// A server that is not ready for the first request, and the trace headers of all requests.
async fn fails_once() -> (Address, Arc<Mutex<Vec<[String; 3]>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let heard = seen.clone();
    let answer = move |request: Request<Incoming>| {
        let value = |name| {
            let values =
                request.headers().get_all(name).iter().map(|value| value.to_str().unwrap());
            values.collect::<Vec<_>>().join(", ")
        };
        let mut seen = heard.lock().unwrap();
        seen.push(["traceparent", "tracestate", "baggage"].map(value));
        let mut response = Response::new(Payload::default());
        if seen.len() == 1 {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        std::future::ready(response)
    };
    (serve(answer).await, seen)
}

fn request() -> Request<Payload> {
    let request = Request::get("http://a.b/x").header("traceparent", CALLERS);
    let request = request.header("tracestate", "vendor=1").header("tracestate", "other=2");
    request.header("baggage", "user=7;ttl=1").body(Payload::default()).unwrap()
}

#[tokio::test]
async fn every_attempt_passes_on_what_the_caller_said() {
    for connector in [HttpConnector::new(), HttpConnector::new().http2()] {
        let (address, seen) = fails_once().await;
        let client = ServiceBuilder::new()
            .layer(RetryLayer::new(Budget::default()).rules(HttpRetry::new()))
            .layer(BalanceLayer::round_robin(vec![Endpoint::new(address)]))
            .layer(ObserveLayer::new())
            .service(connector);

        within(client.oneshot(request())).await.unwrap();

        let said = [CALLERS, "vendor=1, other=2", "user=7;ttl=1"];
        assert_eq!(*seen.lock().unwrap(), [said, said]);
    }
}

/// Writes the current span, as a propagator of OpenTelemetry does.
fn inject(headers: &mut HeaderMap) {
    let span = Span::current();
    assert_eq!(span.metadata().map(tracing::Metadata::name), Some("attempt"));
    let id = span.id().unwrap().into_u64();
    let context = format!("00-0af7651916cd43dd8448eb211c80319c-{id:016x}-01");
    headers.insert("traceparent", context.parse().unwrap());
}

#[tokio::test]
async fn each_attempt_may_tell_the_server_its_own_span() {
    // While one dispatcher is alone, the thread that meets a span first decides for all whether it is recorded.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry());
    let (address, seen) = fails_once().await;
    let client = ServiceBuilder::new()
        .layer(RetryLayer::new(Budget::default()).rules(HttpRetry::new()))
        .layer(BalanceLayer::round_robin(vec![Endpoint::new(address)]))
        .layer(ObserveLayer::new())
        .layer(PerEndpoint::new(MapRequestLayer::new(|mut request: Request<_>| {
            inject(request.headers_mut());
            request
        })))
        .service(HttpConnector::new());

    within(client.oneshot(request())).await.unwrap();

    let seen = seen.lock().unwrap();
    let [[first, ..], [second, ..]] = &seen[..] else { panic!("two attempts: {seen:?}") };
    assert_ne!(first, CALLERS);
    assert_ne!(first, second, "each has a span of its own");
    for [_, tracestate, baggage] in &*seen {
        assert_eq!([tracestate, baggage], ["vendor=1, other=2", "user=7;ttl=1"]);
    }
}
