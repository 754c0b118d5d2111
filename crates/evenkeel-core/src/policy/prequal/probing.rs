//! Which nodes are probed and when, and what happens to the answers.

use std::{fmt, sync::Arc};

use super::{
    peer::Peer,
    pool::Pooled,
    state::{State, Terms},
};
use crate::{load::ServerLoad, node::Node, rng::Rng, sync::Ordering, time::Timestamp};

/// Which nodes to probe, for the code that sends probes.
///
/// [`Picker::probing`](crate::policy::Picker::probing) returns it. Call [`due`](Self::due) once at
/// first, when it [wakes](Self::wake_with) you, after each answer, and at the time that `due` last
/// returned. Each probe that it begins is a [`Ticket`], to be [answered](Ticket::record_answer),
/// [failed](Ticket::record_failure), or dropped.
///
/// The balancer of evenkeel-layers does that. A simulator does it like this:
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use evenkeel::core::{load::ServerLoad, node::Node, policy::{self, PickContext}, rng::Rng, time::Timestamp};
///
/// let nodes: Vec<Arc<Node>> = (1..=3)
///     .map(|port| Arc::new(Node::new(format!("10.0.0.1:{port}").parse().unwrap())))
///     .collect();
/// let picker = policy::by_name("prequal").unwrap().build(&nodes, None);
/// let mut rng = Rng::with_seed(1);
/// let mut now = Timestamp::from_nanos(0);
///
/// let probing = picker.probing().expect("it probes");
/// let mut tickets = Vec::new();
/// let again = probing.due(&nodes, &mut rng, now, &mut |ticket| tickets.push(ticket));
/// assert!(now < again, "at the latest then: idle clients probe, too");
///
/// now = now + Duration::from_millis(1);
/// for ticket in tickets {
///     let busy = if ticket.index() == 2 { 1.0 } else { 50.0 };
///     ticket.record_answer(ServerLoad::new(busy, Duration::from_millis(10)), now);
/// }
/// let mut cx = PickContext { now, ..PickContext::new(&mut rng) };
/// assert_eq!(picker.pick(&nodes, &mut cx), Some(2));
/// ```
pub struct Probing {
    pub(super) state: Arc<State>,
    /// One for each node, in the order of the nodes.
    pub(super) peers: Box<[Arc<Peer>]>,
    pub(super) generation: u64,
}

impl Probing {
    /// Begins the probes that are due now, and returns the time by which to call it again.
    ///
    /// `nodes` are those that the picker was built for. At most
    /// [`max_probes`](super::Prequal::max_probes) probes are under way. Probes that requests ask
    /// for beyond that are forgotten.
    pub fn due(
        &self,
        nodes: &[Arc<Node>],
        rng: &mut Rng,
        now: Timestamp,
        begin: &mut dyn FnMut(Ticket),
    ) -> Timestamp {
        let (state, rules) = (&self.state, &self.state.rules);
        state.advance(now);
        state.age_out();

        if !self.is_current() {
            // Owed probes wait for the picker that comes into use.
            return state.now() + rules.idle_interval / 2;
        }
        let probed = Timestamp::from_nanos(state.probed.load(Ordering::Relaxed));
        let is_idle = rules.idle_interval <= state.now().since(probed);
        let owed = state.owed.swap(0, Ordering::AcqRel).max(is_idle.into());
        let room = rules.max_probes.saturating_sub(state.under_way.load(Ordering::Acquire));
        let count = owed.min(room);
        if count != 0 && !nodes.is_empty() {
            state.probed.store(state.now().as_nanos(), Ordering::Relaxed);
            self.draw(nodes, rng, count as usize, begin);
        }
        // If there was no node to probe, or no room, ask again after a while, too.
        let probed = Timestamp::from_nanos(state.probed.load(Ordering::Relaxed));
        (probed + rules.idle_interval).max(state.now() + rules.idle_interval / 2)
    }

    /// Sets what to call when probes are due. Picks call it, so it must be quick.
    ///
    /// Only the first one set is used.
    pub fn wake_with(&self, wake: impl Fn() + Send + Sync + 'static) {
        self.state.wake.get_or_init(|| Box::new(wake));
    }

    /// How many probes are in the pool now.
    #[must_use]
    pub fn pooled(&self) -> usize {
        self.state.pool().len()
    }

    /// Whether no picker for another set of nodes has been built since.
    pub(super) fn is_current(&self) -> bool {
        self.state.generation.load(Ordering::Acquire) == self.generation
    }

    /// Begins `count` probes, of distinct nodes, or of every node once if there are fewer.
    fn draw(
        &self,
        nodes: &[Arc<Node>],
        rng: &mut Rng,
        count: usize,
        begin: &mut dyn FnMut(Ticket),
    ) {
        // The nodes of one round. They are few: by default at most 64 probes are under way.
        let mut drawn: Vec<usize> = Vec::with_capacity(count.min(nodes.len()));
        for _ in 0..count.min(nodes.len()) {
            let mut index = rng.below(nodes.len());
            while drawn.contains(&index) {
                index = (index + 1) % nodes.len();
            }
            drawn.push(index);
            // A node that is closed for good, or by its health, must not be sent requests.
            if !nodes[index].is_usable() {
                continue;
            }
            self.state.under_way.fetch_add(1, Ordering::AcqRel);
            begin(Ticket {
                state: self.state.clone(),
                peer: self.peers[index].clone(),
                node: nodes[index].clone(),
                index,
                generation: self.generation,
                uses: self.state.uses(rng),
                luck: rng.unit() as f32,
            });
        }
    }
}

impl fmt::Debug for Probing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probing")
            .field("rules", &self.state.rules)
            .field("nodes", &self.peers.len())
            .field("pooled", &self.pooled())
            .finish_non_exhaustive()
    }
}

/// A probe that is under way, until it is answered, failed or dropped.
pub struct Ticket {
    state: Arc<State>,
    peer: Arc<Peer>,
    node: Arc<Node>,
    index: usize,
    generation: u64,
    uses: u32,
    luck: f32,
}

impl Ticket {
    /// The node to be probed.
    #[must_use]
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Its index among the nodes.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// Reports that the node has answered.
    pub fn record_answer(self, load: ServerLoad, now: Timestamp) {
        self.state.advance(now);
        let probe = Pooled {
            index: self.index as u32,
            id: self.node.id(),
            own: self.node.in_flight(),
            uses: self.uses,
            arrived: self.state.now(),
        };
        let terms = Terms {
            aversion: &self.peer.aversion,
            generation: self.generation as u32,
            luck: self.luck,
            may_wait: true,
        };
        self.state.insert(probe, self.peer.believed(load, now), &terms);
    }

    /// Reports that no answer came, or not in time. Nothing is then known about the node's load.
    pub fn record_failure(self, now: Timestamp) {
        self.state.advance(now);
        self.state.pool().forget(self.node.id());
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.state.under_way.fetch_sub(1, Ordering::AcqRel);
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("node", &self.node).finish_non_exhaustive()
    }
}
