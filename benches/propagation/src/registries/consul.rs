//! Consul: one server that is its own agent and keeps its data.

use std::{net::SocketAddr, path::Path};

use futures_util::{FutureExt, future::BoxFuture};
use serde_json::{Value, json};

use super::{Registry, Running, SERVICE};
use crate::{
    BoxError,
    admin::Admin,
    backend::Register,
    event::Event,
    servers::{Server, find, free_ports, local, missing, until},
};

/// The most operations in one transaction.
const MAX_OPERATIONS: usize = 64;

#[derive(Debug)]
pub(super) struct Consul;

impl Registry for Consul {
    fn name(&self) -> &'static str {
        "consul"
    }

    fn about(&self) -> &'static str {
        "Consul, one server; TTL checks by heartbeat; discovery by blocking queries"
    }

    fn missing(&self) -> Option<String> {
        missing("consul", "consul")
    }

    fn supports(&self, event: Event) -> bool {
        event != Event::Leader
    }

    fn start<'a>(&'a self, folder: &'a Path) -> BoxFuture<'a, Result<Box<dyn Running>, BoxError>> {
        start(folder).map(|agent| Ok(Box::new(agent?) as Box<dyn Running>)).boxed()
    }
}

async fn start(folder: &Path) -> Result<Agent, BoxError> {
    let program = find("consul", "consul").ok_or("consul is missing")?;
    let [http, server, lan] = free_ports()?;
    let settings = json!({
        "node_name": format!("n{http}"), "bind_addr": "127.0.0.1", "client_addr": "127.0.0.1",
        "ports": { "http": http, "server": server, "serf_lan": lan, "serf_wan": -1, "dns": -1,
            "grpc": -1 },
        "disable_update_check": true, "leave_on_terminate": false, "log_level": "warn",
        // Recommended by Consul's documentation for production.
        "performance": { "raft_multiplier": 1 },
    });
    let path = folder.join("agent.json");
    std::fs::write(&path, settings.to_string())?;
    let arguments = [
        "agent".to_owned(),
        "-server".to_owned(),
        "-bootstrap-expect=1".to_owned(),
        format!("-config-file={}", path.display()),
        format!("-data-dir={}", folder.join("data").display()),
    ];
    let server = Server::start(&program, arguments, folder.join("consul.log"))?;
    let agent = Agent { server, http: local(http), admin: Admin::new() };
    agent.until_ready().await?;
    Ok(agent)
}

struct Agent {
    server: Server,
    http: SocketAddr,
    admin: Admin,
}

impl Agent {
    async fn is_ready(&self) -> bool {
        let leader = self.admin.get(self.http, "/v1/status/leader").await;
        let has_leader = leader.is_ok_and(|leader| leader.as_str().is_some_and(|l| !l.is_empty()));
        // Its own node is listed once the server accepts entries.
        let nodes = self.admin.get(self.http, "/v1/catalog/nodes").await;
        has_leader && nodes.is_ok_and(|nodes| nodes.as_array().is_some_and(|n| !n.is_empty()))
    }

    async fn transact(&self, operations: &[Value]) -> Result<(), BoxError> {
        for part in operations.chunks(MAX_OPERATIONS) {
            self.admin.put(self.http, "/v1/txn", &json!(part)).await?;
        }
        Ok(())
    }
}

/// An entry that the rig registers. All are on one node without checks.
fn service(verb: &str, address: SocketAddr) -> Value {
    json!({ "Service": { "Verb": verb, "Node": "many", "Service": {
        "ID": format!("{SERVICE}-{address}"), "Service": SERVICE,
        "Address": address.ip().to_string(), "Port": address.port() } } })
}

impl Running for Agent {
    fn members(&self) -> Vec<SocketAddr> {
        vec![self.http]
    }

    fn target(&self, members: &[SocketAddr], _: u16) -> Result<String, BoxError> {
        Ok(format!("consul://{}/{SERVICE}", members[0]))
    }

    fn register(&self) -> Option<Register> {
        Some(Register::Consul(format!("http://{}", self.http)))
    }

    fn insert<'a>(&'a mut self, many: &'a [SocketAddr]) -> BoxFuture<'a, Result<(), BoxError>> {
        let node = json!({ "Node": { "Verb": "set",
            "Node": { "Node": "many", "Address": "127.0.0.1" } } });
        let services = many.iter().map(|address| service("set", *address));
        let operations: Vec<_> = std::iter::once(node).chain(services).collect();
        async move { self.transact(&operations).await }.boxed()
    }

    fn remove(&mut self, one: SocketAddr) -> BoxFuture<'_, Result<(), BoxError>> {
        async move { self.transact(&[service("delete", one)]).await }.boxed()
    }

    fn restart(&mut self) -> BoxFuture<'_, Result<(), BoxError>> {
        async move {
            self.server.kill().await?;
            self.server.start_again()
        }
        .boxed()
    }

    fn pause(&mut self) -> Result<(), BoxError> {
        self.server.pause()
    }

    fn resume(&mut self) -> Result<(), BoxError> {
        self.server.resume()
    }

    fn until_ready(&self) -> BoxFuture<'_, Result<(), BoxError>> {
        until("a leader of Consul", || self.is_ready()).boxed()
    }
}
