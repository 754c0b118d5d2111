//! The policies that ship, in one list. Whatever goes over all of them reads it.

use super::{
    ClientSideWeighted, Ketama, LeastLoaded, Maglev, P2c, PanicThreshold, PeakEwma, PickFirst,
    Policy, PreferZone, Prequal, Random, Rendezvous, RingHash, RoundRobin, SlowStart, Split, Tiers,
    WeightedP2c, WeightedRandom, WeightedRoundRobin, ZoneAware, ZoneWeighted,
    laws::Spread::{self, ByWeight, Even, Not, Roughly},
};

/// All policies that ship. Those that wrap another come last.
///
/// ```
/// use evenkeel::core::policy::{BUILT_IN, laws};
///
/// for policy in BUILT_IN.iter().filter(|policy| policy.hashes()) {
///     laws::check_hashing(&*policy.make());
/// }
/// ```
pub static BUILT_IN: &[BuiltIn] = &[
    plain("round_robin", Even, Basis::Nothing, || Box::new(RoundRobin)),
    plain("weighted_round_robin", ByWeight, Basis::Nothing, || Box::new(WeightedRoundRobin)),
    plain("random", Even, Basis::Nothing, || Box::new(Random)),
    plain("weighted_random", ByWeight, Basis::Nothing, || Box::new(WeightedRandom)),
    plain("p2c", Even, Basis::InFlight, || Box::new(P2c)),
    plain("weighted_p2c", ByWeight, Basis::InFlight, || Box::new(WeightedP2c)),
    plain("least_loaded", ByWeight, Basis::InFlight, || Box::new(LeastLoaded)),
    plain("peak_ewma", Even, Basis::Latency, || Box::new(PeakEwma::default())),
    plain("client_side_weighted_round_robin", Even, Basis::Reports, || {
        Box::new(ClientSideWeighted::new())
    }),
    plain("prequal", Even, Basis::Probes, || Box::new(Prequal::new())),
    plain("pick_first", Not, Basis::Nothing, || Box::new(PickFirst)),
    hashing("ring_hash", Roughly, |bound| match bound {
        None => Box::new(RingHash::new()),
        Some(factor) => Box::new(RingHash::new().bounded_load(factor)),
    }),
    hashing("ketama", Roughly, |bound| match bound {
        None => Box::new(Ketama::new()),
        Some(factor) => Box::new(Ketama::new().bounded_load(factor)),
    }),
    hashing("maglev", ByWeight, |bound| match bound {
        None => Box::new(Maglev::new()),
        Some(factor) => Box::new(Maglev::new().bounded_load(factor)),
    }),
    hashing("rendezvous", ByWeight, |bound| match bound {
        None => Box::new(Rendezvous::new()),
        Some(factor) => Box::new(Rendezvous::new().bounded_load(factor)),
    }),
    wrapping("priority", |child| Box::new(Tiers::new(child))),
    wrapping("zone_aware", |child| Box::new(ZoneAware::anywhere(child))),
    wrapping("zone_weighted", |child| Box::new(ZoneWeighted::new(child))),
    wrapping("prefer_zone", |child| Box::new(PreferZone::anywhere(child))),
    wrapping("split", |child| Box::new(Split::new(child))),
    wrapping("slow_start", |child| Box::new(SlowStart::over(child))),
    wrapping("panic_threshold", |child| Box::new(PanicThreshold::over(child))),
];

/// A policy that ships: its name, how it is made, and what tells it from others.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct BuiltIn {
    /// The name used in configurations, tables and metrics.
    pub name: &'static str,
    /// How it spreads requests over idle, open nodes.
    pub spread: Spread,
    /// What it compares nodes by. [`Basis::Nothing`] if it wraps a policy, which does.
    pub basis: Basis,
    make: Make,
}

/// What a policy compares nodes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Basis {
    /// It does not compare nodes. At most it knows their weights.
    Nothing,
    /// Requests in flight from this client, with recent failures counted among them.
    InFlight,
    /// Latency as this client measures it, and requests in flight.
    Latency,
    /// Load that servers report with their responses, or beside them.
    Reports,
    /// Load that servers report when they are probed.
    Probes,
}

#[derive(Clone, Copy, Debug)]
enum Make {
    Plain(fn() -> Box<dyn Policy>),
    Hashing(fn(Option<f64>) -> Box<dyn Policy>),
    Wrapping(fn(Box<dyn Policy>) -> Box<dyn Policy>),
}

const fn plain(
    name: &'static str,
    spread: Spread,
    basis: Basis,
    make: fn() -> Box<dyn Policy>,
) -> BuiltIn {
    BuiltIn { name, spread, basis, make: Make::Plain(make) }
}

const fn hashing(
    name: &'static str,
    spread: Spread,
    make: fn(Option<f64>) -> Box<dyn Policy>,
) -> BuiltIn {
    BuiltIn { name, spread, basis: Basis::Nothing, make: Make::Hashing(make) }
}

const fn wrapping(name: &'static str, make: fn(Box<dyn Policy>) -> Box<dyn Policy>) -> BuiltIn {
    BuiltIn { name, spread: Even, basis: Basis::Nothing, make: Make::Wrapping(make) }
}

impl BuiltIn {
    /// Makes the policy with its defaults. One that wraps another is made over [`P2c`].
    #[must_use]
    pub fn make(&self) -> Box<dyn Policy> {
        match self.make {
            Make::Plain(make) => make(),
            Make::Hashing(make) => make(None),
            Make::Wrapping(make) => make(Box::new(P2c)),
        }
    }

    /// Whether it sends requests of the same [hash](super::PickContext::hash) to the same node.
    #[must_use]
    pub fn hashes(&self) -> bool {
        matches!(self.make, Make::Hashing(_))
    }

    /// Makes the policy with a bound on the load of each node, as a factor of the mean. `None` if
    /// it does not hash.
    ///
    /// # Panics
    /// If the factor is below 1, or not a number.
    #[must_use]
    pub fn bounded(&self, factor: f64) -> Option<Box<dyn Policy>> {
        let Make::Hashing(make) = self.make else { return None };
        Some(make(Some(factor)))
    }

    /// Whether it wraps another policy.
    #[must_use]
    pub fn wraps(&self) -> bool {
        matches!(self.make, Make::Wrapping(_))
    }

    /// Makes the policy with its defaults over `child`. `None` if it does not wrap another.
    #[must_use]
    pub fn wrap(&self, child: Box<dyn Policy>) -> Option<Box<dyn Policy>> {
        let Make::Wrapping(make) = self.make else { return None };
        Some(make(child))
    }
}

/// The names of all policies that ship.
pub fn names() -> impl Iterator<Item = &'static str> + Clone {
    BUILT_IN.iter().map(|policy| policy.name)
}

/// The policy of this name with its defaults, or `None` if there is none.
///
/// ```
/// use evenkeel::core::policy;
///
/// for name in policy::names() {
///     assert_eq!(policy::by_name(name).unwrap().name(), name);
/// }
/// assert!(policy::by_name("best").is_none());
/// ```
#[must_use]
pub fn by_name(name: &str) -> Option<Box<dyn Policy>> {
    BUILT_IN.iter().find(|policy| policy.name == name).map(BuiltIn::make)
}
