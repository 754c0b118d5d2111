//! A canary: one request in ten and all requests of a tester go to the new version, with a mirror
//! beside it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{Router, routing::get};
use bytes::Bytes;
use evenkeel::{
    balance::BalanceLayer,
    core::{
        endpoint::Endpoint,
        policy::{P2c, Split, split},
    },
    discovery::Fixed,
    http::{HttpConnector, HttpMirror, Subset},
    mirror::MirrorLayer,
};
use http::Request;
use http_body_util::Empty;
use tower::{Service, ServiceBuilder, ServiceExt};

mod common;

#[tokio::main]
async fn main() -> Result<(), common::BoxError> {
    let endpoints = [
        Endpoint::from(common::serve_text("old").await?),
        Endpoint::from(common::serve_text("old").await?),
        Endpoint::from(common::serve_text("new").await?).metadata("version", "2"),
    ];
    let policy = Split::new(P2c).subset("canary", 10, split::label("version", "2")).rest(90);

    // A third version gets a copy of every fourth request. No caller waits for it.
    let copies = Arc::new(AtomicU32::new(0));
    let counted = copies.clone();
    let count = move || async move { _ = counted.fetch_add(1, Relaxed) };
    let next = common::serve(Router::new().route("/", get(count))).await?;
    let mirror = ServiceBuilder::new()
        .layer(BalanceLayer::p2c(Fixed::new([next])))
        .service(HttpConnector::new());

    let mut client = ServiceBuilder::new()
        .layer(MirrorLayer::new(mirror, 25.0).rules(HttpMirror::new()))
        .layer(BalanceLayer::with_policy(Fixed::new(endpoints), policy))
        .service(HttpConnector::new());

    let mut to_canary = 0;
    for _ in 0..1_000 {
        let request = Request::get("/").body(Empty::<Bytes>::new())?;
        let response = client.ready().await?.call(request).await?;
        to_canary += u32::from(common::text(response).await? == "new");
    }
    println!("{to_canary} of 1000 requests went to the canary");
    assert!((60..140).contains(&to_canary));

    let mut request = Request::get("/").body(Empty::<Bytes>::new())?;
    request.extensions_mut().insert(Subset("canary".into()));
    let response = client.ready().await?.call(request).await?;
    assert_eq!(common::text(response).await?, "new", "a tester asks for it");

    tokio::time::sleep(Duration::from_millis(200)).await;
    let copies = copies.load(Relaxed);
    println!("{copies} copies went to the mirror");
    assert!((150..350).contains(&copies));
    Ok(())
}
