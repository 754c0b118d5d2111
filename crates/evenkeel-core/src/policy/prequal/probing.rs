//! Who is probed when, and what becomes of the answers.

use std::{
    fmt,
    sync::{Arc, OnceLock, Weak},
};

use super::{
    aversion::Aversion,
    hotness::Hotness,
    pool::{Pool, Pooled},
    rules::{POOL, Rules},
};
use crate::{
    load::{LoadReport, ServerLoad},
    node::Node,
    observe::{Observer, Report},
    outcome::Outcome,
    rng::{Rng, Seeds},
    sync::{AtomicU32, AtomicU64, Mutex, Ordering},
    time::Timestamp,
};

/// Requests come faster than probes: so many wake whoever sends them, though some are under way.
const WAKE_EVERY: u32 = 16;

/// What the pickers of one balancer share, one after another.
pub(super) struct State {
    pub(super) rules: Rules,
    pub(super) pool: Mutex<Pool>,
    hotness: Mutex<Hotness>,
    /// Which set of nodes the indices in the pool are of.
    pub(super) generation: AtomicU64,
    /// Probes asked for by requests, in 2⁻³².
    asked: AtomicU64,
    /// Probes that are to be sent.
    owed: AtomicU32,
    under_way: AtomicU32,
    /// When a probe was sent last, and the latest time that was told.
    probed: AtomicU64,
    now: AtomicU64,
    wake: OnceLock<Box<dyn Fn() + Send + Sync>>,
    /// Requests that a probe may decide on average, as `f64` bits.
    reuse: AtomicU64,
    /// What parts cold from hot, as `f64` bits.
    quantile: AtomicU64,
    /// For what rides on responses, where there is no randomness to be had.
    seeds: Seeds,
}

impl State {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            pool: Mutex::default(),
            hotness: Mutex::default(),
            generation: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            owed: AtomicU32::new(0),
            under_way: AtomicU32::new(0),
            probed: AtomicU64::new(0),
            now: AtomicU64::new(0),
            wake: OnceLock::new(),
            reuse: AtomicU64::new(1.0_f64.to_bits()),
            quantile: AtomicU64::new(1.0_f64.to_bits()),
            seeds: Seeds::new(0x5EED),
        }
    }

    /// A request asks for its probes: as many as the rate says, exactly in the long run.
    #[inline]
    pub(super) fn ask(&self) {
        const UNIT: f64 = (1_u64 << 32) as f64;
        let step = (self.rules.probe_rate * UNIT) as u64;
        let before = self.asked.fetch_add(step, Ordering::Relaxed);
        let probes = ((before.wrapping_add(step) >> 32) as u32).wrapping_sub((before >> 32) as u32);
        if probes != 0 {
            self.owe(probes);
        }
    }

    /// Wakes whoever sends probes, unless an answer will soon do so.
    fn owe(&self, probes: u32) {
        // Read first: without anybody who sends them they stay owed, and cost one load a request.
        if self.rules.probes_max <= self.owed.load(Ordering::Relaxed) {
            return;
        }
        // In one order with `finished`: either the sender sees these, or they see that nobody is
        // under way.
        let before = self.owed.fetch_add(probes, Ordering::SeqCst);
        let is_silent = before == 0 && self.under_way.load(Ordering::SeqCst) == 0;
        if (is_silent || before / WAKE_EVERY != (before + probes) / WAKE_EVERY)
            && let Some(wake) = self.wake.get()
        {
            wake();
        }
    }

    /// Sets what follows from how many nodes there are.
    pub(super) fn set_nodes(&self, nodes: usize) {
        self.reuse.store(self.rules.reuse(nodes).to_bits(), Ordering::Relaxed);
        self.quantile.store(self.rules.quantile_of(nodes).to_bits(), Ordering::Relaxed);
    }

    /// How many requests one probe may decide, rounded at random.
    fn uses(&self, rng: &mut Rng) -> u32 {
        (f64::from_bits(self.reuse.load(Ordering::Relaxed)) + rng.unit()) as u32
    }

    /// The latest time that anybody told; never back.
    fn advance(&self, now: Timestamp) {
        if self.now.load(Ordering::Relaxed) < now.as_nanos() {
            self.now.fetch_max(now.as_nanos(), Ordering::Relaxed);
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.now.load(Ordering::Relaxed))
    }

    fn forget(&self, id: u64) {
        self.pool.lock().expect("no panic under the lock").forget(id);
    }
}

/// What is known of one node: how much of what it was given has failed.
pub(super) struct Peer {
    state: Weak<State>,
    id: u64,
    pub(super) aversion: Aversion,
    /// Its index among the nodes, above it the generation of those.
    place: AtomicU64,
}

impl Peer {
    pub(super) fn new(state: &Arc<State>, node: &Node) -> Arc<Self> {
        let aversion = Aversion::default();
        let place = AtomicU64::new(0);
        let peer = Arc::new(Self { state: Arc::downgrade(state), id: node.id(), aversion, place });
        node.observe(peer.clone());
        peer
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Its node has this index in the set of this generation.
    pub(super) fn is_at(&self, index: usize, generation: u64) {
        self.place.store(generation << 32 | index as u64, Ordering::Release);
    }
}

impl Observer for Peer {
    fn ended(&self, _: &Node, report: &Report) {
        let has_failed = match report.outcome {
            Outcome::Success => false,
            Outcome::Failure | Outcome::Throttled(_) => true,
            Outcome::Ignored => return,
        };
        let Some(state) = self.state.upgrade() else { return };
        self.aversion.record(has_failed, state.now());
        if has_failed && let Ok(mut pool) = state.pool.try_lock() {
            pool.forget(self.id);
        }
    }

    /// What rides on a response is as good as a probe's answer.
    fn reported(&self, node: &Node, report: &LoadReport, now: Timestamp) {
        let (Some(load), Some(state)) = (report.server_load, self.state.upgrade()) else { return };
        state.advance(now);
        let place = self.place.load(Ordering::Acquire);
        // This request is on its way out, and not among those that were sent since.
        let own = node.in_flight();
        let mut rng = state.seeds.rng();
        let uses = state.uses(&mut rng);
        let (index, arrived) = (place as u32, state.now());
        let probe = Pooled { index, id: self.id, own, uses, arrived };
        insert(&state, self, place >> 32, probe, load, rng.unit() as f32);
    }

    fn is_reading_reports(&self) -> bool {
        true
    }
}

/// Which nodes are to be probed, for whoever sends probes.
///
/// [`Picker::probing`](crate::policy::Picker::probing) gives it. Call [`due`](Self::due) at first, when it
/// [wakes](Self::wake_with) you, after each answer, and at the time that it gave last. Each probe that it
/// begins is a [`Ticket`], to be [answered](Ticket::answered), [failed](Ticket::failed), or dropped.
///
/// The balancer of evenkeel-layers does that; a simulator does it like this:
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use evenkeel_core::{load::ServerLoad, node::Node, policy::{self, PickContext}, rng::Rng, time::Timestamp};
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
///     ticket.answered(ServerLoad::new(busy, Duration::from_millis(10)), now);
/// }
/// let mut cx = PickContext { now, ..PickContext::new(&mut rng) };
/// assert_eq!(picker.pick(&nodes, &mut cx), Some(2));
/// ```
pub struct Probing {
    pub(super) state: Arc<State>,
    /// Of each node, in the order of the nodes.
    pub(super) peers: Box<[Arc<Peer>]>,
    pub(super) generation: u64,
}

impl Probing {
    /// Begins the probes that are to be sent now, and gives the time by when to ask again.
    ///
    /// `nodes` are those that the picker was built for. As many probes are under way at most as
    /// [`probes_max`](super::Prequal::probes_max) says; what requests ask for beyond is forgotten.
    pub fn due(
        &self,
        nodes: &[Arc<Node>],
        rng: &mut Rng,
        now: Timestamp,
        begin: &mut dyn FnMut(Ticket),
    ) -> Timestamp {
        let (state, rules) = (&self.state, &self.state.rules);
        state.advance(now);
        state.pool.lock().expect("no panic under the lock").age_out(state.now(), rules.age_max);

        if !self.is_current() {
            // What is owed waits for the picker that comes into use.
            return state.now() + rules.idle_interval / 2;
        }
        let probed = Timestamp::from_nanos(state.probed.load(Ordering::Relaxed));
        let is_idle = rules.idle_interval <= state.now().since(probed);
        let owed = state.owed.swap(0, Ordering::SeqCst).max(is_idle.into());
        let room = rules.probes_max.saturating_sub(state.under_way.load(Ordering::SeqCst));
        let count = owed.min(room);
        if count != 0 && !nodes.is_empty() {
            state.probed.store(state.now().as_nanos(), Ordering::Relaxed);
            self.draw(nodes, rng, count as usize, begin);
        }
        // Whoever finds nobody to probe, or no room, asks again in a while, too.
        let probed = Timestamp::from_nanos(state.probed.load(Ordering::Relaxed));
        (probed + rules.idle_interval).max(state.now() + rules.idle_interval / 2)
    }

    /// Sets what is called when probes are to be sent: it must be short, and is called by a pick.
    ///
    /// Only the first one counts.
    pub fn wake_with(&self, wake: impl Fn() + Send + Sync + 'static) {
        self.state.wake.get_or_init(|| Box::new(wake));
    }

    /// So many probes are in the pool now.
    ///
    /// # Panics
    /// Never: nothing panics while the lock is held.
    #[must_use]
    pub fn pooled(&self) -> usize {
        self.state.pool.lock().expect("no panic under the lock").len()
    }

    /// Whether no picker for another set of nodes was built since.
    pub(super) fn is_current(&self) -> bool {
        self.state.generation.load(Ordering::Acquire) == self.generation
    }

    /// Begins `count` probes, of distinct nodes while there are so many.
    fn draw(
        &self,
        nodes: &[Arc<Node>],
        rng: &mut Rng,
        count: usize,
        begin: &mut dyn FnMut(Ticket),
    ) {
        // Those of one round, which cannot be many: 64 probes by default are under way.
        let mut drawn: Vec<usize> = Vec::with_capacity(count.min(nodes.len()));
        for _ in 0..count.min(nodes.len()) {
            let mut index = rng.below(nodes.len());
            while drawn.contains(&index) {
                index = (index + 1) % nodes.len();
            }
            drawn.push(index);
            // A node that is closed for good, or for its health, is not to be sent requests.
            if !nodes[index].is_usable() {
                continue;
            }
            self.state.under_way.fetch_add(1, Ordering::SeqCst);
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

    /// The node has answered.
    pub fn answered(self, load: ServerLoad, now: Timestamp) {
        self.state.advance(now);
        let probe = Pooled {
            index: self.index as u32,
            id: self.node.id(),
            own: self.node.in_flight(),
            uses: self.uses,
            arrived: self.state.now(),
        };
        insert(&self.state, &self.peer, self.generation, probe, load, self.luck);
    }

    /// There was no answer, or not in time: nothing is known of the node's load.
    pub fn failed(self, now: Timestamp) {
        self.state.advance(now);
        self.state.forget(self.node.id());
    }
}

/// Takes an answer into the pool, if the set is still the same and the node's failures allow it.
fn insert(state: &State, peer: &Peer, generation: u64, probe: Pooled, load: ServerLoad, luck: f32) {
    let hot_above = {
        let mut hotness = state.hotness.lock().expect("no panic under the lock");
        hotness.record(load.in_flight(), f64::from_bits(state.quantile.load(Ordering::Relaxed)))
    };

    let mut pool = state.pool.lock().expect("no panic under the lock");
    pool.set_hot_above(hot_above);
    if luck < peer.aversion.share(state.now()) {
        pool.forget(probe.id);
    } else if state.generation.load(Ordering::Acquire) as u32 == generation as u32 {
        pool.insert(probe, load);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.state.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("node", &self.node).finish_non_exhaustive()
    }
}

/// As many probes as a pool holds are asked for when nodes have come.
pub(super) fn ask_for_a_pool(state: &State, nodes: usize) {
    state.owe(nodes.min(POOL) as u32);
}
