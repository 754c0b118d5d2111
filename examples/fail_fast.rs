//! Calls that fail at once while there is no endpoint, and succeed as soon as there is one.

use std::time::{Duration, Instant};

use bytes::Bytes;
use evenkeel::{
    balance::BalanceLayer,
    core::error::{FailedFast, cause},
    discovery,
    fail_fast::FailFastLayer,
    http::HttpConnector,
};
use http::Request;
use http_body_util::{BodyExt, Empty};
use tower::{ServiceBuilder, ServiceExt};

mod common;

#[tokio::main]
async fn main() -> Result<(), common::BoxError> {
    let (endpoints, discovery) = discovery::channel();
    let client = ServiceBuilder::new()
        .layer(FailFastLayer::new(Duration::from_millis(100)))
        .layer(BalanceLayer::p2c(discovery)) // would let each caller wait three seconds
        .service(HttpConnector::<Empty<Bytes>>::new());
    let hello = || Request::get("/").body(Empty::new()).expect("a valid request");

    for caller in 1..=5 {
        #[allow(clippy::disallowed_methods, reason = "an example may look at its watch")]
        let began = Instant::now();
        let error = client.clone().oneshot(hello()).await.expect_err("there is no endpoint");
        println!("caller {caller} after {:?}: {error}", began.elapsed());
        assert!(cause::<FailedFast>(error.as_ref()).is_some());
        assert!(caller == 1 || began.elapsed() < Duration::from_millis(50));
    }

    let server = common::serve_text("hello").await?;
    endpoints.set([server]);
    let response = loop {
        match client.clone().oneshot(hello()).await {
            Ok(response) => break response,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let body = response.into_body().collect().await?.to_bytes();
    println!("and then: {body:?}");
    assert_eq!(body, "hello");
    Ok(())
}
