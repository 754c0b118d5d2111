//! What is known of one address.

use std::sync::{Arc, Weak};

use super::{
    rules::CheckRules,
    standing::{ProbeResult, Standing},
};
use crate::{
    node::{Access, Gate, Node},
    sync::{AtomicU8, Ordering},
    time::Timestamp,
};

/// How far the gates of the nodes should be open. It is kept when the nodes are gone.
#[derive(Debug)]
pub(super) struct Door(AtomicU8);

const OPEN: u8 = 0;
const UNHEALTHY: u8 = 1;
/// No probe has passed yet, and no request may be sent before one has.
const UNCHECKED: u8 = 2;

impl Door {
    /// Makes both gates of `node` follow. In no order of changes is the node open in between.
    pub(super) fn lead(&self, node: &Node) {
        node.follow(Gate::Unhealthy, || self.access(UNHEALTHY));
        node.follow(Gate::Unchecked, || self.access(UNCHECKED));
    }

    fn access(&self, closed: u8) -> Access {
        if self.0.load(Ordering::Acquire) == closed { Access::Closed } else { Access::Open }
    }

    fn is_open(&self) -> bool {
        self.0.load(Ordering::Acquire) == OPEN
    }

    fn set(&self, state: u8) {
        self.0.store(state, Ordering::Release);
    }
}

/// The two queues of probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// Endpoints in doubt.
    Edge = 0,
    Settled = 1,
}

/// When an endpoint is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Due(Lane, Timestamp),
    /// A probe of this number is under way.
    UnderWay(u64),
    /// Discovery has not named it since this time.
    Gone(Timestamp),
}

/// What is known of one address, and the nodes that balancers have for it.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) nodes: Vec<Weak<Node>>,
    pub(super) door: Arc<Door>,
    pub(super) standing: Standing,
    pub(super) turn: Turn,
    /// How many results in a row contradict the standing.
    contrary: u32,
    /// How many probes failed before the first one passed; `None` after that.
    failed_at_first: Option<u32>,
    /// How many probes in a row passed while it was ejected.
    passed_ejected: u32,
}

impl Member {
    pub(super) fn new(rules: &CheckRules, turn: Turn) -> Self {
        let state = if rules.is_closed_at_first { UNCHECKED } else { OPEN };
        let door = Arc::new(Door(AtomicU8::new(state)));
        Self {
            nodes: Vec::new(),
            door,
            standing: Standing::Unknown,
            turn,
            contrary: 0,
            failed_at_first: Some(0),
            passed_ejected: 0,
        }
    }

    /// Adds a node, once, and forgets nodes that have left.
    pub(super) fn add(&mut self, node: &Arc<Node>) {
        let node = Arc::downgrade(node);
        self.nodes.retain(|other| live(other).is_some() && !Weak::ptr_eq(other, &node));
        self.nodes.push(node);
    }

    /// A node that a balancer has for it. Forgets nodes that have left.
    pub(super) fn live_node(&mut self) -> Option<Arc<Node>> {
        self.nodes.retain(|node| live(node).is_some());
        self.nodes.first().and_then(live)
    }

    /// Whether the next probe has to follow soon. That also holds for the first few: a new endpoint
    /// may not be ready yet.
    pub(super) fn is_doubtful(&self, rules: &CheckRules) -> bool {
        0 < self.contrary || self.failed_at_first.is_some_and(|failed| failed < rules.fall)
    }

    /// Takes in the result of a probe. Returns whether the gate has changed.
    pub(super) fn take_result(&mut self, verdict: ProbeResult, rules: &CheckRules) -> bool {
        let is_contrary = match self.standing {
            Standing::Unknown => true,
            Standing::Up => verdict != ProbeResult::Passed,
            Standing::Down => verdict == ProbeResult::Passed,
        };
        self.contrary = if is_contrary { self.contrary + 1 } else { 0 };
        let enough = match (self.standing, verdict) {
            // The first result decides alone, as in HAProxy and Envoy: there is nothing to weigh it
            // against.
            (Standing::Unknown, _) | (_, ProbeResult::Denied) => 1,
            (_, ProbeResult::Passed) if self.failed_at_first.is_some() => 1,
            (_, ProbeResult::Passed) => rules.rise,
            (_, ProbeResult::Failed) => rules.fall,
        };
        self.failed_at_first = match (self.failed_at_first, verdict) {
            (Some(failed), ProbeResult::Failed | ProbeResult::Denied) => {
                Some(failed.saturating_add(1))
            }
            _ => None,
        };
        is_contrary && enough <= self.contrary && self.settle(verdict)
    }

    /// Takes a result as final. Returns whether the gate has changed.
    pub(super) fn settle(&mut self, verdict: ProbeResult) -> bool {
        let is_up = verdict == ProbeResult::Passed;
        self.contrary = 0;
        if is_up {
            self.failed_at_first = None;
        }
        self.standing = if is_up { Standing::Up } else { Standing::Down };
        let was_up = self.door.is_open();
        if is_up {
            self.door.set(OPEN);
        } else if was_up {
            // An endpoint that has never passed stays unchecked.
            self.door.set(UNHEALTHY);
        }
        was_up != is_up
    }

    /// Whether enough probes in a row have passed, with this one, to end an ejection.
    pub(super) fn ends_ejection(&mut self, verdict: ProbeResult, rules: &CheckRules) -> bool {
        let mut nodes = self.nodes.iter().filter_map(live);
        let is_ejected = nodes.any(|node| node.is_closed_by(Gate::Ejected));
        if !rules.ends_ejections || !is_ejected || verdict != ProbeResult::Passed {
            self.passed_ejected = 0;
            return false;
        }
        self.passed_ejected += 1;
        rules.rise <= self.passed_ejected && std::mem::take(&mut self.passed_ejected) != 0
    }
}

fn live(node: &Weak<Node>) -> Option<Arc<Node>> {
    node.upgrade().filter(|node| !node.is_closed_by(Gate::Retired))
}
