//! Which of very many endpoints one client uses, so that each side keeps few connections.
//!
//! A thousand clients of a thousand endpoints make a million connections, each with its buffers,
//! its TLS state and its health checks, and each nearly idle. With a subset of 20 endpoints for
//! each client there are 20,000, and a client still has enough endpoints to choose from.
//!
//! | subset | what must be known | endpoints a client | connections an endpoint, of `c·k/n` on average | when an endpoint comes or goes |
//! |---|---|---|---|---|
//! | [`RandomSubset`] | nothing | `k` | random: three times the mean at a mean of 5, a third more at 100 | only its own connections move |
//! | [`Aperture`] | each client its place among all clients | `k + n/c + 2` at most | `c·k/n + c/n + 2` at most, and exactly even load | one connection in seven moves, measured |
//! | [`Rocksteadier`] | each client its number, and all clients the same numbers of endpoints | `k` | within a fifth of the mean, measured | only its own connections move |
//!
//! There are `c` clients, `n` endpoints, and subsets of `k`. **Use** a subset where the number of
//! connections is a problem, which it is from some hundreds of clients and endpoints on. Do **not**
//! use one below that: a subset sees less of the fleet's load and fails with fewer endpoints. `k`
//! should not be below ten, so that unhealthy endpoints can be spared and policies have a choice.
//!
//! A subset is chosen when the set changes, in O(n log n), and costs nothing per request. In a
//! stack it is `DiscoveryExt::subset` of evenkeel-discovery.
//!
//! Endpoints of weight 0 are in no subset: they only finish the requests they have.

use std::{collections::BTreeSet, fmt};

use crate::{
    endpoint::{Address, Endpoint},
    hash::xxh64_seeded,
};

mod aperture;
mod random;
mod rocksteadier;

pub use aperture::{Aperture, Client};
pub use random::RandomSubset;
pub use rocksteadier::Rocksteadier;

/// A rule that chooses the endpoints of one client.
pub trait Subset: fmt::Debug + Send + Sync + 'static {
    /// The `endpoints` that this client uses, in their order, perhaps with other weights.
    ///
    /// Each address occurs once. `numbers` has the number of each endpoint.
    fn choose(&self, endpoints: &[Endpoint], numbers: &Numbers) -> Vec<Endpoint>;
}

impl<S: Subset + ?Sized> Subset for std::sync::Arc<S> {
    fn choose(&self, endpoints: &[Endpoint], numbers: &Numbers) -> Vec<Endpoint> {
        (**self).choose(endpoints, numbers)
    }
}

/// Numbers of endpoints that stay the same as long as the endpoints stay.
///
/// Numbers begin at 0 and have no gaps except those of endpoints that have left. A new endpoint
/// takes the lowest free number. Endpoints that come together are numbered in the order of their
/// hashes, so that all clients that saw the same changes have the same numbers.
///
/// ```
/// use evenkeel::core::{endpoint::Endpoint, subset::Numbers};
///
/// let endpoints: Vec<Endpoint> =
///     ["10.0.0.1:80", "10.0.0.2:80"].iter().map(|address| address.parse().unwrap()).collect();
/// let mut numbers = Numbers::default();
/// numbers.update(&endpoints);
/// let second = numbers.of(&endpoints[1].address);
/// numbers.update(&endpoints[1..]);
/// assert_eq!(numbers.of(&endpoints[1].address), second);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    known: std::collections::HashMap<Address, u32>,
}

impl Numbers {
    /// Keeps the numbers of endpoints that stay, and gives numbers to new ones.
    pub fn update(&mut self, endpoints: &[Endpoint]) {
        let present: std::collections::HashSet<_> =
            endpoints.iter().map(|endpoint| &endpoint.address).collect();
        self.known.retain(|address, _| present.contains(address));
        let taken: BTreeSet<u32> = self.known.values().copied().collect();
        let mut free = (0..).filter(|number| !taken.contains(number));
        let new = endpoints.iter().filter(|endpoint| !self.known.contains_key(&endpoint.address));
        for endpoint in in_hash_order(new, 0) {
            let number = free.next().expect("there are more numbers than endpoints");
            self.known.insert(endpoint.address.clone(), number);
        }
    }

    /// The number of the endpoint with this address, if it was there at the last update.
    #[must_use]
    pub fn of(&self, address: &Address) -> Option<u32> {
        self.known.get(address).copied()
    }
}

/// Endpoints in an order that is unrelated to their origin and the same for all clients.
fn in_hash_order<'a>(
    endpoints: impl Iterator<Item = &'a Endpoint>,
    seed: u64,
) -> Vec<&'a Endpoint> {
    let hashed = |endpoint: &'a Endpoint| {
        let address = endpoint.address.to_string();
        (xxh64_seeded(address.as_bytes(), seed), address, endpoint)
    };
    let mut in_order: Vec<_> = endpoints.map(hashed).collect();
    in_order.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    in_order.into_iter().map(|(_, _, endpoint)| endpoint).collect()
}

/// The `endpoints` that have a weight by `weight`, in their order.
fn keep(endpoints: &[Endpoint], weight: impl Fn(&Endpoint) -> Option<u32>) -> Vec<Endpoint> {
    let kept = endpoints.iter().filter_map(|endpoint| Some((endpoint, weight(endpoint)?)));
    kept.map(|(endpoint, weight)| endpoint.clone().weight(weight)).collect()
}
