//! What the pickers of one balancer share, one after another.

use std::sync::OnceLock;

use super::{
    aversion::Aversion,
    hotness::Hotness,
    pool::{Pool, Pooled},
    rules::{POOL, Rules},
};
use crate::{
    load::ServerLoad,
    rng::{Rng, Seeds},
    sync::{AtomicU32, AtomicU64, Mutex, MutexGuard, Ordering},
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
    pub(super) owed: AtomicU32,
    pub(super) under_way: AtomicU32,
    /// When a probe was sent last, and the latest time that was told.
    pub(super) probed: AtomicU64,
    now: AtomicU64,
    pub(super) wake: OnceLock<Box<dyn Fn() + Send + Sync>>,
    /// Requests that a probe may decide on average, as `f64` bits.
    reuse: AtomicU64,
    /// What parts cold from hot, as `f64` bits.
    quantile: AtomicU64,
    /// For what rides on responses, where there is no randomness to be had. Drawn by the first pick, so that
    /// clients do not draw the same.
    seeds: OnceLock<Seeds>,
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
            seeds: OnceLock::new(),
        }
    }

    /// Takes a seed from `rng`, unless there is one.
    #[inline]
    pub(super) fn seed(&self, rng: &mut Rng) {
        if self.seeds.get().is_none() {
            self.seeds.get_or_init(|| Seeds::new(rng.below_u64(u64::MAX)));
        }
    }

    /// A generator for what rides on a response.
    pub(super) fn rng(&self) -> Rng {
        // Before the first pick there is no response of a request.
        let unpicked = || Rng::with_seed(self.now().as_nanos());
        self.seeds.get().map_or_else(unpicked, Seeds::rng)
    }

    /// A request asks for its probes: as many as the rate says, exactly in the long run.
    #[inline]
    pub(super) fn ask(&self) {
        const UNIT: f64 = (1_u64 << 32) as f64;
        // Read first: without anybody who sends them they stay owed, and cost one load a request.
        if self.rules.probes_max <= self.owed.load(Ordering::Relaxed) {
            return;
        }
        let step = (self.rules.probe_rate * UNIT) as u64;
        let before = self.asked.fetch_add(step, Ordering::Relaxed);
        let probes = ((before.wrapping_add(step) >> 32) as u32).wrapping_sub((before >> 32) as u32);
        if probes != 0 {
            self.owe(probes);
        }
    }

    /// Wakes whoever sends probes, unless an answer will soon do so.
    fn owe(&self, probes: u32) {
        let before = self.owed.fetch_add(probes, Ordering::AcqRel);
        // Changed by nothing, and not just read: if the last answer comes later than this, whoever had it
        // and then looks for what is owed sees these.
        let is_silent = before == 0 && self.under_way.fetch_add(0, Ordering::AcqRel) == 0;
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
    pub(super) fn uses(&self, rng: &mut Rng) -> u32 {
        (f64::from_bits(self.reuse.load(Ordering::Relaxed)) + rng.unit()) as u32
    }

    /// The latest time that anybody told; never back.
    #[inline]
    pub(super) fn advance(&self, now: Timestamp) {
        if self.now.load(Ordering::Relaxed) < now.as_nanos() {
            self.now.fetch_max(now.as_nanos(), Ordering::Relaxed);
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.now.load(Ordering::Relaxed))
    }

    /// As many probes as a pool holds are asked for when nodes have come.
    pub(super) fn ask_for_a_pool(&self, nodes: usize) {
        self.owe(nodes.min(POOL) as u32);
    }

    /// Removes the probes that are too old.
    pub(super) fn age_out(&self) {
        self.pool().age_out(self.now(), self.rules.age_max);
    }

    /// The pool, for those who may wait a moment for it.
    pub(super) fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().expect("no panic under the lock")
    }

    /// Takes an answer into the pool, if the set is still the same and the node's failures allow it.
    ///
    /// On the way of a request, where nobody `may_wait`, it is passed over if the pool is taken.
    pub(super) fn insert(&self, probe: Pooled, load: ServerLoad, terms: &Terms<'_>) {
        let quantile = f64::from_bits(self.quantile.load(Ordering::Relaxed));
        let Some(mut hotness) = terms.lock(&self.hotness) else { return };
        let hot_above = hotness.record(load.in_flight(), quantile);
        drop(hotness);

        let Some(mut pool) = terms.lock(&self.pool) else { return };
        pool.set_hot_above(hot_above);
        if terms.luck < terms.aversion.share(self.now()) {
            pool.forget(probe.id);
        } else if self.generation.load(Ordering::Acquire) as u32 == terms.generation {
            pool.insert(probe, load);
        }
    }
}

/// On which terms an answer is taken in.
pub(super) struct Terms<'a> {
    pub(super) aversion: &'a Aversion,
    /// Of the nodes among which the probe has its index, modulo 2³².
    pub(super) generation: u32,
    /// Below the share of failures it does not count.
    pub(super) luck: f32,
    pub(super) may_wait: bool,
}

impl Terms<'_> {
    fn lock<'a, T>(&self, mutex: &'a Mutex<T>) -> Option<MutexGuard<'a, T>> {
        if self.may_wait {
            Some(mutex.lock().expect("no panic under the lock"))
        } else {
            mutex.try_lock().ok()
        }
    }
}
