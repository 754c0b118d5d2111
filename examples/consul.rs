//! Servers that register themselves in Consul, and a client that finds them. One server leaves.
//!
//! Starts its own agent, from the folder of `.ci/get-servers` or from PATH, if one is installed.

use std::time::Duration;

use axum::{Router, routing::get};
use bytes::Bytes;
use evenkeel::{
    balance::BalanceLayer,
    discovery::{
        Consul,
        consul::Agents,
        register::{ConsulRegistry, Entry, Registered, Registration},
    },
    http::HttpConnector,
};
use http::Request;
use http_body_util::{BodyExt, Empty};
use tokio::sync::oneshot;
use tower::{Layer, ServiceExt};

mod common;
#[path = "common/servers.rs"]
mod servers;

#[tokio::main]
async fn main() -> Result<(), common::BoxError> {
    let Some(agent) = servers::Consul::start()? else { return Ok(()) };
    let agents = Agents::at([&*agent.url])?;

    let (stop, stopped) = oneshot::channel();
    serve("one", agents.clone(), async { drop(stopped.await) }).await?;
    serve("two", agents.clone(), std::future::pending()).await?;

    let client =
        BalanceLayer::round_robin(Consul::new(agents, "greeter")).layer(HttpConnector::new());
    let ask = || async {
        let request = Request::get("/").body(Empty::<Bytes>::new())?;
        let body = client.clone().oneshot(request).await?.into_body().collect().await?;
        Ok::<_, common::BoxError>(String::from_utf8_lossy(&body.to_bytes()).into_owned())
    };
    let (a, b) = (ask().await?, ask().await?);
    println!("answered by {a} and {b}");
    assert_ne!(a, b);

    // The first server leaves: it is deregistered, waits until its callers have seen that, and then
    // drains.
    stop.send(()).ok();
    for _ in 0..40 {
        ask().await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("answered by {} and {}, and no request failed", ask().await?, ask().await?);
    assert_eq!((ask().await?, ask().await?), ("two".into(), "two".into()));
    Ok(())
}

/// A server that registers itself, and leaves when `stop` resolves.
async fn serve(
    name: &'static str,
    agents: Agents,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), common::BoxError> {
    let router = Router::new().route("/", get(move || async move { name }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;

    let entry = Entry::new("greeter", listener.local_addr()?.into()).zone("here");
    let registered: Registered = Registration::new(ConsulRegistry::new(agents), entry)
        .propagation(Duration::from_millis(500))
        .start();
    registered.entered().await;

    let server = axum::serve(listener, router).with_graceful_shutdown(registered.leave_on(stop));
    tokio::spawn(server.into_future());
    Ok(())
}
