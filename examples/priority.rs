//! Tiers: two servers do the work, and two stand by until the first tier cannot carry the whole
//! load.

use std::{sync::Arc, time::Duration};

use axum::{Router, routing::get};
use bytes::Bytes;
use evenkeel::{
    balance::BalanceLayer, core::endpoint::Endpoint, discovery::Fixed, http::HttpConnector,
    outlier::OutlierLayer,
};
use http::{Request, StatusCode};
use http_body_util::Empty;
use tokio::sync::watch;
use tower::{Service, ServiceBuilder, ServiceExt};

mod common;

#[tokio::main]
async fn main() -> Result<(), common::BoxError> {
    // One server of the first tier can be made ill.
    let (ill, is_ill) = watch::channel(false);
    let is_ill = Arc::new(is_ill);
    let sometimes = move || async move {
        if *is_ill.borrow() {
            (StatusCode::INTERNAL_SERVER_ERROR, "ill")
        } else {
            (StatusCode::OK, "first")
        }
    };
    let endpoints = [
        Endpoint::from(common::serve_text("first").await?),
        Endpoint::from(common::serve(Router::new().route("/", get(sometimes))).await?),
        Endpoint::from(common::serve_text("stand-by").await?).priority(1),
        Endpoint::from(common::serve_text("stand-by").await?).priority(1),
    ];
    let mut client = ServiceBuilder::new()
        .layer(BalanceLayer::round_robin(Fixed::new(endpoints)).tiers())
        .layer(OutlierLayer::new().ejection_time(Duration::from_secs(30), Duration::from_secs(300)))
        .service(HttpConnector::new());

    let mut shares = Vec::new();
    for is_ill in [false, true] {
        ill.send_replace(is_ill);
        let mut stand_by = 0;
        for _ in 0..500 {
            let request = Request::get("/").body(Empty::<Bytes>::new())?;
            let response = client.ready().await?.call(request).await?;
            stand_by += u32::from(common::text(response).await? == "stand-by");
        }
        println!("one is ill: {is_ill:5}; {stand_by} of 500 requests went to the second tier");
        shares.push(stand_by);
    }
    // Half of the tier, times 1.4, is 70 %: three requests in ten go to the second tier.
    assert_eq!(shares[0], 0);
    assert!((100..200).contains(&shares[1]));
    Ok(())
}
