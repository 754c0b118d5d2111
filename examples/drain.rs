//! An axum server that is replaced by another under load, without an error for any caller.
//!
//! `cargo run --example drain`

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{Router, routing::get};
use evenkeel::{
    balance::BalanceLayer,
    core::BoxError,
    discovery::channel,
    http::{Drain, HttpConnector, Phase},
};
use http::Request;
use http_body_util::{BodyExt, Empty};
use tokio::{net::TcpListener, task::JoinSet};
use tower::{ServiceBuilder, ServiceExt};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let old = TcpListener::bind("127.0.0.1:0").await?;
    let new = TcpListener::bind("127.0.0.1:0").await?;
    let successor = new.local_addr()?;
    let (registry, discovery) = channel();
    registry.set([old.local_addr()?]);
    tokio::spawn(async { axum::serve(new, app("the new one")).await });

    // The two additions to a service besides its router: how it leaves, and `serve` instead of
    // `axum::serve`.
    let drain = Drain::new()
        .signals()
        .deregister(move || async move {
            registry.set([successor]);
            Ok(())
        })
        .wait(Duration::from_millis(500));
    let handle = drain.handle();
    let app = app("the old one").route_service("/ready", drain.readiness());
    let server = tokio::spawn(drain.serve(old, app));

    let client =
        ServiceBuilder::new().layer(BalanceLayer::p2c(discovery)).service(HttpConnector::new());
    let answered = Arc::new(AtomicU64::new(0));
    let mut callers = JoinSet::new();
    for _ in 0..8 {
        let (client, handle, answered) = (client.clone(), handle.clone(), answered.clone());
        callers.spawn(async move {
            while handle.phase() < Phase::Ended {
                let request = Request::get("/").body(Empty::<bytes::Bytes>::new())?;
                let response = client.clone().oneshot(request).await?;
                assert_eq!(response.status(), 200);
                response.into_body().collect().await?;
                answered.fetch_add(1, Relaxed);
            }
            Ok::<_, BoxError>(())
        });
    }

    while answered.load(Relaxed) < 100 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    handle.start(); // or SIGTERM
    let report = server.await??;
    while let Some(caller) = callers.join_next().await {
        caller??;
    }
    println!("{} requests and no error; {report:?}", answered.load(Relaxed));
    assert_eq!((report.requests_cut, report.is_in_time), (0, true));
    Ok(())
}

fn app(name: &'static str) -> Router {
    Router::new().route("/", get(move || async move { name }))
}
