//! Outlier detection over the nodes of one client.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use evenkeel_core::{
    endpoint::Address,
    health::outlier::{self, Cause, Host, Outlier, OutlierRules, Trial},
    node::{Gate, Node},
    observe::{Admission, Observer, Pass, Report},
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
}

impl Monitor {
    fn follow(&self) {
        if let Some(node) = self.node.upgrade() {
            node.follow(Gate::Ejected, || self.host.access());
        }
    }
}

impl Observer for Monitor {
    fn ended(&self, node: &Node, report: &Report) {
        if let Some(cause) = self.watch.outlier.record(&self.host, report) {
            self.watch.eject(node.address(), cause);
        }
    }

    fn admit(&self, node: &Node) -> Admission {
        let now = self.watch.clock.now();
        match self.watch.outlier.admit(node.address(), &self.host, now) {
            outlier::Admission::Free => Admission::Free,
            outlier::Admission::Trial(trial) => {
                self.follow();
                self.watch.attention.store(true, Relaxed);
                let monitor = self.me.upgrade().expect("its node is alive");
                Admission::Trial(Box::new(TrialPass { monitor, trial: Some(trial) }))
            }
            outlier::Admission::Refused => {
                self.follow();
                Admission::Refused
            }
        }
    }

    fn closed(&self, _: &Node) {
        // An ejected endpoint may be needed now.
        self.watch.attention.store(true, Relaxed);
    }

    fn is_timing(&self) -> bool {
        self.watch.outlier.rules().latency.is_some()
    }
}

/// A permit for one request in the probation of a node.
struct TrialPass {
    monitor: Arc<Monitor>,
    trial: Option<Trial>,
}

impl Pass for TrialPass {
    fn ended(mut self: Box<Self>, report: &Report) {
        let Some(trial) = self.trial.take() else { return };
        let Some(node) = self.monitor.node.upgrade() else { return };
        let watch = &self.monitor.watch;
        watch.outlier.finish_trial(trial, node.address(), report.outcome, watch.clock.now());
        self.monitor.follow();
        watch.attention.store(true, Relaxed);
    }

    fn give_place(mut self: Box<Self>) -> Option<Box<dyn Pass>> {
        let Self { monitor, trial } = &mut *self;
        let node = monitor.node.upgrade()?;
        monitor.watch.outlier.give_place(trial.as_mut()?, node.address());
        monitor.follow();
        Some(self)
    }
}

impl Drop for TrialPass {
    fn drop(&mut self) {
        if let Some(trial) = self.trial.take()
            && let Some(node) = self.monitor.node.upgrade()
        {
            self.monitor.watch.outlier.cancel_trial(trial, node.address());
            self.monitor.follow();
        }
    }
}
