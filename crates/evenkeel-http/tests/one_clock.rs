//! Compares timestamps of the HTTP crate with those of the layers. A separate process: clocks begin once.

// clippy knows test functions, but not the functions that they share.
#![allow(clippy::unwrap_used, dead_code)]

#[path = "suite/sockets/support.rs"]
mod support;

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use ::http::{Request, Response};
use evenkeel_core::{BoxError, endpoint::Endpoint, policy::ClientSideWeighted};
use evenkeel_http::{HttpConnector, LoadMeter, OrcaLayer, ReportLoadLayer};
use evenkeel_layers::{balance::BalanceLayer, deadline::DeadlineLayer};
use http_body_util::Full;
use hyper::body::Incoming;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

use self::support::{Payload, get, serve, text, within};

/// A server that reports this utilization, and how often it was called.
async fn server(utilization: f64) -> (Endpoint, Arc<AtomicUsize>) {
    let (meter, calls) = (LoadMeter::new(), Arc::new(AtomicUsize::new(0)));
    meter.application_utilization(utilization);
    let count = calls.clone();
    let stack = ReportLoadLayer::new(meter).layer(service_fn(move |_: Request<Incoming>| {
        count.fetch_add(1, SeqCst);
        async { Ok::<_, Infallible>(Response::new(Full::from("hello"))) }
    }));
    let address = serve(move |request| {
        let answer = stack.clone().oneshot(request);
        async move { answer.await.unwrap() }
    })
    .await;
    (Endpoint::new(address), calls)
}

#[tokio::test]
async fn reports_count_though_the_layers_have_read_their_clock_ten_minutes_before_http() {
    tokio::time::pause();
    let early = service_fn(|()| async { Ok::<_, BoxError>(()) });
    DeadlineLayer::new(Duration::from_secs(1)).layer(early).oneshot(()).await.unwrap();
    tokio::time::advance(Duration::from_secs(600)).await;
    tokio::time::resume();

    let (idle, busy) = (server(0.2).await, server(0.6).await);
    // Reports count for three minutes.
    let policy = ClientSideWeighted::new()
        .blackout(Duration::ZERO)
        .update_interval(Duration::from_millis(100));
    let mut client = ServiceBuilder::new()
        .layer(BalanceLayer::with_policy(vec![idle.0, busy.0], policy).seed(1))
        .layer(OrcaLayer::new().interval(Duration::from_secs(1)))
        .service(HttpConnector::<Payload>::new());

    within(async {
        loop {
            let before = (idle.1.load(SeqCst), busy.1.load(SeqCst));
            for _ in 0..20 {
                text(client.ready().await.unwrap().call(get("/")).await.unwrap()).await;
            }
            let calls = (idle.1.load(SeqCst) - before.0, busy.1.load(SeqCst) - before.1);
            if 2 * calls.1 < calls.0 {
                return;
            }
            // Rates are measured over half a second.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}
