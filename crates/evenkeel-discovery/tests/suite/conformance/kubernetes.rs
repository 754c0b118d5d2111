//! A real API server of Kubernetes, with slices that the test writes.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use evenkeel_core::{backoff::Backoff, endpoint::Address};
use evenkeel_discovery::{Kubernetes, kubernetes::ApiServer};
use serde_json::{Value, json};

use crate::conformance::{
    harness::{BACKOFF, HOLD, Harness, Instance, State},
    real::Cluster,
    slow_motion::Proxy,
};

pub(crate) struct OneServer {
    cluster: Cluster,
    proxy: Proxy,
    /// The current slices by name.
    now: BTreeMap<String, Value>,
}

impl Harness for OneServer {
    const PARTS: (u16, u16) = (3, 20);
    const HAS_WEIGHTS: bool = false;
    const NOTE: &'static str = "kubernetes.hostname";

    type Source = Kubernetes;

    async fn start() -> Option<Self> {
        let cluster = Cluster::start().await?;
        let proxy = Proxy::to(&cluster.url()).await;
        Some(Self { cluster, proxy, now: BTreeMap::new() })
    }

    fn discovery(&self) -> Kubernetes {
        let (min, max) = BACKOFF;
        let url = self.proxy.url.replace("http:", "https:");
        let kubeconfig = self.cluster.kubeconfig_at(&url, &json!({ "token": "reader" }));
        let server = ApiServer::kubeconfig(kubeconfig).timeout(Duration::from_secs(5));
        let web = Kubernetes::new(server, "web").namespace("shop").port("http");
        web.backoff(Backoff::new(min, max)).hold(HOLD).quiet(Duration::from_secs(5))
    }

    fn way(&self) -> &Proxy {
        &self.proxy
    }

    fn url(&self) -> String {
        self.cluster.url()
    }

    async fn set(&mut self, instances: &[Instance]) {
        let new = slices(instances);
        for (name, slice) in new.iter().filter(|(name, slice)| self.now.get(*name) != Some(slice)) {
            self.cluster.put(name, slice.clone()).await;
        }
        let gone: Vec<_> = self.now.keys().filter(|name| !new.contains_key(*name)).collect();
        for name in gone {
            self.cluster.delete(name).await;
        }
        self.now = new;
    }

    /// Loses its data, and gets its slices back, one after the other.
    async fn blink(&mut self) {
        let now = std::mem::take(&mut self.now);
        self.go_back(&[]).await;
        for (name, slice) in &now {
            self.cluster.put(name, slice.clone()).await;
        }
        self.now = now;
    }

    async fn lose_history(&mut self, now: &[Instance]) {
        let port = self.cluster.replace_server().await;
        self.set(now).await;
        self.cluster.put_back_server(port).await;
    }

    async fn go_back(&mut self, now: &[Instance]) {
        self.now.clear();
        self.cluster.forget();
        self.cluster.start_server_again().await;
        self.set(now).await;
    }

    async fn fail(&mut self) {
        self.cluster.server.kill();
    }

    async fn mend(&mut self) {
        self.cluster.start_server_again().await;
    }

    async fn enter_beside(&mut self) {
        let slice = || json!({ "endpoints": [{ "addresses": ["10.9.9.9"] }] });
        self.cluster.put_of("web-admin", "web-admin-1", slice()).await;
        self.cluster.put_of("we", "we-1", slice()).await;
    }
}

/// All endpoints of a slice have one port, so each port and family has slices of its own.
fn slices(instances: &[Instance]) -> BTreeMap<String, Value> {
    let read = |instance: &Instance| match instance.address.parse().unwrap() {
        Address::Socket(address) => address,
        other => panic!("{other} is no address of a pod"),
    };
    let kinds: BTreeSet<_> =
        instances.iter().map(|one| (one.part, read(one).port(), read(one).is_ipv6())).collect();
    let slice = |(part, port, is_ipv6): (u16, u16, bool)| {
        let endpoints: Vec<_> = instances
            .iter()
            .filter(|one| (one.part, read(one).port(), read(one).is_ipv6()) == (part, port, is_ipv6))
            .map(|one| {
                let conditions = match one.state {
                    State::Silent => json!({}),
                    State::Draining => json!({ "ready": false, "serving": true, "terminating": true }),
                    State::Failing => json!({ "ready": false, "serving": false }),
                };
                json!({ "addresses": [read(one).ip()], "conditions": conditions, "hostname": one.note })
            })
            .collect();
        let slice = json!({
            "addressType": if is_ipv6 { "IPv6" } else { "IPv4" }, "endpoints": endpoints,
            "ports": [{ "name": "http", "port": port, "protocol": "TCP" }],
        });
        (format!("web-{part}-{port}-{}", if is_ipv6 { 6 } else { 4 }), slice)
    };
    kinds.into_iter().map(slice).collect()
}
