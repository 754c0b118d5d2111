//! What is known about one node.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use super::{
    aversion::Aversion,
    pool::Pooled,
    state::{State, Terms},
};
use crate::{
    load::{LoadReport, PeakEwma, ServerLoad},
    node::Node,
    observe::{Fault, Observer, Report},
    outcome::Outcome,
    sync::{AtomicU64, Ordering},
    time::Timestamp,
};

/// How long a wait without an answer is remembered, the same as for failures.
const MEMORY: Duration = Duration::from_secs(10);

/// What is known about one node: how many of its requests failed or were given up without an
/// answer.
pub(super) struct Peer {
    state: Weak<State>,
    id: u64,
    pub(super) aversion: Aversion,
    /// How long requests have waited without an answer since it last answered.
    unanswered: PeakEwma,
    /// Its index among the nodes, with their generation in the upper half.
    place: AtomicU64,
}

impl Peer {
    pub(super) fn new(state: &Arc<State>, node: &Node) -> Arc<Self> {
        let peer = Arc::new(Self {
            state: Arc::downgrade(state),
            id: node.id(),
            aversion: Aversion::default(),
            unanswered: PeakEwma::new(Some(MEMORY)),
            place: AtomicU64::new(0),
        });
        node.observe(peer.clone());
        peer
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// A probe's answer, corrected by what this client has seen. If requests were given up since
    /// the node last answered one, its latency is at least their wait, whatever it reports.
    pub(super) fn believed(&self, load: ServerLoad, now: Timestamp) -> ServerLoad {
        match self.waited_in_vain(now) {
            Duration::ZERO => load,
            waited => ServerLoad::new(load.in_flight().into(), load.latency().max(waited)),
        }
    }

    /// How long requests have waited without an answer since the node last answered, decaying with
    /// time.
    pub(super) fn waited_in_vain(&self, now: Timestamp) -> Duration {
        match self.unanswered.estimate() {
            None => Duration::ZERO,
            Some(_) => Duration::from_nanos(self.unanswered.cost(0, now) as u64),
        }
    }

    /// Records that its node has this index in the set of this generation.
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
        let has_answered = !has_failed || report.fault != Fault::Local;
        if has_answered && self.unanswered.estimate().is_some() {
            self.unanswered.forget();
        }
        // The common case: nothing has failed lately, so there is nothing to write.
        if !has_failed && self.aversion.is_none() {
            return;
        }
        let Some(state) = self.state.upgrade() else { return };
        self.aversion.record(has_failed, state.now());
        if has_failed && let Ok(mut pool) = state.pool.try_lock() {
            pool.forget(self.id);
        }
    }

    fn cut(&self, _: &Node, waited: Duration, now: Timestamp) {
        let Some(state) = self.state.upgrade() else { return };
        state.advance(now);
        self.unanswered.record_cut(waited, now);
        if let Ok(mut pool) = state.pool.try_lock() {
            pool.forget(self.id);
        }
    }

    /// Load reported with a response is as good as a probe's answer.
    fn reported(&self, node: &Node, report: &LoadReport, now: Timestamp) {
        let (Some(load), Some(state)) = (report.server_load, self.state.upgrade()) else { return };
        state.advance(now);
        let place = self.place.load(Ordering::Acquire);
        // This request is about to end, so it does not count among those sent since.
        let own = node.in_flight();
        let mut rng = state.rng();
        let uses = state.uses(&mut rng);
        let (index, arrived) = (place as u32, state.now());
        let probe = Pooled { index, id: self.id, own, uses, arrived };
        let terms = Terms {
            aversion: &self.aversion,
            generation: (place >> 32) as u32,
            luck: rng.unit() as f32,
            may_wait: false,
        };
        state.insert(probe, self.believed(load, now), &terms);
    }

    fn is_reading_reports(&self) -> bool {
        true
    }
}
