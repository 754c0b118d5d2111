//! One client: its nodes, its picker and its budgets.

use std::sync::Arc;

use evenkeel_core::{
    attempt::{Attempt, Holder},
    endpoint::Endpoint,
    load::LatencyWindow,
    node::{Gate, Listener, Node},
    policy::{PickContext, Picker, Policy, Ticket},
    retry::Budget,
    rng::Rng,
    time::Timestamp,
};

use crate::{
    health::{Breakers, Watch},
    time::Clock,
};

/// What a balancer keeps for each node: the node and the clock.
#[derive(Debug)]
pub(crate) struct Slot {
    node: Arc<Node>,
    clock: Clock,
}

impl Holder for Slot {
    #[inline]
    fn node(&self) -> &Arc<Node> {
        &self.node
    }

    #[inline]
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    #[inline]
    fn recently(&self) -> Timestamp {
        self.clock.now()
    }
}

struct Deaf;

impl Listener for Deaf {
    fn opened(&self, _: &Node) {}
    fn closed(&self, _: &Node) {}
    fn unreachable(&self, _: &Node) {}
}

/// One client: its nodes, its picker and its budgets.
pub(crate) struct Client {
    pub(crate) zone: u16,
    nodes: Vec<Arc<Node>>,
    slots: Vec<Arc<Slot>>,
    /// Which server each node is.
    servers: Vec<u32>,
    /// Whether each node was tried before.
    is_used: Vec<bool>,
    policy: Arc<dyn Policy>,
    picker: Box<dyn Picker>,
    pub(crate) rng: Rng,
    pub(crate) budget: Option<Budget>,
    pub(crate) latency: Option<LatencyWindow>,
    pub(crate) watch: Option<Arc<Watch>>,
    pub(crate) breakers: Option<Arc<Breakers>>,
    /// When the health machines run next.
    pub(crate) sweep: u64,
    /// When the picker is next asked for probes.
    pub(crate) probes: u64,
}

/// The choice for one attempt.
pub(crate) struct Choice {
    pub(crate) attempt: Attempt<Slot>,
    pub(crate) server: u32,
    pub(crate) is_first: bool,
}

/// At most this many nodes are asked to admit an attempt.
const MAX_REFUSALS: usize = 8;

impl Client {
    pub(crate) fn new(zone: u16, rng: Rng, policy: Arc<dyn Policy>) -> Self {
        Self {
            zone,
            nodes: Vec::new(),
            slots: Vec::new(),
            servers: Vec::new(),
            is_used: Vec::new(),
            picker: policy.build(&[], None),
            policy,
            rng,
            budget: None,
            latency: None,
            watch: None,
            breakers: None,
            sweep: u64::MAX,
            probes: 0,
        }
    }

    /// Adds a server. Call [`rebuild`](Self::rebuild) after the last one.
    pub(crate) fn join(&mut self, server: u32, endpoint: Endpoint, clock: &Clock) {
        let decay = self.policy.latency_decay();
        let node = Arc::new(Node::joining(endpoint, Arc::new(Deaf), decay));
        if let Some(watch) = &self.watch {
            watch.add(&node);
        }
        if let Some(breakers) = &self.breakers {
            breakers.add(&node, &mut self.rng);
        }
        node.open(Gate::Joining);
        self.slots.push(Arc::new(Slot { node: node.clone(), clock: clock.clone() }));
        self.nodes.push(node);
        self.servers.push(server);
        self.is_used.push(false);
    }

    /// Reserves memory for this many servers.
    pub(crate) fn reserve(&mut self, servers: usize) {
        self.nodes.reserve_exact(servers);
        self.slots.reserve_exact(servers);
        self.servers.reserve_exact(servers);
        self.is_used.reserve_exact(servers);
    }

    /// Removes a server. Call [`rebuild`](Self::rebuild) after the last one.
    pub(crate) fn leave(&mut self, server: u32) {
        let Some(index) = self.servers.iter().position(|known| *known == server) else { return };
        self.nodes.remove(index).close(Gate::Retired);
        self.slots.remove(index);
        self.servers.remove(index);
        self.is_used.remove(index);
    }

    /// Rebuilds the picker after a change of the set or of a weight.
    pub(crate) fn rebuild(&mut self) {
        self.picker = self.policy.build(&self.nodes, Some(&*self.picker));
    }

    /// The server behind a node.
    pub(crate) fn server(&self, index: usize) -> u32 {
        self.servers[index]
    }

    /// Whether the policy sends probes.
    pub(crate) fn is_probing(&self) -> bool {
        self.picker.probing().is_some()
    }

    /// If the policy sends probes: begins those that are due, and returns when to ask again.
    pub(crate) fn due_probes(
        &mut self,
        now: Timestamp,
        begin: &mut dyn FnMut(Ticket),
    ) -> Option<Timestamp> {
        let probing = self.picker.probing()?;
        Some(probing.due(&self.nodes, &mut self.rng, now, begin))
    }

    /// Runs the picker's periodic work, and returns when to run it again.
    pub(crate) fn tend(&self, now: Timestamp) -> Option<Timestamp> {
        self.picker.tend(now)
    }

    /// Chooses a node as `Balance` does: an open node that was not tried, if there is one. If none
    /// is open, a node that only its health closes.
    pub(crate) fn choose(
        &mut self,
        now: Timestamp,
        hash: Option<u64>,
        tried: &[u64],
    ) -> Option<Choice> {
        let choice = self.choose_untried(now, hash, tried);
        if choice.is_none() && !tried.is_empty() {
            self.choose_untried(now, hash, &[])
        } else {
            choice
        }
    }

    fn choose_untried(
        &mut self,
        now: Timestamp,
        hash: Option<u64>,
        tried: &[u64],
    ) -> Option<Choice> {
        let mut avoid = [0; 2 * MAX_REFUSALS];
        avoid[..tried.len()].copy_from_slice(tried);
        for refused in tried.len()..(tried.len() + MAX_REFUSALS).min(avoid.len()) {
            let index = match self.pick(now, hash, &avoid[..refused], false) {
                Some(index) => index,
                None if self.nodes.iter().any(|node| node.is_open()) => return None,
                None => return self.choose_failing_open(now, hash, tried),
            };
            let mut attempt = Attempt::new(self.slots[index].clone());
            if attempt.admit() {
                return Some(self.start_attempt(index, attempt));
            }
            avoid[refused] = self.nodes[index].id();
        }
        None
    }

    fn choose_failing_open(
        &mut self,
        now: Timestamp,
        hash: Option<u64>,
        tried: &[u64],
    ) -> Option<Choice> {
        let index = self.pick(now, hash, tried, true)?;
        let mut attempt = Attempt::new(self.slots[index].clone());
        attempt.admit_failing_open().then(|| self.start_attempt(index, attempt))
    }

    fn pick(
        &mut self,
        now: Timestamp,
        hash: Option<u64>,
        avoid: &[u64],
        fails_open: bool,
    ) -> Option<usize> {
        let mut cx = PickContext::new(&mut self.rng);
        (cx.now, cx.hash, cx.avoid, cx.fails_open) = (now, hash, avoid, fails_open);
        self.picker.pick(&self.nodes, &mut cx)
    }

    fn start_attempt(&mut self, index: usize, mut attempt: Attempt<Slot>) -> Choice {
        attempt.start_clock();
        let is_first = !std::mem::replace(&mut self.is_used[index], true);
        Choice { attempt, server: self.servers[index], is_first }
    }
}
