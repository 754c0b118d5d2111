//! Rules that are no policies of evenkeel: what its policies are compared with.
//!
//! Each is written anew from its description. Some know what no client can know, such as the requests
//! in flight at each server: that stands for the polls, probes and reports that they have in reality.

mod tower;

use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
};

use evenkeel_core::{endpoint::Address, node::Node, policy::Policy};

/// The names of all rules here.
pub const NAMES: [&str; 2] = ["tower_p2c", "tower_peak_ewma"];

/// The rule of this name.
#[must_use]
pub fn by_name(name: &str, _surroundings: &Surroundings) -> Option<Box<dyn Policy>> {
    Some(match name {
        "tower_p2c" => Box::new(tower::PendingRequests),
        "tower_peak_ewma" => Box::new(tower::TowerPeakEwma),
        _ => return None,
    })
}

/// What servers would tell those who ask them, as it is now.
#[derive(Clone, Debug)]
pub struct Surroundings(Arc<Vec<Seen>>);

/// What one server would tell.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    in_flight: AtomicU32,
    completed: AtomicU64,
    /// Core-seconds, as the bits of an `f64`.
    busy: AtomicU64,
}

impl Surroundings {
    /// So many servers that have done nothing yet.
    #[must_use]
    pub fn new(servers: usize) -> Self {
        Self(Arc::new((0..servers).map(|_| Seen::default()).collect()))
    }

    pub(crate) fn server(&self, server: u32) -> &Seen {
        &self.0[server as usize]
    }
}

impl Seen {
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    pub(crate) fn set_in_flight(&self, in_flight: u32) {
        self.in_flight.store(in_flight, Relaxed);
    }

    pub(crate) fn completed(&self) -> u64 {
        self.completed.load(Relaxed)
    }

    pub(crate) fn complete(&self) {
        self.completed.fetch_add(1, Relaxed);
    }

    pub(crate) fn busy(&self) -> f64 {
        f64::from_bits(self.busy.load(Relaxed))
    }

    pub(crate) fn set_busy(&self, busy: f64) {
        self.busy.store(busy.to_bits(), Relaxed);
    }
}

/// The address of a server: its number in 10.0.0.0/8.
#[must_use]
pub fn address_of(server: u32) -> Address {
    let [_, a, b, c] = server.to_be_bytes();
    Address::Socket(std::net::SocketAddr::from(([10, a, b, c], 80)))
}

/// Which server a node is.
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
