//! Why a request went where it went: a record of each choice, on request.
//!
//! Put a [`Why`] into a request, keep a clone of it, and read it afterwards. It says which
//! endpoints were looked at, how busy and how healthy they were at that moment, and what the policy
//! decided. Over HTTP it is a request extension, and the response carries it back. Other traffic
//! names it in its [hints](crate::traffic::Hints::why).
//!
//! **Use it** to answer "why this endpoint?" for the one request that went wrong: behind a debug
//! header, or for one request in a thousand. **Do not** use it for statistics: metrics are made for
//! those. A request without it costs one comparison; a request with it costs the allocations of its
//! record.
//!
//! A record has at most [`MAX_LOOKED`] endpoints for each choice, and a `Why` keeps the last
//! [`MAX_DECISIONS`] choices. There is one choice for each attempt, and one for each time that the
//! chosen endpoint was not ready.
//!
//! ```
//! use std::sync::Arc;
//! use evenkeel::core::{
//!     node::{Gate, Node},
//!     policy::{P2c, PickContext, Policy},
//!     rng::Rng,
//!     why::{Recorder, Why},
//! };
//!
//! let nodes: Vec<Arc<Node>> = ["10.0.0.1:80", "10.0.0.2:80"]
//!     .map(|address| Arc::new(Node::new(address.parse().unwrap())))
//!     .into();
//! nodes[0].close(Gate::Ejected);
//!
//! let (recorder, mut rng) = (Recorder::default(), Rng::with_seed(1));
//! let mut cx = PickContext::new(&mut rng);
//! cx.why = Some(&recorder);
//! let picked = P2c.build(&nodes, None).pick(&nodes, &mut cx).map(|index| &*nodes[index]);
//!
//! let why = Why::new();
//! why.add(recorder.decision("p2c", picked));
//! let text = why.to_string();
//! assert!(text.contains("p2c chose 10.0.0.2:80"), "{text}");
//! assert!(text.contains("10.0.0.1:80: weight 1, 0 in flight, closed by ejected"), "{text}");
//! ```

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::{
    endpoint::Address,
    node::{Gate, Node},
};

/// How many endpoints are recorded of one choice. Further ones are only counted.
pub const MAX_LOOKED: usize = 64;

/// How many choices are kept: the last ones.
pub const MAX_DECISIONS: usize = 16;

/// Asks for the reasons of the choices that are made for one request, and keeps them.
///
/// Clones share what is recorded.
#[derive(Clone, Debug, Default)]
pub struct Why(Arc<Mutex<VecDeque<Decision>>>);

impl Why {
    /// Without any choice yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The choices, in the order in which they were made.
    ///
    /// # Panics
    /// Never: nothing panics while the lock is held.
    #[must_use]
    pub fn decisions(&self) -> Vec<Decision> {
        self.0.lock().expect("no panic under the lock").iter().cloned().collect()
    }

    /// Adds a choice. If there are [`MAX_DECISIONS`] already, the oldest one is dropped.
    ///
    /// # Panics
    /// Never: nothing panics while the lock is held.
    pub fn add(&self, decision: Decision) {
        let mut decisions = self.0.lock().expect("no panic under the lock");
        if decisions.len() == MAX_DECISIONS {
            decisions.pop_front();
        }
        decisions.push_back(decision);
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for decision in self.decisions() {
            decision.fmt(f)?;
        }
        Ok(())
    }
}

/// One choice.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Decision {
    /// The name of the policy.
    pub policy: &'static str,
    /// The endpoint that was chosen, if there was one.
    pub chosen: Option<Address>,
    /// The rules that decided, in the order in which they did.
    pub rules: Vec<String>,
    /// The endpoints that were looked at, in that order, each listed once.
    pub looked: Vec<Looked>,
    /// How many more were looked at.
    pub left_out: usize,
}

/// An endpoint as it was when it was looked at.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Looked {
    /// Where it listens.
    pub address: Address,
    /// Its weight.
    pub weight: u32,
    /// Attempts that were under way.
    pub in_flight: u32,
    /// The extra load that counted because attempts had [failed](Node::penalty).
    pub penalty: u32,
    /// Its latency estimate, where latency is measured.
    pub latency: Option<Duration>,
    /// What closed it.
    pub closed_by: Vec<Gate>,
    /// Whether the request should avoid it, because it was tried before or is excluded.
    pub is_avoided: bool,
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.chosen {
            Some(address) => writeln!(f, "{} chose {address}", self.policy)?,
            None => writeln!(f, "{} chose no endpoint", self.policy)?,
        }
        for rule in &self.rules {
            writeln!(f, "  {rule}")?;
        }
        for looked in &self.looked {
            let mark = if self.chosen.as_ref() == Some(&looked.address) { "->" } else { "  " };
            writeln!(f, "  {mark} {looked}")?;
        }
        if 0 < self.left_out {
            writeln!(f, "     and {} more", self.left_out)?;
        }
        Ok(())
    }
}

impl fmt::Display for Looked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, weight, in_flight, .. } = self;
        write!(f, "{address}: weight {weight}, {in_flight} in flight")?;
        if self.penalty != 0 {
            write!(f, ", penalty {}", self.penalty)?;
        }
        if let Some(latency) = self.latency {
            write!(f, ", latency {latency:?}")?;
        }
        match &self.closed_by[..] {
            [] => write!(f, ", open")?,
            gates => {
                let names: Vec<_> = gates.iter().map(|gate| gate.name()).collect();
                write!(f, ", closed by {}", names.join(", "))?;
            }
        }
        if self.is_avoided { write!(f, ", to be avoided") } else { Ok(()) }
    }
}

/// Records what a picker looks at, for [`PickContext::why`](crate::policy::PickContext::why).
#[derive(Debug, Default)]
pub struct Recorder {
    looked: RefCell<Vec<Looked>>,
    rules: RefCell<Vec<String>>,
    left_out: Cell<usize>,
}

impl Recorder {
    /// How many rules are kept.
    const MAX_RULES: usize = 32;

    /// A picker has looked at `node`.
    #[cold]
    pub(crate) fn look(&self, node: &Node, is_avoided: bool) {
        let mut looked = self.looked.borrow_mut();
        if looked.iter().any(|before| before.address == *node.address()) {
            return;
        }
        if looked.len() == MAX_LOOKED {
            self.left_out.set(self.left_out.get() + 1);
            return;
        }
        looked.push(Looked {
            address: node.address().clone(),
            weight: node.weight(),
            in_flight: node.in_flight(),
            penalty: node.penalty(),
            latency: node.latency().estimate(),
            closed_by: node.closed_by().collect(),
            is_avoided,
        });
    }

    /// A rule has decided something.
    #[cold]
    pub fn rule(&self, rule: String) {
        let mut rules = self.rules.borrow_mut();
        if rules.len() < Self::MAX_RULES {
            rules.push(rule);
        }
    }

    /// The record, as the choice of `policy`.
    #[must_use]
    pub fn decision(self, policy: &'static str, chosen: Option<&Node>) -> Decision {
        Decision {
            policy,
            chosen: chosen.map(|node| node.address().clone()),
            rules: self.rules.into_inner(),
            looked: self.looked.into_inner(),
            left_out: self.left_out.get(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        endpoint::Endpoint,
        policy::{PickContext, by_name, names},
        rng::Rng,
    };

    fn nodes(count: u16) -> Vec<Arc<Node>> {
        let endpoint = |port| Endpoint::new(std::net::SocketAddr::from(([10, 0, 0, 1], port)));
        (1..=count).map(|port| Arc::new(Node::new(endpoint(port)))).collect()
    }

    fn decide(name: &str, nodes: &[Arc<Node>], seed: u64) -> (Option<usize>, Decision) {
        let policy = by_name(name).unwrap();
        let picker = policy.build(nodes, None);
        let (recorder, mut rng) = (Recorder::default(), Rng::with_seed(seed));
        let mut cx = PickContext::new(&mut rng);
        cx.why = Some(&recorder);
        let picked = picker.pick(nodes, &mut cx);
        (picked, recorder.decision(policy.name(), picked.map(|index| &*nodes[index])))
    }

    #[test]
    fn the_chosen_node_was_looked_at_under_every_policy_and_recording_changes_nothing() {
        let nodes = nodes(10);
        nodes[3].close(Gate::Ejected);
        for name in names() {
            for seed in 0..20 {
                let (picked, decision) = decide(name, &nodes, seed);
                let chosen = decision.chosen.clone().unwrap();
                assert_eq!(&chosen, nodes[picked.unwrap()].address(), "{name}");
                let was_looked_at = decision.looked.iter().any(|looked| looked.address == chosen);
                assert!(was_looked_at, "{name}: {decision}");

                let picker = by_name(name).unwrap().build(&nodes, None);
                let mut rng = Rng::with_seed(seed);
                let again = picker.pick(&nodes, &mut PickContext::new(&mut rng));
                assert_eq!(again, picked, "{name} chooses the same unasked");
            }
        }
    }

    #[test]
    fn a_choice_of_two_names_both_and_the_rule() {
        let nodes = nodes(2);
        nodes[0].enter();
        let (_, decision) = decide("p2c", &nodes, 1);
        assert_eq!(decision.looked.len(), 2);
        let text = decision.to_string();
        assert!(text.starts_with("p2c chose 10.0.0.1:2\n"), "{text}");
        assert!(text.contains("fewer in flight"), "{text}");
        assert!(text.contains("   10.0.0.1:1: weight 1, 1 in flight, open"), "{text}");
        assert!(text.contains("-> 10.0.0.1:2: weight 1, 0 in flight, open"), "{text}");
    }

    #[test]
    fn a_record_is_bounded() {
        let nodes = nodes(1_000);
        let (_, decision) = decide("least_loaded", &nodes, 1);
        assert_eq!(decision.looked.len(), MAX_LOOKED);
        assert_eq!(decision.left_out, 1_000 - MAX_LOOKED);
        let why = Why::new();
        (0..100).for_each(|_| why.add(decision.clone()));
        assert_eq!(why.decisions().len(), MAX_DECISIONS);
    }

    #[test]
    fn a_decision_for_no_node_is_recorded_too() {
        let nodes = nodes(2);
        nodes.iter().for_each(|node| _ = node.close(Gate::Draining));
        let (picked, decision) = decide("round_robin", &nodes, 1);
        assert_eq!(picked, None);
        assert!(decision.to_string().contains("chose no endpoint"));
        assert!(decision.to_string().contains("closed by draining"));
    }
}
