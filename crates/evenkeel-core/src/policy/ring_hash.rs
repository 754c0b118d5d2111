//! Ring hash: requests of the same key to the same node, on the ring of Envoy and gRPC.

use std::{fmt::Write, sync::Arc};

use super::{
    Picker, Policy,
    hashed::{HashedPicker, Keyed},
    load_bound::checked,
    points::{Point, Points},
};
use crate::{hash::xxh64, node::Node};

/// Chooses the node with the next point on a ring after the request's hash.
///
/// The points are those of Envoy and gRPC (A42): xxHash64, seed 0, of the endpoint's key, `_` and a
/// number from 0. Each node has as many points as its weight says. The key is the value of
/// `hash_key` in the metadata, else the address as it is written: `10.0.0.1:80`,
/// `[2001:db8::1]:80`. With the same endpoints, sizes and hashes, all three send a request to the
/// same endpoint.
///
/// **Use it** for caches and sessions beside Envoy or gRPC that must agree, or where the keys of an
/// endpoint must spread over many others when it closes. **Not** where no other balancer must
/// agree: [`Maglev`](super::Maglev) spreads more evenly, and [`Ketama`](super::Ketama) moves fewer
/// keys, since its points do not depend on the number of endpoints.
///
/// * If a request's node is closed, full or already tried, it goes to the next other node on the
///   ring.
/// * A request without a hash goes to a random place: see
///   [`Hints::hash`](crate::traffic::Hints::hash).
/// * Shares differ: with `p` points, a node's share is off by about `1 / √p` of itself, 10 % for
///   ten nodes.
/// * When one of `n` endpoints joins or leaves, up to `2 / n` of the keys move: its own, and as
///   many again, because the number of points of each other endpoint changes. With
///   [`points_per_weight`](Self::points_per_weight) it is `1 / n`. A gate moves only the keys of
///   its own node.
/// * A pick costs O(1) on average, and O(n) while nearly all nodes are closed. Building costs some
///   100 ns a point, off the request path. A point takes 17 bytes.
///
/// ```
/// use std::sync::Arc;
/// use evenkeel::core::{hash::xxh64, node::Node, policy::{PickContext, Policy, RingHash}, rng::Rng};
///
/// let nodes: Vec<_> = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]
///     .map(|address| Arc::new(Node::new(address.parse().unwrap())))
///     .into();
/// let picker = RingHash::new().build(&nodes, None);
///
/// let mut rng = Rng::with_seed(1);
/// let mut pick = |key: &str| {
///     let mut cx = PickContext { hash: Some(xxh64(key.as_bytes())), ..PickContext::new(&mut rng) };
///     picker.pick(&nodes, &mut cx)
/// };
/// assert_eq!(pick("alice"), pick("alice"));
/// assert_ne!(pick("alice"), pick("carol"));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct RingHash {
    min_size: usize,
    max_size: usize,
    points: Option<u32>,
    factor: Option<f64>,
}

impl RingHash {
    /// The maximum size of a ring.
    pub const MAX_SIZE: usize = 8 << 20;

    /// Makes a ring of at least 1,024 points, and if possible at most 65,536.
    #[must_use]
    pub fn new() -> Self {
        Self { min_size: 1_024, max_size: 65_536, points: None, factor: None }
    }

    /// Sets how many points the ring has. Default: at least 1,024 and at most 65,536.
    ///
    /// As in Envoy and gRPC, the node of the least weight gets enough points for a ring of at least
    /// `min`, and the others get points in proportion. If that exceeds `max`, all get fewer. But
    /// each node gets at least one: a ring of more nodes than `max` has a point for each, where
    /// Envoy leaves some out. Envoy's default is 1,024 to [`MAX_SIZE`](Self::MAX_SIZE), gRPC's
    /// 1,024 to 4,096. A small ring spreads unevenly. A large one takes memory and time to build.
    ///
    /// # Panics
    /// If `min` is 0 or more than `max`, or `max` more than [`MAX_SIZE`](Self::MAX_SIZE).
    #[must_use]
    pub fn ring_size(mut self, min: usize, max: usize) -> Self {
        assert!(0 < min && min <= max, "a ring of {min} to {max} points");
        assert!(max <= Self::MAX_SIZE, "{max} points are more than {}", Self::MAX_SIZE);
        (self.min_size, self.max_size) = (min, max);
        self
    }

    /// Gives each node this many points for each unit of its weight, however many nodes there are.
    ///
    /// Default: not set, so [`ring_size`](Self::ring_size) determines the number. With it, no more
    /// than `1 / n` of the keys move on a change, but the ring is no longer that of Envoy and gRPC.
    /// The largest size still applies: a ring that would exceed it gets fewer points for all. 100
    /// is a good number for weights around 1.
    ///
    /// # Panics
    /// If `points` is 0.
    #[must_use]
    pub fn points_per_weight(mut self, points: u32) -> Self {
        assert!(0 < points, "a node needs a point");
        self.points = Some(points);
        self
    }

    /// Bounds what a node may have in flight to `factor` times its share. Default: no bound. 1.25
    /// is usual.
    ///
    /// If its node is full, a request goes to the next one with room. So keys that are requested
    /// too often spread, and the others stay. 1 spreads all evenly and moves keys all the time.
    /// Above 2 little is bounded. To know the total, each pick looks at two more nodes in turn,
    /// however many there are.
    ///
    /// # Panics
    /// If `factor` is less than 1 or not a number.
    #[must_use]
    pub fn bounded_load(mut self, factor: f64) -> Self {
        self.factor = Some(checked(factor));
        self
    }

    fn ring(self, nodes: &[Keyed]) -> Points<u64> {
        let sum: f64 = nodes.iter().map(|node| f64::from(node.weight)).sum();
        let least = nodes.iter().map(|node| node.weight).min().map_or(1.0, f64::from) / sum;
        let wanted = match self.points {
            Some(points) => f64::from(points) * sum,
            None => (least * self.min_size as f64).ceil() / least,
        };
        let scale = wanted.min(self.max_size as f64);

        let mut points = Vec::new();
        let mut text = String::new();
        // Counted over all nodes, as in Envoy and gRPC: what rounding takes from one node goes to
        // the next.
        let mut target = 0.0;
        for node in nodes {
            target += scale * (f64::from(node.weight) / sum);
            text.clear();
            text.push_str(&node.key);
            text.push('_');
            let prefix = text.len();
            let mut number = 0_u32;
            while number == 0 || (points.len() as f64) < target {
                text.truncate(prefix);
                write!(text, "{number}").expect("a string takes all");
                points.push(Point { place: xxh64(text.as_bytes()), owner: node.index });
                number += 1;
            }
        }
        Points::new(points)
    }
}

impl Default for RingHash {
    fn default() -> Self {
        Self::new()
    }
}

impl Policy for RingHash {
    fn name(&self) -> &'static str {
        "ring_hash"
    }

    fn build(&self, nodes: &[Arc<Node>], previous: Option<&dyn Picker>) -> Box<dyn Picker> {
        HashedPicker::build(nodes, previous, self.factor, |nodes| self.ring(nodes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(policy: RingHash, endpoints: &[(&str, u32)]) -> Vec<(u64, String)> {
        let nodes: Vec<_> = (0..)
            .zip(endpoints)
            .map(|(index, &(key, weight))| Keyed { key: key.to_owned(), weight, index })
            .collect();
        let ring = policy.ring(&nodes);
        let name = |point: &Point<u64>| (point.place, endpoints[point.owner as usize].0.to_owned());
        ring.points().iter().map(name).collect()
    }

    fn same(ring: &[(u64, String)], expected: &[(u64, &str)]) {
        let ring: Vec<_> = ring.iter().map(|(place, owner)| (*place, &**owner)).collect();
        assert_eq!(ring, expected);
    }

    #[test]
    fn points_are_those_of_envoy() {
        let hosts: Vec<String> = (90..=95).map(|port| format!("127.0.0.1:{port}")).collect();
        let hosts: Vec<_> = hosts.iter().map(|host| (host.as_str(), 1)).collect();

        same(
            &ring(RingHash::new().ring_size(12, 4_096), &hosts),
            &[
                (833_437_586_790_550_860, "127.0.0.1:94"),
                (928_266_305_478_181_108, "127.0.0.1:92"),
                (1_033_482_794_131_418_490, "127.0.0.1:90"),
                (3_551_244_743_356_806_947, "127.0.0.1:95"),
                (3_851_675_632_748_031_481, "127.0.0.1:93"),
                (5_583_722_120_771_150_861, "127.0.0.1:91"),
                (6_311_230_543_546_372_928, "127.0.0.1:91"),
                (7_700_377_290_971_790_572, "127.0.0.1:93"),
                (13_144_177_310_400_110_813, "127.0.0.1:95"),
                (13_444_792_449_719_432_967, "127.0.0.1:92"),
                (15_516_499_411_664_133_160, "127.0.0.1:94"),
                (16_117_243_373_044_804_889, "127.0.0.1:90"),
            ],
        );
        same(
            &ring(RingHash::new().ring_size(3, 4_096), &[("127.0.0.1:80", 1), ("127.0.0.1:81", 1)]),
            &[
                (5_454_692_015_285_649_509, "127.0.0.1:80"),
                (7_859_399_908_942_313_493, "127.0.0.1:81"),
                (13_838_424_394_637_650_569, "127.0.0.1:80"),
                (16_064_866_803_292_627_174, "127.0.0.1:81"),
            ],
        );
    }

    #[test]
    fn points_by_weight_are_those_of_grpc() {
        same(
            &ring(RingHash::new().ring_size(8, 20), &[("a", 3), ("b", 3), ("c", 4)]),
            &[
                (4_148_279_810_343_392_165, "a"),
                (4_189_641_231_046_734_040, "b"),
                (5_051_629_784_258_667_479, "c"),
                (5_637_671_355_026_233_228, "b"),
                (6_560_897_439_782_492_108, "b"),
                (7_866_922_100_246_443_948, "a"),
                (8_142_612_688_290_817_183, "c"),
                (14_554_126_711_339_088_812, "c"),
                (14_801_583_559_950_740_418, "c"),
                (18_017_992_814_255_492_179, "a"),
            ],
        );
    }

    #[test]
    fn the_ring_has_the_configured_size_and_every_node_is_on_it() {
        let few: Vec<_> = [("a", 1), ("b", 1), ("c", 2)].into();
        assert_eq!(ring(RingHash::new(), &few).len(), 1_024);
        assert_eq!(ring(RingHash::new().points_per_weight(100), &few).len(), 400);
        assert_eq!(ring(RingHash::new(), &[]).len(), 0);

        let uneven = ring(RingHash::new(), &[("a", 1), ("b", u32::MAX)]);
        assert!(uneven.len() <= 65_537, "{}", uneven.len());
        assert!(uneven.iter().any(|(_, owner)| owner == "a"));

        let many: Vec<String> = (0..5_000).map(|index| format!("node-{index}")).collect();
        let many: Vec<_> = many.iter().map(|name| (name.as_str(), 1)).collect();
        let owners = ring(RingHash::new().ring_size(1_024, 4_096), &many);
        assert_eq!(owners.len(), 5_000);
    }

    #[test]
    #[should_panic(expected = "a ring of 0 to 5 points")]
    fn a_ring_without_points_is_refused() {
        let _ = RingHash::new().ring_size(0, 5);
    }

    #[test]
    #[should_panic(expected = "a bound of NaN times the average")]
    fn a_factor_that_is_no_number_is_refused() {
        let _ = RingHash::new().bounded_load(f64::NAN);
    }
}
