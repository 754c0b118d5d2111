//! An axum server that registers itself in Consul, and is stopped under load without an error.
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
        register::{Check, ConsulRegistry, Entry, Registration},
    },
    http::{Drain, DrainHandle, HttpConnector, Phase},
};
use http::Request;
use http_body_util::Empty;
use tokio::net::TcpListener;
use tower::{Layer, ServiceExt};

mod common;
#[path = "common/servers.rs"]
mod servers;

use common::BoxError;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let Some(consul) = servers::Consul::start()? else { return Ok(()) };
    let agents = Agents::at([&*consul.url])?;
    let first = serve("one", agents.clone()).await?;
    let second = serve("two", agents.clone()).await?;

    let client = BalanceLayer::round_robin(Consul::new(agents, "greeter"))
        .max_wait(Duration::from_secs(10))
        .layer(HttpConnector::new());
    let ask = || async {
        common::text(client.clone().oneshot(Request::get("/").body(Empty::<Bytes>::new())?).await?)
            .await
    };
    while ask().await? == ask().await? {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("both answer; Consul says: {}", consul.run(&["catalog", "services", "-tags"])?.trim());

    first.start(); // or SIGTERM
    let mut answered = 0;
    while first.phase() < Phase::Ended {
        ask().await?;
        answered += 1;
    }
    println!("one was stopped while {answered} requests were answered, and none failed");
    assert_eq!((ask().await?, ask().await?), ("two".into(), "two".into()));
    second.start();
    Ok(())
}

/// A server, and the handle that stops it.
async fn serve(name: &'static str, agents: Agents) -> Result<DrainHandle, BoxError> {
    let router = Router::new().route("/", get(move || async move { name }));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;

    // The two additions: the registration, and `serve` instead of `axum::serve`.
    let entry = Entry::new("greeter", address.into())
        .version("2.4.1")
        .tag("v2")
        .check(Check::http(format!("http://{address}/ready"), Duration::from_secs(1)));
    let registered = Registration::new(ConsulRegistry::new(agents), entry).start();
    let drain = Drain::new().registered(registered);

    let handle = drain.handle();
    let router = router.route_service("/ready", drain.readiness());
    tokio::spawn(drain.serve(listener, router));
    Ok(handle)
}
