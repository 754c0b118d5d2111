//! Servers that register themselves in etcd, and a client that finds them. One server dies.
//!
//! Starts its own member, from the folder of `.ci/get-servers` or from PATH, if one is installed.
#![allow(clippy::disallowed_methods, reason = "an example may look at its watch")]

use std::time::{Duration, Instant};

use axum::{Router, routing::get};
use bytes::Bytes;
use evenkeel::{
    balance::BalanceLayer,
    discovery::{
        Etcd,
        etcd::Cluster,
        register::{Entry, EtcdRegistry, Registration},
    },
    http::HttpConnector,
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
    let Some(member) = servers::Etcd::start()? else { return Ok(()) };
    let cluster = Cluster::at([&*member.url])?;

    // A separate process would be more realistic, but a dropped runtime dies as suddenly.
    let doomed = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    doomed.spawn(serve("one", cluster.clone()));
    tokio::spawn(serve("two", cluster.clone()));

    let client =
        BalanceLayer::round_robin(Etcd::new(cluster, "greeter")).layer(HttpConnector::new());
    let ask = || async {
        common::text(client.clone().oneshot(Request::get("/").body(Empty::<Bytes>::new())?).await?)
            .await
    };
    while ask().await? == ask().await? {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    print!("two servers answer, and etcd has\n{}", member.run(&["get", "--prefix", "/evenkeel/"])?);

    #[allow(clippy::disallowed_methods, reason = "an example may look at its watch")]
    let died_at = Instant::now();
    doomed.shutdown_background();
    let (mut errors, mut answered) = (0, 0);
    while 1 < member
        .run(&["get", "--prefix", "--keys-only", "/evenkeel/"])?
        .split_whitespace()
        .count()
    {
        match ask().await {
            Ok(_) => answered += 1,
            Err(_) => errors += 1,
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("the entry of the one that died was gone after {:.1?}", died_at.elapsed());
    println!(
        "meanwhile {answered} requests were answered and {errors} failed: a retry layer's work"
    );
    Ok(())
}

/// A server that registers itself for as long as it lives.
async fn serve(name: &'static str, cluster: Cluster) -> Result<(), BoxError> {
    let router = Router::new().route("/", get(move || async move { name }));
    let listener = TcpListener::bind("127.0.0.1:0").await?;

    let entry = Entry::new("greeter", listener.local_addr()?.into()).zone("here");
    let registered =
        Registration::new(EtcdRegistry::new(cluster), entry).ttl(Duration::from_secs(2)).start();

    axum::serve(listener, router)
        .with_graceful_shutdown(registered.leave_on(std::future::pending()))
        .await?;
    Ok(())
}
