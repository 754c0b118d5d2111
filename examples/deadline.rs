//! One deadline for a call across processes: the server behind the server knows how much time is
//! left.

use std::time::Duration;

use axum::{Router, extract::State, response::IntoResponse, routing::get};
use bytes::Bytes;
use evenkeel::{
    balance::{Balance, BalanceLayer},
    core::error::{DeadlineExceeded, cause},
    deadline::{Deadline, DeadlineLayer},
    discovery::Fixed,
    http::{ErrorToResponseLayer, HttpConnector, HttpDeadline},
};
use http::{Request, StatusCode};
use http_body_util::Empty;
use tower::{Layer, ServiceBuilder, ServiceExt};

mod common;

type Client = Deadline<Balance<HttpConnector<Empty<Bytes>>>, HttpDeadline>;

/// A client whose calls end after `after`, or at their caller's deadline if that is earlier.
fn client(server: std::net::SocketAddr, after: Duration) -> Client {
    DeadlineLayer::new(after)
        .carry(HttpDeadline)
        .layer(BalanceLayer::p2c(Fixed::new([server])).layer(HttpConnector::new()))
}

/// Returns how many milliseconds the caller has left for it.
async fn back(request: Request<axum::body::Body>) -> String {
    let given = request.headers().get("x-envoy-expected-rq-timeout-ms");
    given.and_then(|given| given.to_str().ok()).unwrap_or("none").to_owned()
}

/// Works for 100 ms, and then calls the server behind it with the deadline that it received.
async fn front(
    State(behind): State<Client>,
    request: Request<axum::body::Body>,
) -> impl IntoResponse {
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut onward = Request::new(Empty::new());
    *onward.extensions_mut() = request.extensions().clone();
    match behind.oneshot(onward).await {
        Ok(response) => axum::body::Body::new(response.into_body()).into_response(),
        Err(error) => (StatusCode::GATEWAY_TIMEOUT, error.to_string()).into_response(),
    }
}

#[tokio::main]
async fn main() -> Result<(), common::BoxError> {
    let behind = common::serve(Router::new().fallback(get(back))).await?;
    let within = ServiceBuilder::new()
        .layer(ErrorToResponseLayer::new())
        .layer(DeadlineLayer::new(Duration::from_secs(30)).carry(HttpDeadline));
    let router = Router::new().fallback(get(front)).layer(within);
    let router = router.with_state(client(behind, Duration::from_secs(10)));
    let server = common::serve(router).await?;

    let call = |after| {
        client(server, Duration::from_millis(after)).oneshot(Request::new(Empty::<Bytes>::new()))
    };
    let left: u64 = common::text(call(2_000).await?).await?.parse()?;
    println!("of 2,000 ms, the server behind has {left} left");
    assert!((1_000..=1_900).contains(&left));

    match call(50).await {
        Err(error) => {
            println!("with 50 ms: {error}");
            assert!(cause::<DeadlineExceeded>(error.as_ref()).is_some());
        }
        // The server had the same deadline, and reported first that it was exceeded.
        Ok(response) => assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT),
    }
    Ok(())
}
