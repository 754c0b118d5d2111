//! Rocksteadier subsetting: even, diverse, and hardly affected by arrivals and departures.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
};

use super::{Numbers, Subset, keep};
use crate::{endpoint::Endpoint, hash::mix};

/// Uses `size` endpoints from lots that are placed on a ring of low discrepancy.
///
/// Clients and endpoints are numbered, and ten neighbours form a lot. Lots of endpoints are on a
/// ring in the order of a binary van der Corput sequence, in which each new lot halves a widest gap
/// and moves no other. The clients of one lot walk the ring from the same place. From each lot of
/// endpoints that they meet, each client takes a different endpoint, by a shuffle specific to their
/// lot. As a result:
///
/// * The clients of a lot load all the endpoints that they use alike, and lots of clients load lots
///   evenly.
/// * Clients next to each other have different endpoints, and clients that share one endpoint share
///   few others. So the load of an endpoint that dies spreads over many.
/// * When an endpoint goes, the clients that used it take one more, and nothing else moves. An
///   endpoint that comes takes its place. A client that comes or goes changes nothing for the
///   others.
///
/// **Use it** where clients can be numbered and either side grows, shrinks or restarts often.
/// **Not** where numbers do not form a sequence from 0, such as hashes: then it is no better than
/// [`RandomSubset`](super::RandomSubset).
///
/// All clients must number the endpoints alike. It is best to give them the numbers, by
/// [`numbered_by`](Self::numbered_by). Otherwise an endpoint has the number that this client gave
/// it when it first saw it ([`Numbers`]). These numbers are the same for clients that started with
/// the same set. Relative to clients that started at other times the choice is as good as random,
/// and moves as little.
///
/// A client uses `size` endpoints, or all if there are fewer. The number of clients of an endpoint
/// is within a fifth of the mean, as `cargo test -p evenkeel-core --test suite -- subset:: --nocapture`
/// prints. With 1,000 clients of 1,000 endpoints and subsets of 20, each has exactly 20. With 300
/// clients, each has from 0.83 to 1.17 times the mean of 6. Source: Ward, Wankadia, Guliani:
/// Reinventing Backend Subsetting at Google (ACM Queue 20/5, 2022).
#[derive(Clone)]
pub struct Rocksteadier {
    size: usize,
    client: u32,
    number: Option<Arc<dyn Fn(&Endpoint) -> Option<u32> + Send + Sync>>,
}

/// Numbers in one lot: as in the paper, large enough for diverse subsets, and small enough for even
/// ones.
const LOT: u32 = 10;

/// How many numbers are considered at most for each endpoint present: given numbers may have large
/// gaps.
const MAX_GAPS: usize = 64;

impl Rocksteadier {
    /// Uses `size` endpoints, as the client with this number.
    ///
    /// # Panics
    /// If `size` is zero.
    #[must_use]
    pub fn new(size: usize, client: u32) -> Self {
        assert!(0 < size, "a client needs an endpoint");
        Self { size, client, number: None }
    }

    /// Sets how an endpoint's number is read, for example from its metadata. Default: numbered as
    /// they come.
    ///
    /// Numbers should begin at 0 and have few gaps. An endpoint is numbered as by default, after
    /// the others, if it has no number, one that is taken, or one that is far too large.
    #[must_use]
    pub fn numbered_by(
        mut self,
        number: impl Fn(&Endpoint) -> Option<u32> + Send + Sync + 'static,
    ) -> Self {
        self.number = Some(Arc::new(number));
        self
    }

    /// The endpoint for each number.
    fn numbered<'a>(
        &self,
        endpoints: &'a [Endpoint],
        numbers: &Numbers,
    ) -> HashMap<u32, &'a Endpoint> {
        let max = (endpoints.len().max(1) * MAX_GAPS).min(u32::MAX as usize / 2) as u32;
        let mut numbered = HashMap::with_capacity(endpoints.len());
        let mut unnumbered = Vec::new();
        for endpoint in endpoints.iter().filter(|endpoint| 0 < endpoint.weight) {
            let given = self.number.as_ref().and_then(|number| number(endpoint));
            match given.filter(|number| *number < max && !numbered.contains_key(number)) {
                Some(number) => _ = numbered.insert(number, endpoint),
                None => unnumbered.push(endpoint),
            }
        }
        let behind = numbered.keys().max().map_or(0, |last| last + 1);
        for endpoint in unnumbered {
            if let Some(number) = numbers.of(&endpoint.address) {
                numbered.insert(behind + number, endpoint);
            }
        }
        numbered
    }
}

impl Subset for Rocksteadier {
    fn choose(&self, endpoints: &[Endpoint], numbers: &Numbers) -> Vec<Endpoint> {
        let numbered = self.numbered(endpoints, numbers);
        let lots = numbered.keys().max().map_or(0, |last| last / LOT + 1);
        let clients = self.client / LOT;
        let ring = ring_from(clients.reverse_bits(), lots);
        let shuffles: Vec<[u32; LOT as usize]> =
            ring.iter().map(|&lot| shuffled(clients, lot)).collect();
        let own_row = row_of(self.client % LOT);
        let mut chosen = HashSet::new();
        'rows: for row in 0..LOT {
            let row = (own_row + row) % LOT;
            for (lot, shuffle) in ring.iter().zip(&shuffles) {
                if chosen.len() == self.size {
                    break 'rows;
                }
                // Gaps are skipped: an endpoint that fills one later takes the place of the last.
                if let Some(endpoint) = numbered.get(&(lot * LOT + shuffle[row as usize])) {
                    chosen.insert(&endpoint.address);
                }
            }
        }
        keep(endpoints, |endpoint| chosen.contains(&endpoint.address).then_some(endpoint.weight))
    }
}

/// The lots in the order of their places on the ring, beginning with the first at or after `place`.
fn ring_from(place: u32, lots: u32) -> Vec<u32> {
    let mut ring: Vec<_> = (0..lots).map(|lot| (lot.reverse_bits(), lot)).collect();
    ring.sort_unstable();
    let first = ring.partition_point(|(at, _)| *at < place);
    let (before, from) = ring.split_at(first);
    from.iter().chain(before).map(|(_, lot)| *lot).collect()
}

/// The row at which a client begins: in the order of the sequence, so that clients that go on to a
/// second row are spread, too.
fn row_of(client: u32) -> u32 {
    (0..LOT).filter(|other| other.reverse_bits() < client.reverse_bits()).count() as u32
}

/// The shuffle of a lot of endpoints, the same for all clients of a lot (Fisher, Yates).
fn shuffled(clients: u32, lot: u32) -> [u32; LOT as usize] {
    let mut order = std::array::from_fn(|index| index as u32);
    let mut random = u64::from(clients) << 32 | u64::from(lot);
    for last in (1..LOT as usize).rev() {
        random = random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        order.swap(last, (mix(random) % (last as u64 + 1)) as usize);
    }
    order
}

impl fmt::Debug for Rocksteadier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rocksteadier")
            .field("size", &self.size)
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_of_a_lot_begins_in_a_row_of_its_own() {
        let mut rows: Vec<_> = (0..LOT).map(row_of).collect();
        assert_eq!(rows[..4], [0, 5, 3, 8]);
        rows.sort_unstable();
        assert_eq!(rows, (0..LOT).collect::<Vec<_>>());
    }

    #[test]
    fn a_new_lot_halves_a_gap_and_moves_no_other() {
        assert_eq!(ring_from(0, 4), [0, 2, 1, 3]);
        assert_eq!(ring_from(0, 5), [0, 4, 2, 1, 3]);
        assert_eq!(ring_from(1_u32.reverse_bits(), 4), [1, 3, 0, 2]);
        assert!(ring_from(7, 0).is_empty());
    }
}
