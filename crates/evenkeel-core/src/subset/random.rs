//! A random subset, by rendezvous hashing.

use std::collections::HashSet;

use super::{Numbers, Subset, in_hash_order, keep};
use crate::endpoint::{Address, Endpoint};

/// Uses the `size` endpoints that come first in the order of their hashes with this client's seed.
///
/// Each client chooses for itself and does not need to know of others. When an endpoint leaves, the
/// clients that used it each take another one. When an endpoint comes, one in `n/k` clients takes
/// it and drops another one for it. Nothing else moves.
///
/// **Use it** where clients cannot be numbered, and are numerous enough that chance evens out.
/// **Not** for few clients: with a mean of 5 connections an endpoint, some have none and some 15.
/// Then the load is just as uneven. Use [`Aperture`](super::Aperture) or
/// [`Rocksteadier`](super::Rocksteadier) there.
///
/// The rule is gRPC's (A68): XXH64 of an endpoint's name with the seed. The name differs: here it
/// is the address as written, `10.0.0.1:80`. grpc-go hashes Go's rendering of it. So the two choose
/// different subsets, each equally random.
#[derive(Clone, Debug)]
pub struct RandomSubset {
    size: usize,
    seed: u64,
}

impl RandomSubset {
    /// Uses `size` endpoints. Each client needs a different seed, which should stay the same across
    /// restarts: a hash of its host name, for example. A random seed works, too.
    ///
    /// # Panics
    /// If `size` is zero.
    #[must_use]
    pub fn new(size: usize, seed: u64) -> Self {
        assert!(0 < size, "a client needs an endpoint");
        Self { size, seed }
    }
}

impl Subset for RandomSubset {
    fn choose(&self, endpoints: &[Endpoint], _: &Numbers) -> Vec<Endpoint> {
        let live = endpoints.iter().filter(|endpoint| 0 < endpoint.weight);
        let mut chosen = in_hash_order(live, self.seed);
        chosen.truncate(self.size);
        let chosen: HashSet<&Address> = chosen.iter().map(|endpoint| &endpoint.address).collect();
        keep(endpoints, |endpoint| chosen.contains(&endpoint.address).then_some(endpoint.weight))
    }
}

#[cfg(test)]
mod tests {
    use crate::hash::xxh64_seeded;

    #[test]
    fn names_rendered_as_in_go_come_in_the_order_of_grpc_go() {
        let mut names: Vec<String> = (0..10).map(|index| format!("endpoint-{index}")).collect();
        names.sort_by_key(|name| {
            let rendered = format!("{{Addr: \"{name}\", ServerName: \"\", }}");
            xxh64_seeded(rendered.as_bytes(), 0)
        });
        let first = ["endpoint-6", "endpoint-0", "endpoint-1", "endpoint-7", "endpoint-3"];
        assert_eq!(names[..5], first);
    }
}
