//! What a registry has to do so that the rules can be tested on it.
#![allow(dead_code, reason = "no test needs all of it")]

use std::time::{Duration, Instant};

use evenkeel_core::{
    discover::Discovery,
    endpoint::{Address, Endpoint},
};
use evenkeel_discovery::register::{Entry, Registered};

use crate::conformance::slow_motion::Proxy;

/// The readiness that an instance states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// None is stated.
    Silent,
    /// It is taken out, and finishes what it has.
    Draining,
    /// It is unhealthy.
    Failing,
}

/// An instance of the service, as it is entered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Instance {
    pub(crate) address: String,
    pub(crate) weight: u32,
    pub(crate) tier: u32,
    pub(crate) state: State,
    /// The entry `note` of its metadata.
    pub(crate) note: Option<&'static str>,
    /// The part of the set that it is in: a node, a slice, a page.
    pub(crate) part: u16,
}

impl Instance {
    pub(crate) fn at(address: impl Into<String>) -> Self {
        let address = address.into();
        Self { address, weight: 1, tier: 0, state: State::Silent, note: None, part: 0 }
    }

    /// Instances with these ports of 10.0.0.1.
    pub(crate) fn ports(ports: impl IntoIterator<Item = u16>) -> Vec<Self> {
        ports.into_iter().map(|port| Self::at(format!("10.0.0.1:{port}"))).collect()
    }

    /// Its endpoint, for registries that store endpoints.
    pub(crate) fn endpoint(&self) -> Endpoint {
        let address: Address = self.address.parse().unwrap();
        let weight = if self.state == State::Draining { 0 } else { self.weight };
        let endpoint = Endpoint::new(address).weight(weight).priority(self.tier);
        match self.note {
            Some(note) => endpoint.metadata("note", note),
            None => endpoint,
        }
    }

    pub(crate) fn weight(self, weight: u32) -> Self {
        Self { weight, ..self }
    }

    pub(crate) fn state(self, state: State) -> Self {
        Self { state, ..self }
    }

    pub(crate) fn note(self, note: &'static str) -> Self {
        Self { note: Some(note), ..self }
    }
}

/// A registry with one service, `web`, without instances at first.
///
/// A registry need not implement what belongs to rules from which it is exempt.
pub(crate) trait Harness: Sized + Send {
    /// How many parts a set has, and how many instances make a part that matters.
    const PARTS: (u16, u16) = (3, 1);
    /// Whether a set can change at all.
    const CHANGES: bool = true;
    /// Whether it has weights other than that of a draining instance.
    const HAS_WEIGHTS: bool = true;
    /// The metadata key that holds [`Instance::note`].
    const NOTE: &'static str = "note";
    /// Whether it has tiers (priorities).
    const HAS_TIERS: bool = false;

    type Source: Discovery + Clone;

    /// Starts it; none if its server is missing, which is then reported loudly.
    async fn start() -> Option<Self>;

    /// A discovery of the service, with a back-off of [`BACKOFF`], and suspicious losses held for
    /// [`HOLD`].
    fn discovery(&self) -> Self::Source;

    /// Makes the set exactly this one, in one step if the registry can.
    async fn set(&mut self, instances: &[Instance]);

    /// Seems empty for a moment, and then has its entries again.
    async fn blink(&mut self) {
        panic!("exempt from C4")
    }

    /// Changes to this set in such a way that the changes in between cannot be reported.
    async fn lose_history(&mut self, _now: &[Instance]) {
        panic!("exempt from C5")
    }

    /// Changes to this set, in a state that was built again and counts from the beginning.
    async fn go_back(&mut self, _now: &[Instance]) {
        panic!("exempt from C7")
    }

    /// Stops answering, or answers badly, until it is mended.
    async fn fail(&mut self) {
        panic!("exempt from C8")
    }

    async fn mend(&mut self) {
        panic!("exempt from C8")
    }

    /// The proxy between the discovery and the registry, if there is one that can be slowed down.
    fn way(&self) -> &Proxy {
        panic!("there is no connection")
    }

    /// The URL behind that proxy.
    fn url(&self) -> String {
        panic!("there is no connection")
    }

    /// When it was asked since it has failed.
    fn asked(&self) -> Vec<Instant> {
        panic!("exempt from C9")
    }

    /// Enters instances of other services, with names that begin like this one's.
    async fn enter_beside(&mut self) {
        panic!("exempt from C10")
    }

    /// Enters a service by the library's own registration at this server, with a TTL of 3 s.
    fn register_at(&self, _url: &str, _entry: Entry) -> Registered {
        panic!("exempt from C12")
    }

    fn register(&self, entry: Entry) -> Registered {
        self.register_at(&self.url(), entry)
    }

    /// Removes an entry that has entered itself, as by hand.
    async fn take_out(&mut self, _entry: &Entry) {
        panic!("exempt from C12")
    }
}

/// Longer than a registry takes to come back on a busy machine.
pub(crate) const HOLD: Duration = Duration::from_secs(10);
pub(crate) const BACKOFF: (Duration, Duration) =
    (Duration::from_millis(50), Duration::from_millis(800));
