//! Circuit breakers at the nodes of one client.

use std::sync::{Arc, Mutex, Weak};

use evenkeel_core::{
    health::{
        Judge,
        breaker::{self, Breaker, BreakerRules, Trial},
    },
    node::{Gate, Node},
    observe::{Admission, Observer, Report},
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
        let admission = self.breaker.admit(self.clock().now());
        if !matches!(admission, breaker::BreakerAdmission::Free) {
            node.follow(Gate::Breaker, || self.breaker.access());
        }
        if matches!(admission, breaker::BreakerAdmission::Trial(_)) {
            self.plan();
        }
        admission.for_attempt(&self.me)
    }

    fn is_timing(&self) -> bool {
        self.breaker.rules().slow_calls.is_some()
    }
}

impl Judge for Monitor {
    type Trial = Trial;

    fn finish_trial(&self, trial: Trial, report: &Report) {
        self.breaker.finish_trial(trial, report.outcome, report.latency, self.clock().now());
        self.follow_state();
    }

    fn give_place(&self, trial: &mut Trial) {
        self.breaker.give_place(trial);
        self.follow_state();
    }

    fn cancel_trial(&self, trial: Trial) {
        self.breaker.cancel_trial(trial);
        self.follow_state();
    }
}
