//! Ketama: requests of the same key to the same node, on the ring of nginx or of pingora.

use std::sync::Arc;

use super::{
    Picker, Policy,
    hashed::{HashedPicker, Keyed},
    load_bound::checked,
    points::{Point, Points},
};
use crate::node::Node;

/// Chooses the node with the next point after the request's hash, on a ring of 160 points a node.
///
/// The ring is that of nginx's `hash ... consistent`: each point is the CRC-32 of host, port and
/// the previous point, 160 for each unit of weight, on a ring of 32 bits. Pingora's ring differs
/// for IPv6 alone: nginx hashes `[2001:db8::1]` as configured, with the brackets, and pingora
/// hashes the address without them. With [`pingora`](Self::pingora), so does this policy. To agree
/// with them on the node as well, a request's hash must be the [`crc32`](crate::hash::crc32) of its
/// key. Of any other hash, the lower 32 bits count.
///
/// **Use it** beside nginx or pingora, or where few keys may move: its points do not depend on the
/// number of endpoints, so when one of `n` changes, no more than `1 / n` of the keys move. **Not**
/// for weights in the hundreds, which make a large ring: they are scaled down above
/// [`max_points`](Self::max_points).
///
/// * If a request's node is closed, full or already tried, it goes to the next other node on the
///   ring.
/// * A request without a hash goes to a random place: see
///   [`Hints::hash`](crate::traffic::Hints::hash).
/// * Shares are off by about 8 % of themselves.
/// * A pick costs O(1) on average, and O(n) while nearly all nodes are closed. Building costs some
///   100 ns a point, off the request path. A point takes 9 bytes.
///
/// ```
/// use std::sync::Arc;
/// use evenkeel::core::{hash::crc32, node::Node, policy::{Ketama, PickContext, Policy}, rng::Rng};
///
/// let nodes: Vec<_> = ["127.0.0.1:7777", "127.0.0.1:7778"]
///     .map(|address| Arc::new(Node::new(address.parse().unwrap())))
///     .into();
/// let mut rng = Rng::with_seed(1);
/// let hash = Some(crc32(b"/some/path").into());
/// let mut cx = PickContext { hash, ..PickContext::new(&mut rng) };
/// assert_eq!(Ketama::new().build(&nodes, None).pick(&nodes, &mut cx), Some(1));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Ketama {
    max_points: usize,
    factor: Option<f64>,
    has_brackets: bool,
}

impl Ketama {
    /// Points for each unit of weight.
    const POINTS: usize = 160;

    /// Makes a ring of 160 points for each unit of weight, up to 262,144 points or 160 a node.
    #[must_use]
    pub fn new() -> Self {
        Self { max_points: 1 << 18, factor: None, has_brackets: true }
    }

    /// Makes the ring of pingora, in which hosts have neither brackets around IPv6 addresses nor a
    /// zone after them. Default: nginx's ring, in which hosts have brackets.
    ///
    /// For IPv4 addresses both are the same. Beside nginx, this option sends the keys of IPv6
    /// endpoints elsewhere.
    #[must_use]
    pub fn pingora(mut self) -> Self {
        self.has_brackets = false;
        self
    }

    /// Sets how many points the ring may have. Default: 262,144, which is a total weight of 1,638.
    ///
    /// If the ring exceeds this and 160 points a node, each node gets its share of the maximum, but
    /// at least one. The ring is then no longer nginx's, and depends on the sum of the weights.
    ///
    /// # Panics
    /// If `points` is 0.
    #[must_use]
    pub fn max_points(mut self, points: usize) -> Self {
        assert!(0 < points, "a ring needs points");
        self.max_points = points;
        self
    }

    /// Bounds what a node may have in flight to `factor` times its share. Default: no bound. 1.25
    /// is usual.
    ///
    /// See [`RingHash::bounded_load`](super::RingHash::bounded_load).
    ///
    /// # Panics
    /// If `factor` is less than 1 or not a number.
    #[must_use]
    pub fn bounded_load(mut self, factor: f64) -> Self {
        self.factor = Some(checked(factor));
        self
    }

    fn ring(self, nodes: &[Keyed]) -> Points<u32> {
        let wanted: u64 =
            nodes.iter().map(|node| u64::from(node.weight) * Self::POINTS as u64).sum();
        let most = self.max_points.max(nodes.len() * Self::POINTS) as u64;
        let mut points = Vec::with_capacity(wanted.min(most) as usize);
        for node in nodes {
            let own = u128::from(node.weight) * Self::POINTS as u128;
            let own = own * u128::from(most.min(wanted)) / u128::from(wanted);
            let base = base(&node.key, self.has_brackets);
            let mut place = 0_u32;
            for _ in 0..own.max(1) {
                let mut hasher = base.clone();
                hasher.update(&place.to_le_bytes());
                place = hasher.finalize();
                points.push(Point { place, owner: node.index });
            }
        }
        Points::new(points)
    }
}

/// Host, a zero byte, port. A key that does not end in a port is a host. For a Unix domain socket
/// it is the path.
fn base(key: &str, has_brackets: bool) -> crc32fast::Hasher {
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let (host, port) = match key.strip_prefix("unix:") {
        Some(path) => (path, ""),
        None => key.rsplit_once(':').filter(|(_, port)| is_port(port)).unwrap_or((key, "")),
    };
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = match inner.filter(|_| !has_brackets) {
        Some(address) => address.split('%').next().unwrap_or(address),
        None => host,
    };
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(host.as_bytes());
    hasher.update(b"\0");
    hasher.update(port.as_bytes());
    hasher
}

impl Default for Ketama {
    fn default() -> Self {
        Self::new()
    }
}

impl Policy for Ketama {
    fn name(&self) -> &'static str {
        "ketama"
    }

    fn build(&self, nodes: &[Arc<Node>], previous: Option<&dyn Picker>) -> Box<dyn Picker> {
        HashedPicker::build(nodes, previous, self.factor, |nodes| self.ring(nodes))
    }
}
