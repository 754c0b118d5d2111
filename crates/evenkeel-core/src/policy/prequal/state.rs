//! The state that successive pickers of one balancer share.

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

/// How many owed probes wake the sender again although some are under way, since requests come
/// faster than probes.
const WAKE_EVERY: u32 = 16;

/// The state that successive pickers of one balancer share.
pub(super) struct State {
    pub(super) rules: Rules,
    pub(super) pool: Mutex<Pool>,
    hotness: Mutex<Hotness>,
    /// The set of nodes to which the indices in the pool refer.
    pub(super) generation: AtomicU64,
    /// Probes requested so far, in units of 2⁻³².
    asked: AtomicU64,
    /// Probes that are to be sent.
    pub(super) owed: AtomicU32,
    pub(super) under_way: AtomicU32,
    /// When the last probe was sent, and the latest time known.
    pub(super) probed: AtomicU64,
    now: AtomicU64,
    pub(super) wake: OnceLock<Box<dyn Fn() + Send + Sync>>,
    /// How many requests a probe may decide on average, as `f64` bits.
    reuse: AtomicU64,
    /// The quantile that separates cold from hot, as `f64` bits.
    quantile: AtomicU64,
    /// For load reported with responses, where no randomness is at hand. Drawn by the first pick,
    /// so that clients do not draw the same.
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

    /// Takes a seed from `rng`, unless it has one.
    #[inline]
    pub(super) fn seed(&self, rng: &mut Rng) {
        if self.seeds.get().is_none() {
            self.seeds.get_or_init(|| Seeds::new(rng.below_u64(u64::MAX)));
        }
    }

    /// A generator for load reported with a response.
    pub(super) fn rng(&self) -> Rng {
        // Before the first pick there is no response to a request.
        let unpicked = || Rng::with_seed(self.now().as_nanos());
        self.seeds.get().map_or_else(unpicked, Seeds::rng)
    }

    /// Asks for the probes of one request: as many as the rate says, exactly in the long run.
    #[inline]
    pub(super) fn ask(&self) {
        const UNIT: f64 = (1_u64 << 32) as f64;
        // Read first: if no sender takes the owed probes, a request costs no more than this load.
        if self.rules.max_probes <= self.owed.load(Ordering::Relaxed) {
            return;
        }
        let step = (self.rules.probe_rate * UNIT) as u64;
        let before = self.asked.fetch_add(step, Ordering::Relaxed);
        let probes = ((before.wrapping_add(step) >> 32) as u32).wrapping_sub((before >> 32) as u32);
        if probes != 0 {
            self.owe(probes);
        }
    }

    /// Wakes the sender of probes, unless an answer will soon do so.
    fn owe(&self, probes: u32) {
        let before = self.owed.fetch_add(probes, Ordering::AcqRel);
        // This adds zero rather than just reads: if the last answer comes later, its receiver,
        // which then looks for owed probes, sees these.
        let is_silent = before == 0 && self.under_way.fetch_add(0, Ordering::AcqRel) == 0;
        if (is_silent || before / WAKE_EVERY != (before + probes) / WAKE_EVERY)
            && let Some(wake) = self.wake.get()
        {
            wake();
        }
    }

    /// Sets what depends on the number of nodes.
    pub(super) fn set_nodes(&self, nodes: usize) {
        self.reuse.store(self.rules.reuse(nodes).to_bits(), Ordering::Relaxed);
        self.quantile.store(self.rules.quantile_of(nodes).to_bits(), Ordering::Relaxed);
    }

    /// How many requests one probe may decide, rounded at random.
    pub(super) fn uses(&self, rng: &mut Rng) -> u32 {
        (f64::from_bits(self.reuse.load(Ordering::Relaxed)) + rng.unit()) as u32
    }

    /// Advances the time to the latest that was passed in. It never goes back.
    #[inline]
    pub(super) fn advance(&self, now: Timestamp) {
        if self.now.load(Ordering::Relaxed) < now.as_nanos() {
            self.now.fetch_max(now.as_nanos(), Ordering::Relaxed);
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.now.load(Ordering::Relaxed))
    }

    /// When nodes have joined, asks for as many probes as a pool holds.
    pub(super) fn ask_for_a_pool(&self, nodes: usize) {
        self.owe(nodes.min(POOL) as u32);
    }

    /// Removes the probes that are too old.
    pub(super) fn age_out(&self) {
        self.pool().age_out(self.now(), self.rules.max_age);
    }

    /// The pool, for callers that may wait a moment for it.
    pub(super) fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().expect("no panic under the lock")
    }

    /// Adds an answer to the pool, if the set is still the same and the node's failures allow it.
    ///
    /// On the path of a request, where it must not wait (`may_wait`), the answer is dropped if the
    /// pool is locked.
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

/// The terms on which an answer is accepted.
pub(super) struct Terms<'a> {
    pub(super) aversion: &'a Aversion,
    /// Generation of the nodes among which the probe has its index, modulo 2³².
    pub(super) generation: u32,
    /// If this is below the share of failures, the answer does not count.
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
