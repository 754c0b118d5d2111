//! Outlier ejection: one of three servers answers 500, and soon gets no more requests.

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
    balance::BalanceLayer, discovery::Fixed, http::HttpConnector, outlier::OutlierLayer,
};
use http::{Request, StatusCode};
use http_body_util::Empty;
use tower::{Service, ServiceBuilder, ServiceExt};

mod common;

#[tokio::main]
async fn main() -> Result<(), common::BoxError> {
    let asked = Arc::new(AtomicU32::new(0));
    let failing = {
        let asked = asked.clone();
        move || async move {
            asked.fetch_add(1, Relaxed);
            StatusCode::INTERNAL_SERVER_ERROR
        }
    };
    let servers = [
        common::serve_text("well").await?,
        common::serve(Router::new().route("/", get(failing))).await?,
        common::serve_text("well").await?,
    ];

    let layer = OutlierLayer::new()
        .consecutive_errors(3)
        .ejection_time(Duration::from_secs(30), Duration::from_secs(300));
    let ejected = layer.ejected();
    let mut client = ServiceBuilder::new()
        .layer(BalanceLayer::round_robin(Fixed::new(servers)))
        .layer(layer)
        .service(HttpConnector::new());

    let mut failed = 0;
    for _ in 0..300 {
        let request = Request::get("/").body(Empty::<Bytes>::new())?;
        let response = client.ready().await?.call(request).await?;
        failed += u32::from(response.status() == 500);
    }
    println!("{failed} of 300 failed; ejected: {:?}", ejected.list());
    assert_eq!((failed, asked.load(Relaxed)), (3, 3));
    assert_eq!(ejected.list().len(), 1);
    Ok(())
}
