//! Changes of the servers: several times a second one of them gets better or worse.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use evenkeel::{
    core::{endpoint::Endpoint, rng::Rng},
    discovery::channel::{ChannelDiscovery, Sender, channel},
};
use tokio::time::{sleep, timeout};

use crate::{
    ledger::Ledger,
    server::{Mood, Server},
};

/// The minimum number of servers that are well. Without any, no request could be answered.
const MIN_WELL: usize = 3;

const MIN_SERVERS: usize = 5;
const MAX_SERVERS: usize = 10;

/// The servers, and the registry that lists them.
pub(crate) struct Churn {
    rng: Rng,
    ledger: Arc<Ledger>,
    registry: Sender,
    /// Servers that the registry lists.
    servers: Vec<Server>,
    /// Dead servers that the registry still lists.
    dead: Vec<std::net::SocketAddr>,
    connections: Arc<AtomicUsize>,
    pub(crate) changes: usize,
}

impl Churn {
    pub(crate) async fn set_up(seed: u64, ledger: Arc<Ledger>) -> (Self, ChannelDiscovery) {
        let (registry, discovery) = channel();
        let mut churn = Self {
            rng: Rng::with_seed(seed ^ 0xC0FFEE),
            ledger,
            registry,
            servers: Vec::new(),
            dead: Vec::new(),
            connections: Arc::default(),
            changes: 0,
        };
        for _ in 0..MIN_SERVERS {
            churn.join().await;
        }
        (churn, discovery)
    }

    /// Changes a server several times a second. At the end all servers are well.
    pub(crate) async fn play(mut self, duration: Duration) -> Self {
        let changes = async {
            loop {
                sleep(Duration::from_millis(50 + self.rng.below_u64(300))).await;
                self.change().await;
                self.changes += 1;
            }
        };
        _ = timeout(duration, changes).await;
        self.servers.iter().for_each(|server| server.set(Mood::Well));
        self
    }

    /// The number of connections that clients hold open.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }

    async fn change(&mut self) {
        let index = self.rng.below(self.servers.len());
        let can_lose = !self.servers[index].is_well() || MIN_WELL < self.well();
        match self.rng.below(10) {
            0 | 1 if self.servers.len() < MAX_SERVERS => self.join().await,
            2 if can_lose && MIN_SERVERS < self.servers.len() => {
                // A graceful leave: removed from the registry, then stopped.
                let server = self.servers.swap_remove(index);
                self.registry.remove(&server.address.into());
                sleep(Duration::from_millis(300)).await;
            }
            3 if can_lose && MIN_SERVERS < self.servers.len() => {
                let server = self.servers.swap_remove(index);
                self.dead.push(server.address);
            }
            4 => {
                if let Some(address) = self.dead.pop() {
                    self.registry.remove(&address.into());
                }
            }
            5 => {
                let weight = self.rng.below(4) as u32;
                let weight = if can_lose { weight } else { weight.max(1) };
                self.registry.set_weight(&self.servers[index].address.into(), weight);
                sleep(Duration::from_millis(100)).await;
                self.registry.set_weight(&self.servers[index].address.into(), 1);
            }
            6 | 7 if can_lose => {
                let mood = Mood::ALL[self.rng.below(Mood::ALL.len())];
                self.servers[index].set(mood);
            }
            _ => self.servers[index].set(Mood::Well),
        }
    }

    fn well(&self) -> usize {
        self.servers.iter().filter(|server| server.is_well()).count()
    }

    async fn join(&mut self) {
        let server = Server::start(self.ledger.clone(), self.connections.clone()).await;
        self.registry.insert(Endpoint::new(server.address));
        self.servers.push(server);
    }
}
