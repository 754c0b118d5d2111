//! Servers that enter themselves in Consul, a client that finds them, and one that leaves.
//!
//! Starts an agent of its own if there is one to start: from PATH, or where `.ci/get-servers` puts it.

use std::{
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

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

#[tokio::main]
async fn main() -> Result<(), common::BoxError> {
    let Some(agent) = Agent::start()? else {
        println!("no consul on PATH nor in target/servers; `.ci/get-servers consul` gets it");
        return Ok(());
    };
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

    // The first leaves: it is deregistered, waits until its callers have seen that, and only then drains.
    stop.send(()).ok();
    for _ in 0..40 {
        ask().await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("answered by {} and {}, and no request failed", ask().await?, ask().await?);
    assert_eq!((ask().await?, ask().await?), ("two".into(), "two".into()));
    Ok(())
}

/// A server that enters itself, and leaves when `stop` is over.
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

/// An agent that keeps nothing, and ends with this.
struct Agent {
    url: String,
    process: Child,
}

impl Agent {
    fn start() -> Result<Option<Self>, common::BoxError> {
        let Some(program) = find() else { return Ok(None) };
        // Held together, so that they differ; let go before the agent takes them.
        let held = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0"));
        let mut ports = vec![];
        for listener in &held {
            let listener = listener.as_ref().map_err(ToString::to_string)?;
            ports.push(listener.local_addr()?.port());
        }
        drop(held);
        let hcl = format!(
            "ports {{ http = {} server = {} serf_lan = {} serf_wan = -1 dns = -1 grpc = -1 }}",
            ports[0], ports[1], ports[2]
        );
        let process = Command::new(program)
            .args(["agent", "-dev", "-bind=127.0.0.1", "-hcl", &hcl])
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Some(Self { url: format!("http://127.0.0.1:{}", ports[0]), process }))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn find() -> Option<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let cached = std::env::var_os("EVENKEEL_SERVERS")
        .map_or_else(|| PathBuf::from(target).join("servers"), PathBuf::from);
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    std::iter::once(cached.join("consul/usr/bin"))
        .chain(std::env::split_paths(&on_path))
        .map(|folder| folder.join("consul"))
        .find(|program| program.is_file())
}
