//! Rules for comparison. They are not policies of evenkeel.
//!
//! Each is written from its published description. Some use facts that no client can know, such as
//! the requests in flight at each server. These stand for the polls, probes and reports of the real
//! implementation.

mod polled;
mod tower;

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use evenkeel_core::{
    endpoint::Address,
    node::Node,
    policy::{PickContext, Policy},
    rng::Rng,
};

/// All rules here, and how each is made.
static RULES: &[(&str, fn(&Surroundings) -> Box<dyn Policy>)] = &[
    ("tower_p2c", |_| Box::new(tower::PendingRequests)),
    ("tower_peak_ewma", |_| Box::new(tower::TowerPeakEwma)),
    ("polled_p2c", |seen| Box::new(polled::PolledP2c { surroundings: seen.clone() })),
    ("least_loaded_in_turn", |_| Box::new(polled::LeastLoadedInTurn)),
];

/// The names of all rules here.
pub fn names() -> impl Iterator<Item = &'static str> {
    RULES.iter().map(|(name, _)| *name)
}

/// The rule of this name.
#[must_use]
pub fn by_name(name: &str, surroundings: &Surroundings) -> Option<Box<dyn Policy>> {
    RULES.iter().find(|(known, _)| *known == name).map(|(_, make)| make(surroundings))
}

/// What the servers report about themselves now, and the zone of the client.
#[derive(Clone, Debug)]
pub struct Surroundings {
    servers: Arc<Vec<Seen>>,
    zone: Option<Arc<str>>,
}

/// What one server reports.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    in_flight: AtomicU32,
}

impl Surroundings {
    /// This many servers without any load.
    #[must_use]
    pub fn new(servers: usize) -> Self {
        Self { servers: Arc::new((0..servers).map(|_| Seen::default()).collect()), zone: None }
    }

    /// The same servers, seen from a zone.
    #[must_use]
    pub fn in_zone(&self, zone: &str) -> Self {
        Self { servers: self.servers.clone(), zone: Some(zone.into()) }
    }

    /// The zone of the client, if it has one.
    #[must_use]
    pub fn zone(&self) -> Option<Arc<str>> {
        self.zone.clone()
    }

    pub(crate) fn server(&self, server: u32) -> &Seen {
        &self.servers[server as usize]
    }
}

impl Seen {
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    pub(crate) fn set_in_flight(&self, in_flight: u32) {
        self.in_flight.store(in_flight, Relaxed);
    }
}

/// The address of a server: its number in 10.0.0.0/8.
#[must_use]
pub fn address_of(server: u32) -> Address {
    let [_, a, b, c] = server.to_be_bytes();
    Address::Socket(std::net::SocketAddr::from(([10, a, b, c], 80)))
}

/// The server behind a node.
#[must_use]
pub(crate) fn server_of(node: &Node) -> u32 {
    match node.address() {
        Address::Socket(std::net::SocketAddr::V4(address)) => {
            let [_, a, b, c] = address.ip().octets();
            u32::from_be_bytes([0, a, b, c])
        }
        _ => unreachable!("every server has an IPv4 address"),
    }
}

/// Two distinct admitted nodes; the same node twice if only one is admitted.
fn two(nodes: &[Arc<Node>], cx: &mut PickContext<'_>) -> Option<(usize, usize)> {
    let draw = |rng: &mut Rng| rng.below(nodes.len());
    if nodes.is_empty() {
        return None;
    }
    for _ in 0..64 {
        let (first, second) = (draw(cx.rng), draw(cx.rng));
        let is_admitted = cx.admits(&nodes[first]) && cx.admits(&nodes[second]);
        if is_admitted && (first != second || nodes.len() == 1) {
            return Some((first, second));
        }
    }
    let only = nodes.iter().position(|node| cx.admits(node))?;
    Some((only, only))
}
