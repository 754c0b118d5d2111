//! An existing `reqwest::Client`, with its settings and its calls, over several endpoints:
//! balancing, retries, a deadline, and JSON that is sent again if a server is not ready.

use std::time::Duration;

use axum::{Json, Router, http::StatusCode, routing::post};
use evenkeel::{
    balance::BalanceLayer,
    core::retry::Budget,
    deadline::DeadlineLayer,
    discovery::Fixed,
    http::{HttpDeadline, HttpRetry, Idempotent, ReqwestStack, ServedBy, SharedClient},
    retry::RetryLayer,
};
use serde_json::{Value, json};
use tower::ServiceBuilder;

mod common;

#[tokio::main]
async fn main() -> Result<(), common::BoxError> {
    let starting = Router::new().route("/orders", post(StatusCode::SERVICE_UNAVAILABLE));
    let works =
        Router::new().route("/orders", post(|Json(order): Json<Value>| async { Json(order) }));
    let servers = [common::serve(starting).await?, common::serve(works).await?];

    let reqwest = reqwest::Client::builder().user_agent("evenkeel-example").build()?;
    let stack = ServiceBuilder::new()
        .layer(DeadlineLayer::new(Duration::from_secs(2)).carry(HttpDeadline))
        .layer(RetryLayer::new(Budget::default()).rules(HttpRetry::new()))
        .layer(BalanceLayer::round_robin(Fixed::new(servers)))
        .service(SharedClient::reqwest(reqwest.clone()));
    let client = ReqwestStack::new(reqwest, stack);

    for number in 0..2 {
        let order = json!({ "number": number });
        let response = client
            .post("http://orders.internal/orders")
            .query(&[("source", "example")])
            .json(&order)
            .extension(Idempotent(true)) // a POST is not sent again unless it says so
            .send()
            .await?
            .error_for_status()?;
        let served_by = response.extensions().get::<ServedBy>().map(|by| by.address().to_string());
        println!("{served_by:?} answered for {}", response.url());
        assert_eq!(response.url().host_str(), Some("orders.internal"));
        assert_eq!(response.json::<Value>().await?, order);
    }
    Ok(())
}
