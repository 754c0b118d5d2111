//! A limit on both sides: an axum server that works on two requests at once and refuses the rest,
//! and a client that sends each endpoint only as many requests as it accepts.

use std::{
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    time::Duration,
};

use axum::{Router, routing::get};
use bytes::Bytes;
use evenkeel::{
    balance::BalanceLayer,
    concurrency::ConcurrencyLimitLayer,
    discovery::Fixed,
    http::{ErrorToResponseLayer, HttpConnector, HttpTraffic},
};
use futures_util::future::join_all;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use tower::{ServiceBuilder, ServiceExt};

mod common;

const AT_ONCE: u32 = 2;

async fn work() -> &'static str {
    static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);
    assert!(UNDER_WAY.fetch_add(1, SeqCst) < 2 * AT_ONCE as usize, "two servers, two each");
    tokio::time::sleep(Duration::from_millis(50)).await;
    UNDER_WAY.fetch_sub(1, SeqCst);
    "done"
}

fn server() -> Router {
    let limit = ServiceBuilder::new()
        .layer(ErrorToResponseLayer::new()) // a refusal becomes a 503
        .layer(ConcurrencyLimitLayer::fixed(AT_ONCE).traffic(HttpTraffic::new()).shared());
    Router::new().route("/work", get(work)).layer(limit)
}

#[tokio::main]
async fn main() -> Result<(), common::BoxError> {
    let servers = [common::serve(server()).await?, common::serve(server()).await?];
    let requests = |count| (0..count).map(|_| Request::get("/work").body(Empty::<Bytes>::new()));

    // Without a limit of its own, the client gets a 503 for the excess requests.
    let eager = ServiceBuilder::new()
        .layer(BalanceLayer::round_robin(Fixed::new(servers)))
        .service(HttpConnector::new());
    let calls =
        requests(12).map(|request| eager.clone().oneshot(request.expect("a valid request")));
    let responses = join_all(calls).await.into_iter().collect::<Result<Vec<_>, _>>()?;
    let refused = responses.iter().filter(|response| response.status() == 503).count();
    println!("without a limit {refused} of 12 are refused by the servers");
    assert_eq!(refused, 12 - 2 * AT_ONCE as usize);
    drop(responses);

    // With a limit, a full endpoint is skipped. If both are full, the request waits.
    let limit = ConcurrencyLimitLayer::fixed(AT_ONCE);
    let limits = limit.limits();
    let patient = ServiceBuilder::new()
        .layer(BalanceLayer::round_robin(Fixed::new(servers)))
        .layer(limit)
        .service(HttpConnector::new());
    let calls = requests(12).map(|request| {
        let call = patient.clone().oneshot(request.expect("a valid request"));
        async move {
            let response = call.await?;
            let status = response.status();
            response.into_body().collect().await?;
            Ok::<_, common::BoxError>(status)
        }
    });
    let statuses = join_all(calls).await.into_iter().collect::<Result<Vec<_>, _>>()?;
    println!("with a limit for each endpoint: {statuses:?}");
    assert!(statuses.iter().all(|status| *status == StatusCode::OK));
    assert!(limits.list().iter().all(|limit| limit.in_flight() == 0));
    Ok(())
}
