//! Retries around a hyper client, without a balancer: a server that fails now and then, and a
//! budget that limits retries.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use axum::{
    Router,
    routing::{get, post},
};
use bytes::Bytes;
use evenkeel::{core::retry::Budget, http::HttpRetry, retry::RetryLayer};
use http::{Request, StatusCode, Uri};
use http_body_util::Full;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tower::{Service, ServiceBuilder, ServiceExt};

mod common;

#[tokio::main]
async fn main() -> Result<(), common::BoxError> {
    let asked = Arc::new(AtomicU32::new(0));
    let every_other = {
        let asked = asked.clone();
        move || async move {
            match asked.fetch_add(1, Relaxed) % 2 {
                0 => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::OK,
            }
        }
    };
    let router = Router::new().route("/", get(every_other.clone())).route("/", post(every_other));
    let server = common::serve(router).await?;
    let uri: Uri = format!("http://{server}/").parse()?;
    let request = |method: &str| {
        Request::builder().method(method).uri(uri.clone()).body(Full::<Bytes>::default())
    };

    let plain = Client::builder(TokioExecutor::new()).build_http();
    let budget = Budget::share(100.0).floor_per_second(1);
    let mut client = ServiceBuilder::new()
        .layer(RetryLayer::new(budget.clone()).rules(HttpRetry::new()))
        .service(plain);

    // A GET may be sent again, so the caller does not see that every other attempt fails.
    for _ in 0..10 {
        assert_eq!(client.ready().await?.call(request("GET")?).await?.status(), 200);
    }
    assert_eq!(asked.load(Relaxed), 20);

    // A POST may have had an effect already, so its caller decides.
    assert_eq!(client.ready().await?.call(request("POST")?).await?.status(), 503);
    println!("10 calls took {} attempts, and a POST took one", asked.load(Relaxed) - 1);
    Ok(())
}
