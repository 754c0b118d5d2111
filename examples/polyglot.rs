//! Interoperability: entries of Consul's and etcd's own programs are found here, and entries made
//! here are read by these programs, and by Traefik if it is installed.
//!
//! Starts its own registries, from the folder of `.ci/get-servers` or from PATH, if they are
//! installed.
#![allow(clippy::disallowed_methods, reason = "an example may look at its watch")]

use std::{net::SocketAddr, process::Command, time::Duration};

use bytes::Bytes;
use evenkeel::{
    balance::BalanceLayer,
    core::discover::Discovery,
    discovery::{
        Consul, Etcd,
        consul::Agents,
        etcd::{
            Cluster,
            dialect::{Kit, Micro, Naming},
        },
        register::{ConsulRegistry, Entry, EtcdRegistry, Registration},
    },
    http::HttpConnector,
};
use http::Request;
use http_body_util::Empty;
use tower::{Layer, ServiceExt};

mod common;
#[path = "common/servers.rs"]
mod servers;

use common::BoxError;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let mut is_tried = false;
    if let Some(consul) = servers::Consul::start()? {
        with_consul(&consul).await?;
        with_traefik(&consul).await?;
        is_tried = true;
    }
    if let Some(etcd) = servers::Etcd::start()? {
        with_etcd(&etcd).await?;
        is_tried = true;
    }
    println!("{}", if is_tried { "all were understood" } else { "no registry is installed" });
    Ok(())
}

/// Returns the answer of the server that a discovery finds.
async fn ask(discovery: impl Discovery) -> Result<String, BoxError> {
    let client = BalanceLayer::round_robin(discovery)
        .max_wait(Duration::from_secs(10))
        .layer(HttpConnector::new());
    common::text(client.oneshot(Request::get("/").body(Empty::<Bytes>::new())?).await?).await
}

async fn with_consul(consul: &servers::Consul) -> Result<(), BoxError> {
    let agents = Agents::at([&*consul.url])?;

    // Their entry: `consul services register`.
    let server = common::serve_text("entered by Consul's own program").await?;
    let (name, port) = ("-name=theirs", format!("-port={}", server.port()));
    consul.run(&["services", "register", name, "-address=127.0.0.1", &port])?;
    println!("{}", ask(Consul::new(agents.clone(), "theirs")).await?);

    // Our entry, in the format of go-micro v2: `consul catalog services -tags`.
    let entry = Entry::new("ours", server.into()).version("2.4.1").metadata("protocol", "grpc");
    let registry = ConsulRegistry::new(agents.clone()).go_micro();
    let registered = Registration::new(registry, entry).start();
    registered.entered().await;
    println!("Consul says: {}", consul.run(&["catalog", "services", "-tags"])?.trim());
    ask(Consul::new(agents, "ours").go_micro()).await?;
    registered.deregister().await
}

async fn with_etcd(etcd: &servers::Etcd) -> Result<(), BoxError> {
    let cluster = Cluster::at([&*etcd.url])?;
    let server = common::serve_text("entered by etcdctl").await?;

    // Their entries: in the formats of a go-kit service, of grpc-go's resolver and of go-micro.
    etcd.run(&["put", "/services/kit/1", &format!("http://{server}")])?;
    let naming = format!(r#"{{"Op":0,"Addr":"{server}","Metadata":null}}"#);
    etcd.run(&["put", "naming/1", &naming])?;
    let micro = format!(
        r#"{{"name":"micro","version":"latest","metadata":null,"endpoints":null,"nodes":[{{"id":"1","address":"{server}","metadata":{{}}}}]}}"#
    );
    etcd.run(&["put", "/micro/registry/micro/1", &micro])?;
    let named = |name: &str| Etcd::new(cluster.clone(), name);
    println!("{}, as go-kit does", ask(named("kit").dialect(Kit::new("/services/kit"))).await?);
    println!("{}, as etcd's naming does", ask(named("naming").dialect(Naming)).await?);
    println!("{}, as go-micro does", ask(named("micro").dialect(Micro)).await?);

    // Our entry: `etcdctl get`.
    let entry = Entry::new("ours", server.into()).id("1");
    let registered = Registration::new(EtcdRegistry::new(cluster).dialect(Naming), entry).start();
    registered.entered().await;
    let value = etcd.run(&["get", "--print-value-only", "ours/1"])?;
    println!("etcdctl says: {}", value.trim());
    assert_eq!(value.trim(), naming);
    registered.deregister().await
}

/// Our entry, read by Traefik, which routes to it.
async fn with_traefik(consul: &servers::Consul) -> Result<(), BoxError> {
    let Some(program) = servers::find_optional("traefik", "traefik") else {
        println!("no traefik to read what was entered");
        return Ok(());
    };
    let server = common::serve_text("through Traefik").await?;
    let entry = Entry::new("shop", server.into())
        .tag("traefik.enable=true")
        .tag("traefik.http.routers.shop.rule=PathPrefix(`/`)");
    let registry = ConsulRegistry::new(Agents::at([&*consul.url])?);
    let registered = Registration::new(registry, entry).start();
    registered.entered().await;

    let [port] = servers::free_ports()?;
    let agent = consul.url.trim_start_matches("http://");
    let _traefik = servers::Process::start(
        Command::new(program)
            .arg(format!("--entrypoints.web.address=127.0.0.1:{port}"))
            .arg("--providers.consulcatalog.exposedByDefault=false")
            .arg(format!("--providers.consulcatalog.endpoint.address={agent}"))
            .arg("--providers.consulcatalog.watch=true")
            .args(["--global.checknewversion=false", "--global.sendanonymoususage=false"]),
    )?;
    let front = SocketAddr::from(([127, 0, 0, 1], port));
    let routed = async {
        while common::get_text(front, "/").await.unwrap_or_default() != "through Traefik" {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), routed).await?;
    println!("Traefik routes to what was entered here");
    registered.deregister().await
}
