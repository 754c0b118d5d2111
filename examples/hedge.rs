//! Hedging: if an endpoint is slow now and then, a second attempt at another endpoint answers
//! first.

use std::{
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::{Duration, Instant},
};

use axum::{Router, routing::get};
use bytes::Bytes;
use evenkeel::{
    balance::BalanceLayer,
    core::retry::Budget,
    discovery::Fixed,
    hedge::HedgeLayer,
    http::{HttpConnector, HttpRetry},
};
use http::Request;
use http_body_util::Empty;
use tower::{Service, ServiceBuilder, ServiceExt};

mod common;

const HICCUP: Duration = Duration::from_secs(2);

/// Every tenth answer takes two seconds.
async fn hiccups() -> &'static str {
    static ASKED: AtomicU32 = AtomicU32::new(0);
    if ASKED.fetch_add(1, Relaxed) % 10 == 9 {
        tokio::time::sleep(HICCUP).await;
    }
    "done"
}

#[tokio::main]
async fn main() -> Result<(), common::BoxError> {
    let router = || Router::new().route("/", get(hiccups));
    let servers = [common::serve(router()).await?, common::serve(router()).await?];

    let layer =
        HedgeLayer::after(Duration::from_millis(50), Budget::share(20.0)).rules(HttpRetry::new());
    let mut client = ServiceBuilder::new()
        .layer(&layer)
        .layer(BalanceLayer::round_robin(Fixed::new(servers)))
        .service(HttpConnector::new());

    let mut slowest = Duration::ZERO;
    for _ in 0..40 {
        #[allow(clippy::disallowed_methods, reason = "an example may look at its watch")]
        let began = Instant::now();
        let request = Request::get("/").body(Empty::<Bytes>::new())?;
        assert_eq!(client.ready().await?.call(request).await?.status(), 200);
        slowest = slowest.max(began.elapsed());
    }
    println!("the slowest of 40 took {slowest:?}; {:?}", client.counts());
    assert!(slowest < HICCUP);
    assert!(3 <= client.counts().won);
    Ok(())
}
