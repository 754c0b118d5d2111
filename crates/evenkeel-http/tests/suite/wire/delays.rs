//! The longest delay that a server may ask for.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use evenkeel_core::{
    BoxError,
    observe::{Observer, Report},
    outcome::Outcome,
};
use evenkeel_http::HeedQuotaLayer;
use evenkeel_layers::balance::BalanceLayer;
use http_body_util::BodyExt;
use tower::{Layer, service_fn};

use super::*;

#[derive(Default)]
struct Outcomes(Mutex<Vec<Outcome>>);

impl Observer for Outcomes {
    fn ended(&self, _: &Node, report: &Report) {
        self.0.lock().unwrap().push(report.outcome);
    }
}

/// The outcome of an attempt with this answer.
async fn outcome(connector: HttpConnector<Payload>, answer: &'static str) -> Outcome {
    let (address, _heads) = answering(answer).await;
    let client = BalanceLayer::round_robin(vec![address.into()]).layer(connector);
    let outcomes = Arc::new(Outcomes::default());
    let mut ready = client.clone();
    within(ready.ready()).await.unwrap();
    client.nodes()[0].observe(outcomes.clone());
    let request = Request::get("/").body(Payload::default()).unwrap();

    let response = within(ready.oneshot(request)).await.unwrap();

    let _ = within(response.into_body().collect()).await;
    let outcomes = outcomes.0.lock().unwrap();
    outcomes[0]
}

#[tokio::test]
async fn an_endpoint_that_asks_for_decades_is_believed_for_minutes() {
    for answer in [
        "HTTP/1.1 429 Too Many\r\nRetry-After: 999999999\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 429 Too Many\r\nRetry-After: 9999999999\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\
         grpc-status: 8\r\ngrpc-retry-pushback-ms: 2147483647\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n\
         0\r\ngrpc-status: 8\r\ngrpc-retry-pushback-ms: 2147483647\r\n\r\n",
    ] {
        let believed = outcome(HttpConnector::new(), answer).await;
        assert_eq!(believed, Outcome::Throttled(Some(Duration::from_secs(300))), "{answer}");

        let connector = HttpConnector::new().max_throttle(Duration::from_secs(2));
        let believed = outcome(connector, answer).await;
        assert_eq!(believed, Outcome::Throttled(Some(Duration::from_secs(2))), "{answer}");
    }
}

#[tokio::test]
async fn a_delay_that_is_a_date_long_past_is_none() {
    let answer = "HTTP/1.1 429 Too Many\r\nRetry-After: 1609844400\r\nContent-Length: 0\r\n\r\n";

    let believed = outcome(HttpConnector::new(), answer).await;

    assert_eq!(believed, Outcome::Throttled(Some(Duration::ZERO)));
}

#[tokio::test]
async fn a_quota_of_decades_is_told_for_minutes() {
    for (status, name, value, told) in [
        (429, "retry-after", "999999999", (0, 300)),
        (200, "ratelimit", "\"a\";r=0;t=86400", (0, 300)),
        (200, "ratelimit", "\"a\";r=120;t=3600", (10, 300)),
        (200, "ratelimit", "\"a\";r=5;t=60", (5, 60)),
    ] {
        let quotas = Arc::new(Mutex::new(Vec::new()));
        let kept = quotas.clone();
        let layer = HeedQuotaLayer::new(move |quota: evenkeel_http::ServerQuota| {
            kept.lock().unwrap().push((quota.remaining, quota.reset.as_secs()));
        });
        let client = layer.layer(service_fn(|_: Request<()>| async {
            let response = Response::builder().status(status).header(name, value);
            Ok::<_, BoxError>(response.body(()).unwrap())
        }));

        client.oneshot(Request::new(())).await.unwrap();

        assert_eq!(*quotas.lock().unwrap(), [told], "{name}: {value}");
    }
}
