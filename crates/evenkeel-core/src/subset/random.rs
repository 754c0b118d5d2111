//! A random subset, by rendezvous hashing.

use std::collections::HashSet;

use super::{Numbers, Subset, in_hash_order, keep};
use crate::endpoint::{Address, Endpoint};

/// Uses the `size` endpoints whose hashes with this client's seed come first.
///
/// Each client chooses for itself and has to know of no other. When an endpoint leaves, those who used it
/// take one other; when one comes, one in `n/k` clients takes it, in the place of one other. Nothing else
/// moves.
///
/// **Use it** where clients cannot be numbered, and are so many that chance evens out. **Not** for few
/// clients: with a mean of 5 connections an endpoint, some have none and some 15. Then the load is as uneven,
/// too, which is what [`Aperture`](super::Aperture) and [`Rocksteadier`](super::Rocksteadier) are for.
///
/// The rule is gRPC's (A68): XXH64 of an endpoint's name with the seed. What the name is differs: here it is
/// the address as written, `10.0.0.1:80`; grpc-go hashes Go's rendering of it, so that the two choose
/// different subsets, each as random.
#[derive(Clone, Debug)]
pub struct RandomSubset {
    size: usize,
    seed: u64,
}

impl RandomSubset {
    /// Uses `size` endpoints. The seed must be another one for each client, and is best kept when it starts
    /// anew: a hash of its host name, or random.
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
