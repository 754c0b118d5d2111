//! etcd, with one member or three.

use std::{net::SocketAddr, path::Path};

use base64::{Engine, prelude::BASE64_STANDARD};
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

/// The measured version, by the name of its folder.
pub(super) const VERSION: &str = "etcd-3.5";

/// The most operations in one transaction.
const MAX_OPERATIONS: usize = 128;

#[derive(Debug)]
pub(super) struct Etcd {
    pub(super) members: usize,
}

impl Registry for Etcd {
    fn name(&self) -> &'static str {
        if self.members == 1 { "etcd" } else { "etcd-3" }
    }

    fn about(&self) -> &'static str {
        if self.members == 1 {
            "etcd 3.5, one member; leases; discovery by list and watch"
        } else {
            "etcd 3.5, three members"
        }
    }

    fn missing(&self) -> Option<String> {
        missing(VERSION, "etcd")
    }

    fn supports(&self, event: Event) -> bool {
        // The events with many endpoints do not depend on the number of members.
        if self.members == 1 { event != Event::Leader } else { !event.is_large() }
    }

    fn start<'a>(&'a self, folder: &'a Path) -> BoxFuture<'a, Result<Box<dyn Running>, BoxError>> {
        start(folder, self.members).map(|etcd| Ok(Box::new(etcd?) as Box<dyn Running>)).boxed()
    }
}

async fn start(folder: &Path, count: usize) -> Result<Cluster, BoxError> {
    let ports = free_ports::<6>()?;
    let ports: Vec<(u16, u16)> = ports.chunks(2).map(|p| (p[0], p[1])).take(count).collect();
    let all = initial(&ports);
    let mut members = Vec::new();
    for (client, peer) in ports {
        let server = launch(folder, (client, peer), &all)?;
        members.push(Member { server, client: local(client), is_dead: false });
    }
    let cluster = Cluster { members, admin: Admin::new() };
    cluster.until_ready().await?;
    Ok(cluster)
}

/// How members with these ports for clients and peers find each other.
pub(super) fn initial(ports: &[(u16, u16)]) -> String {
    let member = |(_, peer): &(u16, u16)| format!("m{peer}=http://127.0.0.1:{peer}");
    ports.iter().map(member).collect::<Vec<_>>().join(",")
}

/// Starts one member.
pub(super) fn launch(
    folder: &Path,
    (client, peer): (u16, u16),
    initial: &str,
) -> Result<Server, BoxError> {
    let program = find(VERSION, "etcd").ok_or("etcd is missing")?;
    let (client, peer_url) =
        (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
    let arguments = [
        format!("--name=m{peer}"),
        format!("--data-dir={}", folder.join(format!("m{peer}")).display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer_url}"),
        format!("--initial-advertise-peer-urls={peer_url}"),
        format!("--initial-cluster={initial}"),
        "--logger=zap".to_owned(),
        "--log-level=warn".to_owned(),
    ];
    Server::start(&program, arguments, folder.join(format!("m{peer}.log")))
}

struct Member {
    server: Server,
    client: SocketAddr,
    is_dead: bool,
}

struct Cluster {
    members: Vec<Member>,
    admin: Admin,
}

impl Cluster {
    fn alive(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| !member.is_dead)
    }

    async fn is_ready(&self) -> bool {
        for member in self.alive() {
            let health = self.admin.get(member.client, "/health").await;
            if !health.is_ok_and(|health| health["health"] == "true") {
                return false;
            }
        }
        true
    }

    async fn transact(&self, operations: &[Value]) -> Result<(), BoxError> {
        let member = self.alive().next().ok_or("no member is left")?.client;
        for part in operations.chunks(MAX_OPERATIONS) {
            self.admin.post(member, "/v3/kv/txn", &json!({ "success": part })).await?;
        }
        Ok(())
    }

    /// The member that leads.
    async fn leader(&self) -> Result<usize, BoxError> {
        for (index, member) in self.members.iter().enumerate().filter(|(_, m)| !m.is_dead) {
            let status = json!({});
            let status = self.admin.post(member.client, "/v3/maintenance/status", &status).await?;
            if status["leader"] == status["header"]["member_id"] {
                return Ok(index);
            }
        }
        Err("no member leads".into())
    }
}

fn key(address: SocketAddr) -> String {
    BASE64_STANDARD.encode(format!("/evenkeel/{SERVICE}/{address}"))
}

impl Running for Cluster {
    fn members(&self) -> Vec<SocketAddr> {
        self.members.iter().map(|member| member.client).collect()
    }

    fn target(&self, members: &[SocketAddr], _: u16) -> Result<String, BoxError> {
        let members: Vec<_> = members.iter().map(ToString::to_string).collect();
        Ok(format!("etcd://{}/{SERVICE}", members.join(",")))
    }

    fn register(&self) -> Option<Register> {
        let url = |member: &Member| format!("http://{}", member.client);
        Some(Register::Etcd(self.members.iter().map(url).collect()))
    }

    fn insert<'a>(&'a mut self, many: &'a [SocketAddr]) -> BoxFuture<'a, Result<(), BoxError>> {
        let put = |address: &SocketAddr| {
            let value = BASE64_STANDARD.encode(json!({ "address": address }).to_string());
            json!({ "requestPut": { "key": key(*address), "value": value } })
        };
        let operations: Vec<_> = many.iter().map(put).collect();
        async move { self.transact(&operations).await }.boxed()
    }

    fn remove(&mut self, one: SocketAddr) -> BoxFuture<'_, Result<(), BoxError>> {
        let delete = json!({ "requestDeleteRange": { "key": key(one) } });
        async move { self.transact(&[delete]).await }.boxed()
    }

    fn restart(&mut self) -> BoxFuture<'_, Result<(), BoxError>> {
        async move {
            for member in &mut self.members {
                member.server.kill().await?;
            }
            self.members.iter_mut().try_for_each(|member| member.server.start_again())
        }
        .boxed()
    }

    fn pause(&mut self) -> Result<(), BoxError> {
        self.members.iter().try_for_each(|member| member.server.pause())
    }

    fn resume(&mut self) -> Result<(), BoxError> {
        self.members.iter().try_for_each(|member| member.server.resume())
    }

    fn kill_leader(&mut self) -> BoxFuture<'_, Result<(), BoxError>> {
        async move {
            let leader = self.leader().await?;
            self.members[leader].is_dead = true;
            self.members[leader].server.kill().await
        }
        .boxed()
    }

    fn until_ready(&self) -> BoxFuture<'_, Result<(), BoxError>> {
        until("a leader of etcd", || self.is_ready()).boxed()
    }
}
