//! A real member of etcd, of one of three versions.
#![allow(dead_code, reason = "no test needs all of it")]

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use evenkeel_core::backoff::Backoff;
use evenkeel_discovery::{
    Etcd,
    etcd::Cluster,
    register::{Entry, EtcdRegistry, Registered, Registration},
};
use serde_json::json;

use crate::conformance::{
    etcd_real::{self, VERSIONS},
    harness::{BACKOFF, HOLD, Harness, Instance, State},
    servers::until,
    slow_motion::Proxy,
};

pub(crate) struct OneMember<const VERSION: usize> {
    etcd: etcd_real::Etcd,
    proxy: Proxy,
    /// The current entries by key.
    now: BTreeMap<String, Instance>,
}

impl<const VERSION: usize> Harness for OneMember<VERSION> {
    // Two pages.
    const PARTS: (u16, u16) = (2, 1_000);
    const HAS_TIERS: bool = true;

    type Source = Etcd;

    async fn start() -> Option<Self> {
        let etcd = etcd_real::Etcd::start(VERSIONS[VERSION]).await?;
        let proxy = Proxy::to(&etcd.members[0].url).await;
        Some(Self { etcd, proxy, now: BTreeMap::new() })
    }

    fn discovery(&self) -> Etcd {
        follow_at(Cluster::at([&*self.proxy.url]).unwrap())
    }

    async fn set(&mut self, instances: &[Instance]) {
        let new: BTreeMap<_, _> = instances
            .iter()
            .map(|one| (format!("/evenkeel/web/{}", one.address), one.clone()))
            .collect();
        let mut lines = vec![];
        for (key, instance) in &new {
            if self.now.get(key) == Some(instance) {
                continue;
            }
            if instance.state == State::Failing {
                self.leave_to_die(key, instance);
            } else {
                lines.push(format!("put {key} {}\n", quoted(&value(instance))));
            }
        }
        let gone = self.now.keys().filter(|key| !new.contains_key(*key));
        lines.extend(gone.map(|key| format!("del {key}\n")));
        // Within the limit of one transaction.
        for some in lines.chunks(100) {
            self.etcd.transact(&some.concat());
        }
        self.now = new;
    }

    /// Restarts without data, and gets its entries back, one after the other.
    async fn blink(&mut self) {
        let now: Vec<_> = std::mem::take(&mut self.now).into_values().collect();
        self.go_back(&[]).await;
        for end in 1..=now.len() {
            self.set(&now[..end]).await;
        }
    }

    /// Cuts the watch, and compacts the changes that were made meanwhile.
    async fn lose_history(&mut self, now: &[Instance]) {
        self.proxy.shut();
        self.set(now).await;
        self.etcd.control(&["compact", &self.etcd.revision().to_string()]);
        self.proxy.open();
    }

    async fn go_back(&mut self, now: &[Instance]) {
        self.now.clear();
        self.etcd.members[0].kill();
        self.etcd.members[0].forget();
        self.etcd.members[0].start_again();
        self.etcd.until_ready().await;
        self.set(now).await;
    }

    async fn fail(&mut self) {
        self.proxy.shut();
    }

    async fn mend(&mut self) {
        self.proxy.open();
    }

    fn url(&self) -> String {
        self.etcd.members[0].url.clone()
    }

    fn way(&self) -> &Proxy {
        &self.proxy
    }

    fn asked(&self) -> Vec<Instant> {
        self.proxy.tried()
    }

    async fn enter_beside(&mut self) {
        for key in ["/evenkeel/web-admin/1", "/evenkeel/webs", "/evenkeel/we/1", "/evenkeel/web"] {
            self.etcd.control(&["put", key, "10.9.9.9:9"]);
        }
    }

    fn register_at(&self, url: &str, entry: Entry) -> Registered {
        Registration::new(EtcdRegistry::new(Cluster::at([url]).unwrap()), entry)
            .ttl(Duration::from_secs(3))
            .propagation(Duration::ZERO)
            .start()
    }

    async fn take_out(&mut self, entry: &Entry) {
        let key = format!("/evenkeel/web/{}", entry.id);
        until("the key", || async {
            !self.etcd.control(&["get", "--keys-only", &key]).trim().is_empty()
        })
        .await;
        self.etcd.control(&["del", &key]);
    }
}

impl<const VERSION: usize> OneMember<VERSION> {
    /// Puts it under a lease that is not kept alive, and waits until the lease has expired.
    fn leave_to_die(&self, key: &str, instance: &Instance) {
        let granted = self.etcd.control(&["lease", "grant", "2"]);
        let lease = granted.split_whitespace().nth(1).unwrap();
        self.etcd.control(&["put", key, &value(instance), "--lease", lease]);
        while !self.etcd.control(&["get", "--keys-only", key]).trim().is_empty() {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// The service in this cluster.
pub(crate) fn follow_at(cluster: Cluster) -> Etcd {
    let (min, max) = BACKOFF;
    Etcd::new(cluster.timeout(Duration::from_secs(2)), "web")
        .backoff(Backoff::new(min, max))
        .hold(HOLD)
        .quiet(Duration::from_secs(1))
}

fn value(instance: &Instance) -> String {
    let weight = if instance.state == State::Draining { 0 } else { instance.weight };
    let mut value =
        json!({ "address": instance.address, "weight": weight, "priority": instance.tier });
    if let Some(note) = instance.note {
        value["metadata"] = json!({ "note": note });
    }
    value.to_string()
}

/// Quotes a text for the language of `etcdctl txn`.
fn quoted(text: &str) -> String {
    format!("{text:?}")
}
