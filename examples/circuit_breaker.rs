//! A circuit breaker around a hyper client, without a balancer: it stops calls to a server that
//! keeps failing, and notices when the server works again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{Router, routing::get};
use bytes::Bytes;
use evenkeel::{
    breaker::CircuitBreakerLayer,
    core::error::{CircuitOpen, cause},
    http::HttpTraffic,
};
use http::{Request, StatusCode, Uri};
use http_body_util::Empty;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tower::{Layer, Service, ServiceExt};

mod common;

#[tokio::main]
async fn main() -> Result<(), common::BoxError> {
    let (is_broken, asked) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU32::new(0)));
    let answer = {
        let (is_broken, asked) = (is_broken.clone(), asked.clone());
        move || async move {
            asked.fetch_add(1, Relaxed);
            if is_broken.load(Relaxed) { StatusCode::BAD_GATEWAY } else { StatusCode::OK }
        }
    };
    let server = common::serve(Router::new().route("/", get(answer))).await?;
    let uri: Uri = format!("http://{server}/").parse()?;
    let request = || Request::get(uri.clone()).body(Empty::<Bytes>::new());

    let mut client = CircuitBreakerLayer::new()
        .consecutive_failures(5)
        .open_time(Duration::from_millis(200), Duration::from_secs(5))
        .traffic(HttpTraffic::new())
        .layer(Client::builder(TokioExecutor::new()).build_http());

    let mut refused = 0;
    for _ in 0..100 {
        match client.ready().await?.call(request()?).await {
            Ok(response) => assert_eq!(response.status(), 502),
            Err(error) => {
                let open = cause::<CircuitOpen>(error.as_ref()).expect("the breaker refuses");
                assert!(open.retry_after.is_some());
                refused += 1;
            }
        }
    }
    println!("{} of 100 calls were sent, {refused} refused", asked.load(Relaxed));
    assert_eq!((asked.load(Relaxed), refused), (5, 95));

    is_broken.store(false, Relaxed);
    let recovered = async {
        while client.ready().await?.call(request()?).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok::<_, common::BoxError>(())
    };
    tokio::time::timeout(Duration::from_secs(10), recovered).await??;
    println!("and again after {} attempts in all", asked.load(Relaxed));
    Ok(())
}
