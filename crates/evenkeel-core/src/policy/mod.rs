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
//! | [`ring_hash`](RingHash) | the same for the same key, as Envoy and gRPC | yes | O(1) |
//! | [`ketama`](Ketama) | the same for the same key, as nginx, or pingora | yes | O(1) |
//! | [`maglev`](Maglev) | the same for the same key, most evenly, as Envoy | yes | O(1) |
//! | [`rendezvous`](Rendezvous) | the same for the same key, moving the fewest | yes | O(n) |
//!
//! Others wrap a policy, the child, and can wrap each other. By name they wrap `p2c`:
//!
//! | name | does | cost of a pick, beside the child's |
//! |---|---|---|
//! | [`priority`](Tiers) | tiers: the next carries what the first cannot | a counter a tier |
//! | [`zone_aware`](ZoneAware) | keeps in the client's zone what that can carry | a counter, or one a zone |
//! | [`zone_weighted`](ZoneWeighted) | a share for each zone | a counter a zone |
//! | [`prefer_zone`](PreferZone) | stays in the client's zone while that has an open node | none |
//! | [`split`](Split) | a share for each named subset, such as a canary | a counter a subset |
//! | [`slow_start`](SlowStart) | gives less to nodes that are new or just back | a clock read |
//! | [`panic_threshold`](PanicThreshold) | also uses unhealthy nodes when too few are healthy | a counter |
//!
//! In one more case a pick costs O(n). When nearly all nodes are closed, it searches for the few
//! open ones, so that each keeps its fair share.
//!
//! To add a policy: one file with a [`Policy`] and a [`Picker`], one entry in [`BUILT_IN`], and its
//! documentation. [`laws::check`] says whether it does what every policy must do, and
//! [`laws::check_wrapping`] whether one that wraps another passes on what it must.

use std::{any::Any, fmt, sync::Arc, time::Duration};

use crate::{endpoint::Address, node::Node, rng::Rng, time::Timestamp, why::Recorder};

mod alias;
mod built_in;
mod census;
mod client_side_weighted_round_robin;
mod draw;
mod groups;
mod hashed;
mod ketama;
pub mod laws;
mod least_loaded;
mod load_bound;
mod maglev;
mod p2c;
mod panic_threshold;
mod peak_ewma;
mod pick_first;
mod points;
mod prefer_zone;
mod prequal;
mod priority;
mod random;
mod rendezvous;
mod ring_hash;
mod round_robin;
mod slow_start;
pub mod split;
mod turns;
mod weighted_p2c;
mod weighted_random;
mod weighted_round_robin;
mod zone_aware;
mod zone_weighted;

pub use built_in::{BUILT_IN, Basis, BuiltIn, by_name, names};
pub use client_side_weighted_round_robin::ClientSideWeighted;
pub use ketama::Ketama;
pub use least_loaded::LeastLoaded;
pub use maglev::Maglev;
pub use p2c::P2c;
pub use panic_threshold::PanicThreshold;
pub use peak_ewma::PeakEwma;
pub use pick_first::PickFirst;
pub use prefer_zone::PreferZone;
pub use prequal::{Prequal, Probing, SyncPrequal, Ticket};
pub use priority::Tiers;
pub use random::Random;
pub use rendezvous::Rendezvous;
pub use ring_hash::RingHash;
pub use round_robin::RoundRobin;
pub use slow_start::SlowStart;
pub use split::Split;
pub use weighted_p2c::WeightedP2c;
pub use weighted_random::WeightedRandom;
pub use weighted_round_robin::WeightedRoundRobin;
pub use zone_aware::ZoneAware;
pub use zone_weighted::ZoneWeighted;

/// A rule by which nodes are chosen.
pub trait Policy: fmt::Debug + Send + Sync + 'static {
    /// The name used in configurations, tables and metrics.
    fn name(&self) -> &'static str;

    /// Builds the picker for `nodes`. Called again whenever the set or a weight changes.
    ///
    /// The new picker takes over the state that must survive from the `previous` one, which is of
    /// the same policy.
    fn build(&self, nodes: &[Arc<Node>], previous: Option<&dyn Picker>) -> Box<dyn Picker>;

    /// The decay time of the latency estimate, if latency has to be measured. Default: `None`.
    fn latency_decay(&self) -> Option<Duration> {
        None
    }

    /// Whether a pick has to know the time to within some milliseconds, at the cost of a clock read
    /// each. Default: false. Then [`PickContext::now`] may stand still unless latency is measured.
    fn reads_time(&self) -> bool {
        false
    }
}

/// Chooses among the nodes it was built for. Neither blocks nor allocates.
pub trait Picker: Any + Send + Sync {
    /// The index of the node that takes the request, or `None` if it may go to none of them.
    ///
    /// If this is `None` although a node is open that the request does not exclude, the request
    /// fails at once with [`NoEndpointPicked`](crate::error::NoEndpointPicked): there is nothing to
    /// wait for. While no node is open, the balancer waits for one.
    ///
    /// Picks only nodes that [`PickContext::admits`], or for which it [panics](Picker::panics).
    fn pick(&self, nodes: &[Arc<Node>], cx: &mut PickContext<'_>) -> Option<usize>;

    /// Does periodic work and returns when to call it again. By default it does nothing and is not
    /// called again.
    ///
    /// Called in the background, so that no request has to do this work: first when the picker
    /// comes into use, then at the time it returned.
    fn tend(&self, _now: Timestamp) -> Option<Timestamp> {
        None
    }

    /// The probing that it needs, if it uses load that servers report. Default: none.
    fn probing(&self) -> Option<&Probing> {
        None
    }

    /// Visits the probing of this picker and of those within it, each with its nodes.
    fn each_probing<'a>(&'a self, nodes: &'a [Arc<Node>], visit: &mut Visit<'_, 'a>) {
        if let Some(probing) = self.probing() {
            visit(probing, nodes);
        }
    }

    /// Whether it sends requests to `node` although its health closes it and other nodes are open,
    /// because those are too few to carry the load. Asked when a closed node was picked. Default:
    /// false.
    fn panics(&self, _node: &Node) -> bool {
        false
    }
}

/// What [`Picker::each_probing`] calls, with a [`Probing`] and its nodes.
pub type Visit<'v, 'a> = dyn FnMut(&'a Probing, &'a [Arc<Node>]) + 'v;

/// What a picker knows about the request and the moment.
#[derive(Debug)]
pub struct PickContext<'a> {
    /// The source of randomness.
    pub rng: &'a mut Rng,
    /// The time, for policies that measure latency. Exact to some milliseconds.
    pub now: Timestamp,
    /// Requests of the same hash belong together.
    pub hash: Option<u64>,
    /// The name of the subset that the request asks for, under a policy that [splits](Split).
    pub subset: Option<&'a str>,
    /// Ids of nodes that must not be picked; 0 stands for none.
    pub avoid: &'a [u64],
    /// Addresses that must not be picked.
    pub exclude: &'a [Address],
    /// No node is open, so nodes that only their health closes are admitted, too.
    pub fails_open: bool,
    /// Records which nodes are considered, and what decides. `None` unless the caller has asked for
    /// it.
    pub why: Option<&'a Recorder>,
}

impl<'a> PickContext<'a> {
    /// A request about which nothing is known.
    #[must_use]
    #[inline]
    pub fn new(rng: &'a mut Rng) -> Self {
        Self {
            rng,
            now: Timestamp::default(),
            hash: None,
            subset: None,
            avoid: &[],
            exclude: &[],
            fails_open: false,
            why: None,
        }
    }

    /// Whether `node` may take this request: it is open, or usable while none is open.
    #[must_use]
    #[inline]
    pub fn admits(&self, node: &Node) -> bool {
        let is_free = self.avoid.is_empty() && self.exclude.is_empty() && self.why.is_none();
        let is_open = node.is_open() || self.fails_open && node.is_usable();
        if is_free { is_open } else { self.allows(node, is_open) }
    }

    /// Records a rule that decided something, if the caller has [asked](Self::why) for it.
    #[inline]
    pub fn tell(&self, rule: impl FnOnce() -> String) {
        if let Some(why) = self.why {
            why.rule(rule());
        }
    }

    /// A number below `bound`: the same for requests of the same hash, random for requests without
    /// one.
    ///
    /// Used to choose between groups of nodes, so that requests which belong together stay
    /// together.
    ///
    /// # Panics
    /// If `bound` is zero.
    pub fn ticket(&mut self, bound: u64) -> u64 {
        match self.hash {
            None => self.rng.below_u64(bound),
            // Scrambled, so that the group does not determine the place within it.
            Some(hash) => {
                let mixed = (hash ^ hash >> 32).wrapping_mul(0x9E37_79B9_7F4A_7C15);
                ((u128::from(mixed) * u128::from(bound)) >> 64) as u64
            }
        }
    }

    // Out of line: most requests may go to any node, and a pick calls this for several nodes.
    #[inline(never)]
    fn allows(&self, node: &Node, is_open: bool) -> bool {
        if !is_open && self.why.is_none() {
            return false;
        }
        let is_avoided = self.avoid.contains(&node.id()) || self.exclude.contains(node.address());
        if let Some(why) = self.why {
            why.look(node, is_avoided);
        }
        is_open && !is_avoided
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

    fn reads_time(&self) -> bool {
        (**self).reads_time()
    }
}

impl<P: Policy + ?Sized> Policy for Arc<P> {
    fn name(&self) -> &'static str {
        (**self).name()
    }

    fn build(&self, nodes: &[Arc<Node>], previous: Option<&dyn Picker>) -> Box<dyn Picker> {
        (**self).build(nodes, previous)
    }

    fn latency_decay(&self) -> Option<Duration> {
        (**self).latency_decay()
    }

    fn reads_time(&self) -> bool {
        (**self).reads_time()
    }
}

/// The previous picker, if it has this type.
fn previous_as<P: Picker>(previous: Option<&dyn Picker>) -> Option<&P> {
    previous.and_then(|picker| (picker as &dyn Any).downcast_ref())
}
