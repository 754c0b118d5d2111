//! Circuit breakers at the nodes of one client.

use std::sync::{Arc, Mutex, Weak};

use evenkeel_core::{
    health::breaker::{self, Breaker, BreakerRules, Trial},
    node::{Gate, Node},
    observe::{Admission, Observer, Pass, Report},
    rng::Rng,
};

use crate::time::Clock;

/// The breakers of one client.
pub(crate) struct Breakers {
    rules: BreakerRules,
    clock: Clock,
    monitors: Mutex<Vec<Arc<Monitor>>>,
    /// Breakers that opened since the last call of `take_due`, and when to try each.
    due: Mutex<Vec<(u64, u32)>>,
}

impl Breakers {
    pub(crate) fn new(rules: BreakerRules, clock: Clock) -> Arc<Self> {
        Arc::new(Self { rules, clock, monitors: Mutex::default(), due: Mutex::default() })
    }

    pub(crate) fn add(self: &Arc<Self>, node: &Arc<Node>, rng: &mut Rng) {
        let mut monitors = self.monitors.lock().expect("no panic under the lock");
        let index = monitors.len() as u32;
        let monitor = Arc::new_cyclic(|me| Monitor {
            me: me.clone(),
            node: Arc::downgrade(node),
            breaker: Breaker::new(self.rules.clone(), rng.fork()),
            breakers: Arc::downgrade(self),
            index,
        });
        node.observe(monitor.clone());
        monitors.push(monitor);
    }

    /// Takes the breakers that opened since the last call, and when to try each.
    pub(crate) fn take_due(&self) -> Vec<(u64, u32)> {
        std::mem::take(&mut *self.due.lock().expect("no panic under the lock"))
    }

    /// Tries an open breaker again, if its time is over.
    pub(crate) fn try_again(&self, index: u32) {
        let monitor =
            self.monitors.lock().expect("no panic under the lock")[index as usize].clone();
        if monitor.breaker.look_after(self.clock.now()) {
            monitor.follow_state();
        }
    }
}

/// The breaker of one node.
struct Monitor {
    me: Weak<Self>,
    node: Weak<Node>,
    breaker: Breaker,
    breakers: Weak<Breakers>,
    index: u32,
}

impl Monitor {
    fn follow_state(&self) {
        if let Some(node) = self.node.upgrade() {
            node.follow(Gate::Breaker, || self.breaker.access());
        }
        self.plan();
    }

    /// Schedules the trial of the breaker.
    fn plan(&self) {
        if let (Some(until), Some(breakers)) = (self.breaker.due(), self.breakers.upgrade()) {
            let mut due = breakers.due.lock().expect("no panic under the lock");
            due.push((until.as_nanos(), self.index));
        }
    }

    fn clock(&self) -> Clock {
        self.breakers.upgrade().expect("its client is there").clock.clone()
    }
}

impl Observer for Monitor {
    fn ended(&self, _: &Node, report: &Report) {
        let now = || self.clock().now();
        if self.breaker.record(report.outcome, report.latency, now) {
            self.follow_state();
        }
    }

    fn admit(&self, node: &Node) -> Admission {
        match self.breaker.admit(self.clock().now()) {
            breaker::Admission::Free => Admission::Free,
            breaker::Admission::Trial(trial) => {
                node.follow(Gate::Breaker, || self.breaker.access());
                self.plan();
                let monitor = self.me.upgrade().expect("its node is alive");
                Admission::Trial(Box::new(TrialPass { monitor, trial: Some(trial) }))
            }
            breaker::Admission::Refused(_) => {
                node.follow(Gate::Breaker, || self.breaker.access());
                Admission::Refused
            }
        }
    }

    fn is_timing(&self) -> bool {
        self.breaker.rules().slow_calls.is_some()
    }
}

/// A permit for one trial of a breaker.
struct TrialPass {
    monitor: Arc<Monitor>,
    trial: Option<Trial>,
}

impl Pass for TrialPass {
    fn ended(mut self: Box<Self>, report: &Report) {
        if let Some(trial) = self.trial.take() {
            let Monitor { breaker, .. } = &*self.monitor;
            let now = self.monitor.clock().now();
            breaker.finish_trial(trial, report.outcome, report.latency, now);
            self.monitor.follow_state();
        }
    }

    fn give_place(mut self: Box<Self>) -> Option<Box<dyn Pass>> {
        self.monitor.breaker.give_place(self.trial.as_mut()?);
        self.monitor.follow_state();
        Some(self)
    }
}

impl Drop for TrialPass {
    fn drop(&mut self) {
        if let Some(trial) = self.trial.take() {
            self.monitor.breaker.cancel_trial(trial);
            self.monitor.follow_state();
        }
    }
}
