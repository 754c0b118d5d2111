//! An axum server that accepts ten requests at once per API key, and a client that follows its
//! rate-limit headers.
//!
//! `cargo run --example rate_limit`

use std::{net::SocketAddr, time::Duration};

use axum::{Router, routing::get};
use evenkeel::{
    balance::BalanceLayer,
    core::{
        BoxError,
        endpoint::Endpoint,
        error::{RateLimited, cause},
        quota::Rate,
    },
    http::{
        DiscloseQuota, ErrorToResponseLayer, HeaderSpender, HeedQuotaLayer, HttpConnector,
        RateLimitHeadersLayer,
    },
    rate_limit::RateLimitLayer,
};
use http::{HeaderName, Request};
use http_body_util::Empty;
use tokio::net::TcpListener;
use tower::{ServiceBuilder, ServiceExt};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let address = serve().await?;

    // Each key has its own quota. The eleventh request of one key is refused.
    let client = ServiceBuilder::new()
        .layer(BalanceLayer::p2c(vec![Endpoint::new(address)]))
        .service(HttpConnector::new());
    for _ in 0..10 {
        assert_eq!(client.clone().oneshot(request("one")?).await?.status(), 200);
    }
    let refused = client.clone().oneshot(request("one")?).await?;
    println!("the eleventh: {} {:?}", refused.status(), refused.headers());
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()["retry-after"], "60");
    assert_eq!(client.oneshot(request("two")?).await?.status(), 200);

    // A client that reads the headers refuses the request itself, before the server does.
    let limit = RateLimitLayer::per_second(1_000);
    let limiter = limit.limiter();
    let polite = ServiceBuilder::new()
        .layer(limit)
        .layer(HeedQuotaLayer::new(move |quota| limiter.heed(quota.remaining, quota.reset)))
        .layer(BalanceLayer::p2c(vec![Endpoint::new(address)]))
        .service(HttpConnector::new());
    assert_eq!(polite.clone().oneshot(request("one")?).await?.status(), 429);
    let error = polite.oneshot(request("one")?).await.expect_err("the server said when");
    let limited = cause::<RateLimited>(error.as_ref()).expect("it was not sent");
    println!("a client that listens: {limited}");
    assert!(Duration::from_secs(50) < limited.retry_after);
    Ok(())
}

async fn serve() -> Result<SocketAddr, BoxError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    // One request per minute, ten at once. At most 100,000 keys are stored at a time.
    let limit = RateLimitLayer::new(Rate::per_minute(1).burst(10))
        .keyed(HeaderSpender::new(HeaderName::from_static("x-api-key")), 100_000)
        .disclose(DiscloseQuota);
    let layers = ServiceBuilder::new()
        .layer(RateLimitHeadersLayer::new())
        .layer(ErrorToResponseLayer::new())
        .layer(limit);
    let app = Router::new().route("/", get(|| async { "hello" })).layer(layers);
    tokio::spawn(async { axum::serve(listener, app).await });
    Ok(address)
}

fn request(key: &str) -> Result<Request<Empty<bytes::Bytes>>, BoxError> {
    Ok(Request::get("/").header("x-api-key", key).body(Empty::new())?)
}
