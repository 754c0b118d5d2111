//! Outlier detection over the nodes of one client.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use evenkeel_core::{
    endpoint::Address,
    health::{
        Judge,
        outlier::{self, Cause, Host, Outlier, OutlierRules, Trial},
    },
    node::{Gate, Node},
    observe::{Admission, Observer, Report},
    rng::Rng,
};

use crate::time::Clock;

/// Watches the nodes of one client.
pub(crate) struct Watch {
    outlier: Outlier,
    clock: Clock,
    /// Whether something changed, so that a sweep may be due.
    attention: AtomicBool,
}

impl Watch {
    pub(crate) fn new(rules: OutlierRules, rng: Rng, clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            outlier: Outlier::new(rules, rng),
            clock,
            attention: AtomicBool::new(false),
        })
    }

    pub(crate) fn add(self: &Arc<Self>, node: &Arc<Node>) {
        let host = self.outlier.join(node, self.clock.now());
        node.observe(Arc::new_cyclic(|me| Monitor {
            me: me.clone(),
            node: Arc::downgrade(node),
            watch: self.clone(),
            host,
            address: node.address().clone(),
        }));
        self.attention.store(true, Relaxed);
    }

    /// Whether [`sweep`](Self::sweep) should be called earlier than it said.
    pub(crate) fn wants_attention(&self) -> bool {
        self.attention.load(Relaxed) && self.attention.swap(false, Relaxed)
    }

    /// Sweeps the nodes, and returns when to sweep again.
    pub(crate) fn sweep(&self) -> Option<u64> {
        self.outlier.sweep(self.clock.now());
        self.outlier.due().map(evenkeel_core::time::Timestamp::as_nanos)
    }

    fn eject(&self, address: &Address, cause: Cause) {
        if !self.outlier.eject(address, cause, self.clock.now()).is_empty() {
            self.attention.store(true, Relaxed);
        }
    }
}

/// Watches one node.
struct Monitor {
    me: Weak<Self>,
    node: Weak<Node>,
    watch: Arc<Watch>,
    host: Arc<Host>,
    address: Address,
}

impl Monitor {
    fn follow(&self) {
        if let Some(node) = self.node.upgrade() {
            node.follow(Gate::Ejected, || self.host.access());
        }
    }
}

impl Observer for Monitor {
    fn ended(&self, _: &Node, report: &Report) {
        if let Some(cause) = self.watch.outlier.record(&self.host, report) {
            self.watch.eject(&self.address, cause);
        }
    }

    fn admit(&self, _: &Node) -> Admission {
        let admission = self.watch.outlier.admit(&self.address, &self.host, self.watch.clock.now());
        if !matches!(admission, outlier::OutlierAdmission::Free) {
            self.follow();
        }
        if matches!(admission, outlier::OutlierAdmission::Trial(_)) {
            self.watch.attention.store(true, Relaxed);
        }
        admission.for_attempt(&self.me)
    }

    fn closed(&self, _: &Node) {
        // An ejected endpoint may be needed now.
        self.watch.attention.store(true, Relaxed);
    }

    fn is_timing(&self) -> bool {
        self.watch.outlier.rules().latency.is_some()
    }
}

impl Judge for Monitor {
    type Trial = Trial;

    fn finish_trial(&self, trial: Trial, report: &Report) {
        let Self { watch, address, .. } = self;
        watch.outlier.finish_trial(trial, address, report.outcome, watch.clock.now());
        self.follow();
        watch.attention.store(true, Relaxed);
    }

    fn give_place(&self, trial: &mut Trial) {
        self.watch.outlier.give_place(trial, &self.address);
        self.follow();
    }

    fn cancel_trial(&self, trial: Trial) {
        self.watch.outlier.cancel_trial(trial, &self.address);
        self.follow();
    }
}
