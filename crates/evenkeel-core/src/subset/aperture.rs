//! Deterministic aperture: clients and endpoints on one ring.

use std::collections::HashMap;

use super::{Numbers, Subset, in_hash_order, keep};
use crate::endpoint::{Address, Endpoint};

/// The place of a client among all clients of the same service.
///
/// ```
/// use evenkeel::core::subset::Client;
///
/// let client = Client::new(3, 40); // the fourth of forty
/// # let _ = client;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    number: u32,
    total: u32,
}

impl Client {
    /// The client of this number, counted from 0, of `total`.
    ///
    /// # Panics
    /// If `total` is zero, or `number` is not below it.
    #[must_use]
    pub fn new(number: u32, total: u32) -> Self {
        assert!(number < total, "client {number} of {total}: numbers begin at 0");
        Self { number, total }
    }
}

/// Uses the endpoints on an arc of a ring. The arc begins at the client's place.
///
/// Endpoints are on the ring in the order of their hashes, each on an arc as long as its weight.
/// Clients are at equal distances. The arc of a client is as long as `size` endpoints, rounded up
/// so that every point of the ring is covered by the same number of clients. An endpoint that is
/// only partly on the arc gets a weight for that part. So over all clients the load is exactly
/// even, or as weights say, whatever the numbers of both.
///
/// It sets new weights, from 1 to 65,535, so the policy must use them:
/// [`WeightedP2c`](crate::policy::WeightedP2c), for example.
///
/// **Use it** where clients are numbered without gaps, as the pods of a StatefulSet are, and even
/// load counts most. **Not** where endpoints come and go all the time: each one that comes moves
/// others along the ring. With 300 endpoints and 150 clients, one that leaves moves a seventh of
/// all connections. [`Rocksteadier`](super::Rocksteadier) moves less.
///
/// A client uses at most `size + n/c + 2` endpoints. An endpoint of average weight has at most
/// `c·size/n + c/n + 2` clients. Source: Finagle's deterministic aperture, where `size` is 12.
#[derive(Clone, Debug)]
pub struct Aperture {
    size: u32,
    client: Client,
}

impl Aperture {
    /// Uses an arc of about `size` endpoints for this client.
    ///
    /// # Panics
    /// If `size` is zero.
    #[must_use]
    pub fn new(size: u32, client: Client) -> Self {
        assert!(0 < size, "a client needs an endpoint");
        Self { size, client }
    }

    /// How many clients cover each point of a ring of `endpoints`.
    fn cover(&self, endpoints: usize) -> u128 {
        let total = u128::from(self.client.total);
        (u128::from(self.size) * total).div_ceil(endpoints.max(1) as u128).min(total)
    }
}

impl Subset for Aperture {
    fn choose(&self, endpoints: &[Endpoint], _: &Numbers) -> Vec<Endpoint> {
        const MAX_WEIGHT: u128 = 65_535;
        let ring = in_hash_order(endpoints.iter().filter(|endpoint| 0 < endpoint.weight), 0);
        // The unit makes both arcs of endpoints and distances of clients whole numbers: the ring is
        // as long as all weights together times the number of clients.
        let weights: u128 = ring.iter().map(|endpoint| u128::from(endpoint.weight)).sum();
        let total = u128::from(self.client.total);
        let length = weights * total;
        let start = weights * u128::from(self.client.number);
        let end = start + weights * self.cover(ring.len());
        let mut overlaps: HashMap<&Address, u128> = HashMap::new();
        let mut position = 0;
        for endpoint in ring {
            let next = position + u128::from(endpoint.weight) * total;
            // An arc may continue past the end of the ring, at its beginning.
            let here = overlap((start, end), (position, next));
            let around = overlap((start, end), (position + length, next + length));
            overlaps.insert(&endpoint.address, here + around);
            position = next;
        }
        let longest = overlaps.values().copied().max().unwrap_or(0);
        keep(endpoints, |endpoint| {
            let overlap = *overlaps.get(&endpoint.address).filter(|overlap| **overlap != 0)?;
            Some((overlap * MAX_WEIGHT).div_ceil(longest) as u32)
        })
    }
}

fn overlap(a: (u128, u128), b: (u128, u128)) -> u128 {
    a.1.min(b.1).saturating_sub(a.0.max(b.0))
}
