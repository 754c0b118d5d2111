//! Active health checks. A server that reports that it is not well gets no requests until it is
//! well again, and no caller sees an error. A custom command can be a probe, too.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{Router, http::StatusCode, routing::get};
use bytes::Bytes;
use evenkeel::{
    active_health::{ActiveHealthLayer, Results},
    balance::BalanceLayer,
    core::{endpoint::Address, health::check::Standing, node::Node},
    discovery::Fixed,
    http::{HttpConnector, HttpProbe},
};
use http::Request;
use http_body_util::{BodyExt, Empty};
use tokio::process::Command;
use tower::{Service, ServiceBuilder, ServiceExt};

mod common;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), common::BoxError> {
    let (health, healthy) = (Arc::new(AtomicU16::new(200)), Arc::new(AtomicU16::new(200)));
    let (one, two) = (serve("one", health.clone()).await?, serve("two", healthy).await?);

    let checks = ActiveHealthLayer::new(HttpProbe::new("/healthz").expect_status(200..=299))
        .interval(Duration::from_millis(100)) // 2 s by default
        .interval_edge(Duration::from_millis(20))
        .timeout(Duration::from_millis(500))
        .closed_at_first(true); // no endpoint gets a request before its first probe has passed
    let results = checks.results();
    let mut client = ServiceBuilder::new()
        .layer(BalanceLayer::round_robin(Fixed::new([one, two])))
        .layer(checks)
        .service(HttpConnector::new());
    let mut ask = async || -> Result<String, common::BoxError> {
        let request = Request::get("/").body(Empty::<Bytes>::new())?;
        let response = client.ready().await?.call(request).await?;
        Ok(String::from_utf8(response.into_body().collect().await?.to_bytes().to_vec())?)
    };
    ask().await?;

    health.store(503, SeqCst);
    wait_for(&results, &one.into(), Standing::Down).await;
    for _ in 0..10 {
        assert_eq!(ask().await?, "two");
    }
    println!("one answers its health checks with 503: two serves alone");

    health.store(200, SeqCst);
    wait_for(&results, &one.into(), Standing::Up).await;
    let mut served = [ask().await?, ask().await?];
    served.sort();
    assert_eq!(served, ["one", "two"]);
    println!("one is well again: both serve");

    by_command(one.into()).await
}

/// Any async closure is a probe. This one runs a command with the address, and the command fails.
async fn by_command(address: Address) -> Result<(), common::BoxError> {
    let probe = async |node: Arc<Node>| {
        let status = Command::new("false").arg(node.address().to_string()).status().await?;
        if status.success() { Ok(()) } else { Err(common::BoxError::from(status.to_string())) }
    };
    let checks = ActiveHealthLayer::new(probe);
    let results = checks.results();
    let client = ServiceBuilder::new()
        .layer(BalanceLayer::p2c(vec![address.clone().into()]))
        .layer(checks)
        .service(HttpConnector::new());
    let request = Request::get("/").body(Empty::<Bytes>::new())?;
    client.clone().oneshot(request).await?;

    wait_for(&results, &address, Standing::Down).await;
    println!("the command fails: the endpoint is closed");
    Ok(())
}

async fn serve(
    name: &'static str,
    health: Arc<AtomicU16>,
) -> Result<std::net::SocketAddr, common::BoxError> {
    let healthz =
        get(move || async move { StatusCode::from_u16(health.load(SeqCst)).expect("a status") });
    common::serve(
        Router::new().route("/healthz", healthz).fallback(get(move || async move { name })),
    )
    .await
}

async fn wait_for(results: &Results, address: &Address, standing: Standing) {
    while results.of(address) != standing {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
