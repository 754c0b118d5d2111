//! What is known of one node.

use std::sync::{Arc, Weak};

use super::{
    aversion::Aversion,
    pool::Pooled,
    state::{State, Terms},
};
use crate::{
    load::LoadReport,
    node::Node,
    observe::{Observer, Report},
    outcome::Outcome,
    sync::{AtomicU64, Ordering},
    time::Timestamp,
};

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
        // Most attempts: nothing has failed lately, and nothing is to be written.
        if !has_failed && self.aversion.is_none() {
            return;
        }
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
        let terms = Terms {
            aversion: &self.aversion,
            generation: (place >> 32) as u32,
            luck: rng.unit() as f32,
            may_wait: false,
        };
        state.insert(probe, load, &terms);
    }

    fn is_reading_reports(&self) -> bool {
        true
    }
}
