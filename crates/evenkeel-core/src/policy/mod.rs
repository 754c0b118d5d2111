//! Which node takes a request: a [`Policy`] builds, a [`Picker`] picks.
//!
//! | name | chooses | weights | cost of a pick |
//! |---|---|---|---|
//! | [`round_robin`](RoundRobin) | each in turn | no | O(1) |
//! | [`weighted_round_robin`](WeightedRoundRobin) | each in turn, evenly spread by weight | yes | O(1) |
//! | [`random`](Random) | any | no | O(1) |
//! | [`weighted_random`](WeightedRandom) | any, by weight | yes | O(1) |
//! | [`p2c`](P2c) | the less busy of two | no | O(1) |
//! | [`weighted_p2c`](WeightedP2c) | the less busy of two, relative to weight | yes | O(1) |
//! | [`least_loaded`](LeastLoaded) | the least busy of all, relative to weight | yes | O(n) |
//! | [`peak_ewma`](PeakEwma) | the one of two that costs less latency | no | O(1) |
//! | [`client_side_weighted_round_robin`](ClientSideWeighted) | each in turn, as often as its reported load allows | reported | O(1) |
//! | [`prequal`](Prequal) | the quickest of those probed that are not busier than usual | no | O(1) |
//! | [`pick_first`](PickFirst) | the first that is open | no | O(1) while the first is open |
//!
//! A pick costs O(n) in one case more: where nearly all nodes are closed, the few open ones are
//! looked for, so that each keeps its fair share.
//!
//! To add a policy: one file with a [`Policy`] and a [`Picker`], one `mod` line and one entry in
//! [`NAMES`]. [`laws::check`] says whether it does what every policy must.

use std::{any::Any, fmt, sync::Arc, time::Duration};

use crate::{endpoint::Address, node::Node, rng::Rng, time::Timestamp};

mod alias;
mod client_side_weighted_round_robin;
mod draw;
pub mod laws;
mod least_loaded;
mod p2c;
mod peak_ewma;
mod pick_first;
mod prequal;
mod random;
mod round_robin;
mod weighted_p2c;
mod weighted_random;
mod weighted_round_robin;

pub use client_side_weighted_round_robin::ClientSideWeighted;
pub use least_loaded::LeastLoaded;
pub use p2c::P2c;
pub use peak_ewma::PeakEwma;
pub use pick_first::PickFirst;
pub use prequal::{Prequal, Probing, Ticket};
pub use random::Random;
pub use round_robin::RoundRobin;
pub use weighted_p2c::WeightedP2c;
pub use weighted_random::WeightedRandom;
pub use weighted_round_robin::WeightedRoundRobin;

/// A rule by which nodes are chosen.
pub trait Policy: fmt::Debug + Send + Sync + 'static {
    /// What it is called in configurations, tables and metrics.
    fn name(&self) -> &'static str;

    /// The picker for `nodes`, made anew whenever the set or a weight changes.
    ///
    /// What it must not forget it takes over from the `previous` picker, which is of the same policy.
    fn build(&self, nodes: &[Arc<Node>], previous: Option<&dyn Picker>) -> Box<dyn Picker>;

    /// The time over which its latency estimate decays, if it has to be measured. Default `None`.
    fn latency_decay(&self) -> Option<Duration> {
        None
    }
}

/// Chooses among the nodes it was built for. Neither blocks nor allocates.
pub trait Picker: Any + Send + Sync {
    /// The index of the node that takes the request, or `None` if it may go to none of them.
    ///
    /// Picks only what [`PickContext::admits`].
    fn pick(&self, nodes: &[Arc<Node>], cx: &mut PickContext<'_>) -> Option<usize>;

    /// Does what is to be done now and then, and says when to do so again. Default nothing, never.
    ///
    /// Called in the background, so that no request has to: at first when the picker comes into use, and
    /// at the time that it gave.
    fn tend(&self, _now: Timestamp) -> Option<Timestamp> {
        None
    }

    /// What it has to be told by probes, if it goes by what servers say. Default nothing.
    fn probing(&self) -> Option<&Probing> {
        None
    }
}

/// What a picker is told of the request and of the moment.
#[derive(Debug)]
pub struct PickContext<'a> {
    /// Where its randomness comes from.
    pub rng: &'a mut Rng,
    /// The time, for policies that measure latency; exact to some milliseconds.
    pub now: Timestamp,
    /// Requests of the same hash belong together.
    pub hash: Option<u64>,
    /// Ids of nodes that must not be picked; 0 stands for none.
    pub avoid: &'a [u64],
    /// Addresses that must not be picked.
    pub exclude: &'a [Address],
    /// No node is open: those are admitted that only their health closes.
    pub fails_open: bool,
}

impl<'a> PickContext<'a> {
    /// A request of which nothing is known.
    #[must_use]
    #[inline]
    pub fn new(rng: &'a mut Rng) -> Self {
        Self {
            rng,
            now: Timestamp::default(),
            hash: None,
            avoid: &[],
            exclude: &[],
            fails_open: false,
        }
    }

    /// Whether `node` may take this request: it is open, or usable while none is open.
    #[must_use]
    #[inline]
    pub fn admits(&self, node: &Node) -> bool {
        let is_free = self.avoid.is_empty() && self.exclude.is_empty();
        (node.is_open() || self.fails_open && node.is_usable()) && (is_free || self.allows(node))
    }

    // Out of line: most requests go anywhere, and a pick asks this of several nodes.
    #[inline(never)]
    fn allows(&self, node: &Node) -> bool {
        !self.avoid.contains(&node.id()) && !self.exclude.contains(node.address())
    }
}

impl<P: Policy + ?Sized> Policy for Box<P> {
    fn name(&self) -> &'static str {
        (**self).name()
    }

    fn build(&self, nodes: &[Arc<Node>], previous: Option<&dyn Picker>) -> Box<dyn Picker> {
        (**self).build(nodes, previous)
    }

    fn latency_decay(&self) -> Option<Duration> {
        (**self).latency_decay()
    }
}

/// The names of all policies here: what simulator, benches and configurations choose from.
pub const NAMES: [&str; 11] = [
    "round_robin",
    "weighted_round_robin",
    "random",
    "weighted_random",
    "p2c",
    "weighted_p2c",
    "least_loaded",
    "peak_ewma",
    "client_side_weighted_round_robin",
    "prequal",
    "pick_first",
];

/// The policy of this name with its defaults, or `None` if there is none.
///
/// ```
/// use evenkeel_core::policy;
///
/// for name in policy::NAMES {
///     assert_eq!(policy::by_name(name).unwrap().name(), name);
/// }
/// assert!(policy::by_name("best").is_none());
/// ```
#[must_use]
pub fn by_name(name: &str) -> Option<Box<dyn Policy>> {
    Some(match name {
        "round_robin" => Box::new(RoundRobin),
        "weighted_round_robin" => Box::new(WeightedRoundRobin),
        "random" => Box::new(Random),
        "weighted_random" => Box::new(WeightedRandom),
        "p2c" => Box::new(P2c),
        "weighted_p2c" => Box::new(WeightedP2c),
        "least_loaded" => Box::new(LeastLoaded),
        "peak_ewma" => Box::new(PeakEwma::default()),
        "client_side_weighted_round_robin" => Box::new(ClientSideWeighted::default()),
        "prequal" => Box::new(Prequal::default()),
        "pick_first" => Box::new(PickFirst),
        _ => return None,
    })
}

/// The previous picker as the type it has.
fn previous_as<P: Picker>(previous: Option<&dyn Picker>) -> Option<&P> {
    previous.and_then(|picker| (picker as &dyn Any).downcast_ref())
}
