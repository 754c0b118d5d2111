//! A real agent of Consul.
#![allow(dead_code, reason = "no test needs all of it")]

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use evenkeel_core::backoff::Backoff;
use evenkeel_discovery::{
    consul::{Agents, Consul},
    register::{ConsulRegistry, Entry, Registered, Registration},
};
use serde_json::{Value, json};

use crate::conformance::{
    consul_real::{Agent, VERSIONS},
    harness::{BACKOFF, HOLD, Harness, Instance, State},
    servers::until,
    slow_motion::Proxy,
};

/// How many instances are entered one by one. More are entered in one transaction, on a node of
/// their own.
const FEW: usize = 10;

/// An agent of the version at index `VERSION` of [`VERSIONS`].
pub(crate) struct OneAgent<const VERSION: usize> {
    agent: Agent,
    proxy: Proxy,
    /// The current entries by id.
    now: BTreeMap<String, Instance>,
}

impl<const VERSION: usize> Harness for OneAgent<VERSION> {
    type Source = Consul;

    async fn start() -> Option<Self> {
        let agent = Agent::start_of(VERSIONS[VERSION]).await?;
        let proxy = Proxy::to(&agent.url).await;
        agent.put("/v1/catalog/register", json!({ "Node": "batch", "Address": "10.0.0.1" })).await;
        Some(Self { agent, proxy, now: BTreeMap::new() })
    }

    fn discovery(&self) -> Consul {
        follow(&self.proxy.url)
    }

    async fn set(&mut self, instances: &[Instance]) {
        let new: BTreeMap<_, _> =
            instances.iter().map(|one| (id(&one.address), one.clone())).collect();
        let changed: Vec<_> =
            new.iter().filter(|(id, one)| self.now.get(*id) != Some(*one)).collect();
        let gone: Vec<_> = self.now.keys().filter(|id| !new.contains_key(*id)).collect();
        if FEW < changed.len() + gone.len() {
            self.transact(&changed, &gone).await;
        } else {
            for (id, instance) in changed {
                self.enter(id, instance, self.now.get(id)).await;
            }
            for id in gone {
                self.remove(id, &self.now[id]).await;
            }
        }
        self.now = new;
    }

    /// Restarts without data, and gets its entries back, one after the other.
    async fn blink(&mut self) {
        let now: Vec<_> = std::mem::take(&mut self.now).into_values().collect();
        self.agent.kill();
        self.agent.start_again().await;
        let before = self.proxy.carried();
        until("an answer of an agent that knows nothing", || async {
            before < self.proxy.carried()
        })
        .await;
        self.set(&now).await;
    }

    async fn lose_history(&mut self, now: &[Instance]) {
        self.proxy.shut();
        self.go_back(now).await;
        self.proxy.open();
    }

    async fn go_back(&mut self, now: &[Instance]) {
        self.now.clear();
        self.agent.kill();
        self.agent.start_again().await;
        self.set(now).await;
    }

    async fn fail(&mut self) {
        self.proxy.shut();
    }

    async fn mend(&mut self) {
        self.proxy.open();
    }

    fn url(&self) -> String {
        self.agent.url.clone()
    }

    fn way(&self) -> &Proxy {
        &self.proxy
    }

    fn asked(&self) -> Vec<Instant> {
        self.proxy.tried()
    }

    async fn enter_beside(&mut self) {
        for name in ["web-admin", "webs", "we"] {
            let entry = json!({ "ID": name, "Name": name, "Address": "10.9.9.9", "Port": 9 });
            self.agent.put("/v1/agent/service/register", entry).await;
        }
    }

    fn register_at(&self, url: &str, entry: Entry) -> Registered {
        let agents = Agents::at([url]).unwrap();
        Registration::new(ConsulRegistry::new(agents), entry)
            .ttl(Duration::from_secs(3))
            .propagation(Duration::ZERO)
            .start()
    }

    async fn take_out(&mut self, entry: &Entry) {
        let path = format!("/v1/agent/service/deregister/{}", entry.id);
        self.agent.put(&path, Value::Null).await;
    }
}

impl<const VERSION: usize> OneAgent<VERSION> {
    async fn enter(&self, id: &str, instance: &Instance, before: Option<&Instance>) {
        let (host, port) = place(&instance.address);
        let mut meta = json!({});
        if let Some(note) = instance.note {
            meta["note"] = note.into();
        }
        let mut service = json!({ "ID": id, "Name": "web", "Address": host, "Port": port,
            "Meta": meta, "Weights": { "Passing": instance.weight, "Warning": 1 } });
        if 0 < instance.part {
            let service = json!({ "ID": id, "Service": "web", "Port": port });
            let entry = json!({ "Node": format!("part-{}", instance.part), "Address": host,
                "Service": service });
            return self.agent.put("/v1/catalog/register", entry).await;
        }
        if instance.state == State::Failing {
            service["Check"] = json!({ "CheckID": format!("{id}-check"), "TTL": "600s" });
        }
        let path = "/v1/agent/service/register?replace-existing-checks=true";
        self.agent.put(path, service).await;
        let is_draining = instance.state == State::Draining;
        if is_draining || before.is_some_and(|before| before.state == State::Draining) {
            let path = format!("/v1/agent/service/maintenance/{id}?enable={is_draining}");
            self.agent.put(&path, Value::Null).await;
        }
    }

    async fn remove(&self, id: &str, instance: &Instance) {
        if 0 < instance.part {
            let entry = json!({ "Node": format!("part-{}", instance.part), "ServiceID": id });
            return self.agent.put("/v1/catalog/deregister", entry).await;
        }
        self.remove_single(id).await;
        self.agent.put("/v1/catalog/deregister", json!({ "Node": "batch", "ServiceID": id })).await;
    }

    /// Removes an entry that was entered singly. The agent refuses ids that were not.
    async fn remove_single(&self, id: &str) {
        let path = format!("/v1/agent/service/deregister/{id}");
        let _ = self.agent.ask("PUT", &path, Value::Null).await;
    }

    /// Makes all changes at one index.
    async fn transact(&self, changed: &[(&String, &Instance)], gone: &[&String]) {
        let mut operations = vec![];
        for (id, instance) in changed {
            let (host, port) = place(&instance.address);
            let service = json!({ "ID": id, "Service": "web", "Address": host, "Port": port });
            operations
                .push(json!({ "Service": { "Verb": "set", "Node": "batch", "Service": service } }));
        }
        for id in gone {
            self.remove_single(id).await;
            operations.push(json!({ "Service": { "Verb": "delete", "Node": "batch",
                "Service": { "ID": id, "Service": "web" } } }));
        }
        // The most operations of one transaction.
        for some in operations.chunks(64) {
            self.agent.put("/v1/txn", Value::from(some.to_vec())).await;
        }
    }
}

/// The service at this agent.
pub(crate) fn follow(url: &str) -> Consul {
    follow_at(Agents::at([url]).unwrap())
}

pub(crate) fn follow_at(agents: Agents) -> Consul {
    let (min, max) = BACKOFF;
    Consul::new(agents.timeout(Duration::from_secs(2)), "web")
        .backoff(Backoff::new(min, max))
        .hold(HOLD)
        .wait(Duration::from_secs(2))
}

fn id(address: &str) -> String {
    format!("web-{}", address.replace(|c: char| !c.is_ascii_alphanumeric(), "-"))
}

/// Host and port, an IPv6 address without its brackets.
fn place(address: &str) -> (&str, u16) {
    let (host, port) = address.rsplit_once(':').unwrap();
    (host.trim_matches(['[', ']']), port.parse().unwrap())
}
