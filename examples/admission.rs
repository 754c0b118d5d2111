//! Overload on both sides: an axum server that sheds the least important requests, and a client
//! that sends fewer requests to a service that refuses them.

use std::time::Duration;

use axum::{Router, routing::get};
use bytes::Bytes;
use evenkeel::{
    admission::{LoadShedLayer, ThrottleLayer},
    balance::BalanceLayer,
    core::error::{RequestThrottled, cause},
    discovery::Fixed,
    http::{ErrorToResponseLayer, HeaderPriority, HttpConnector, HttpTraffic},
};
use futures_util::future::join_all;
use http::Request;
use http_body_util::Empty;
use tower::{Service, ServiceBuilder, ServiceExt};

mod common;

async fn work() -> &'static str {
    tokio::time::sleep(Duration::from_millis(20)).await;
    "done"
}

fn request(priority: &str) -> Request<Empty<Bytes>> {
    let request = Request::get("/work").header("x-priority", priority);
    request.body(Empty::new()).expect("a valid request")
}

#[tokio::main]
async fn main() -> Result<(), common::BoxError> {
    let shed = ServiceBuilder::new().layer(ErrorToResponseLayer::new()).layer(
        LoadShedLayer::fixed(1)
            .max_queue(4)
            .interval(Duration::from_secs(5))
            .priority(HeaderPriority::default())
            .traffic(HttpTraffic::new())
            .shared(),
    );
    let server = common::serve(Router::new().route("/work", get(work)).layer(shed)).await?;
    let client = ServiceBuilder::new()
        .layer(BalanceLayer::p2c(Fixed::new([server])))
        .service(HttpConnector::new());

    // One request runs and four may wait. Critical requests take the places of the others.
    let priorities: Vec<_> = [["sheddable"; 5], ["critical_plus"; 5]].concat();
    let calls = priorities.iter().map(|priority| client.clone().oneshot(request(priority)));
    let responses = join_all(calls).await.into_iter().collect::<Result<Vec<_>, _>>()?;
    let answered = |wanted: &str| {
        let both = priorities.iter().zip(&responses);
        both.filter(|(priority, response)| **priority == wanted && response.status() == 200).count()
    };
    let (sheddable, critical) = (answered("sheddable"), answered("critical_plus"));
    println!("answered: {critical} of 5 critical, {sheddable} of 5 sheddable");
    assert!((4..=5).contains(&critical));
    assert!(sheddable <= 1);
    drop(responses);

    // A service that refuses everything soon gets few requests. `HttpTraffic` decides what a
    // refusal is.
    let unavailable = || async { http::StatusCode::SERVICE_UNAVAILABLE };
    let down = common::serve(Router::new().route("/work", get(unavailable))).await?;
    let mut client = ServiceBuilder::new()
        .layer(ThrottleLayer::new().seed(1).traffic(HttpTraffic::new()))
        .layer(BalanceLayer::p2c(Fixed::new([down])))
        .service(HttpConnector::new());
    let mut throttled = 0;
    for _ in 0..100 {
        match client.ready().await?.call(request("critical")).await {
            Ok(response) => assert_eq!(response.status(), 503),
            Err(error) => {
                cause::<RequestThrottled>(error.as_ref()).expect("refused by the throttle");
                throttled += 1;
            }
        }
    }
    println!("{throttled} of 100 calls to a service that refuses were not sent");
    assert!(80 < throttled);
    Ok(())
}
