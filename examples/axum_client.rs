//! A balanced client as state in an axum handler.

use axum::{Router, extract::State, http::StatusCode, routing::get};
use bytes::Bytes;
use evenkeel::{
    balance::{Balance, BalanceLayer},
    discovery::Fixed,
    http::HttpConnector,
};
use http::Request;
use http_body_util::{BodyExt, Empty};
use tower::{ServiceBuilder, ServiceExt};

mod common;

/// Cheap to clone. All clones balance over the same endpoints.
type Prices = Balance<HttpConnector<Empty<Bytes>>>;

async fn offer(State(prices): State<Prices>) -> Result<String, (StatusCode, String)> {
    let unavailable = |error: common::BoxError| (StatusCode::BAD_GATEWAY, error.to_string());
    let request = Request::get("/price").body(Empty::new()).expect("a valid request");
    let response = prices.oneshot(request).await.map_err(unavailable)?;
    let price = response.into_body().collect().await.map_err(|error| unavailable(error.into()))?;
    Ok(format!("our offer: {}", String::from_utf8_lossy(&price.to_bytes())))
}

#[tokio::main]
async fn main() -> Result<(), common::BoxError> {
    let servers = [common::serve_text("7 €").await?, common::serve_text("8 €").await?];

    let prices: Prices = ServiceBuilder::new()
        .layer(BalanceLayer::round_robin(Fixed::new(servers)))
        .service(HttpConnector::new().authority("prices.internal"));
    let shop = Router::new().route("/offer", get(offer)).with_state(prices);

    let shop = common::serve(shop).await?;
    let mut offers =
        [common::get_text(shop, "/offer").await?, common::get_text(shop, "/offer").await?];
    println!("{offers:?}");
    // The first endpoint is random.
    offers.sort();
    assert_eq!(offers, ["our offer: 7 €", "our offer: 8 €"]);
    Ok(())
}
