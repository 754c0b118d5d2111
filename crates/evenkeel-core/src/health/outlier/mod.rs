//! Outlier detection: for a while ejects nodes that do worse than they should or than the others.
//!
//! Consecutive failures eject at once. Success rates, failure percentages and latencies are
//! compared in a sweep. A node comes back when its time is over, at first with a few trial
//! requests. Each further ejection lasts longer, and each sweep in which the node is healthy makes
//! the next one shorter.
//!
//! It never makes things worse. No more nodes are ejected than the rules allow, in whole numbers.
//! Nodes on probation count too, but make room for the ejection of another. One node is always
//! left. While too few are open, for any reason, all ejected nodes come back. What is known of a
//! node is kept when it leaves and comes back.
//!
//! Counting takes no lock. A change to the set of ejected nodes takes one, and sets no gate under
//! it. The time is an argument: [`due`](Outlier::due) says when to call [`sweep`](Outlier::sweep).
//!
//! The rules and their defaults are Envoy's (`outlier_detection.proto`), or those of gRPC's A50
//! where [`OutlierRules`] says so. A success rate fails *below* its threshold, a failure percentage
//! *from* its threshold on. Unlike in gRPC, the allowed share is never exceeded.

use std::sync::Arc;

mod change;
mod compare;
mod fleet;
mod host;
mod rules;
mod trial;

pub use change::Change;
pub use host::{Cause, Host};
pub use rules::{FailurePercentage, OutlierRules, SlowerThanOthers, SuccessRate};
pub use trial::{OutlierAdmission, Trial};

use self::fleet::{Fleet, Followers, Member, State};
use crate::{
    endpoint::Address,
    node::{Access, Gate, Node},
    observe::Report,
    outcome::Outcome,
    rng::Rng,
    sync::{Mutex, MutexGuard},
    time::Timestamp,
};

/// Outlier detection over the nodes of one set. See the [module docs](self).
#[derive(Debug)]
pub struct Outlier {
    rules: OutlierRules,
    fleet: Mutex<Fleet>,
}

impl Outlier {
    /// Detection by `rules` that draws its jitter from `rng`.
    ///
    /// # Panics
    /// If a rule makes no sense: a limit of zero, an interval of zero, a share above 100 %.
    #[must_use]
    pub fn new(rules: OutlierRules, rng: Rng) -> Self {
        rules.check();
        Self { rules, fleet: Mutex::new(Fleet::new(rng)) }
    }

    /// The rules.
    #[must_use]
    pub fn rules(&self) -> &OutlierRules {
        &self.rules
    }

    /// Watches `node` from now on, with what is remembered of its address.
    ///
    /// A node that was ejected when it left is still ejected, until the next [`sweep`](Self::sweep)
    /// finds that the set has become too small for that.
    pub fn join(&self, node: &Arc<Node>, now: Timestamp) -> Arc<Host> {
        let mut fleet = self.lock();
        if !fleet.members.values().any(Member::is_live) {
            fleet.next_sweep = now + self.rules.interval;
        }
        fleet.make_room(self.rules.max_remembered);
        let member = fleet.members.entry(node.address().clone()).or_insert_with(Member::new);
        member.node = Arc::downgrade(node);
        member.restart_probation();
        let host = member.host.clone();
        drop(fleet);
        node.follow(Gate::Ejected, || host.access());
        host
    }

    /// Counts how an attempt at `host` ended. If its node should be [ejected](Self::eject), returns
    /// why.
    #[must_use]
    pub fn record(&self, host: &Host, report: &Report) -> Option<Cause> {
        host.record(report, &self.rules)
    }

    /// Ejects the node of this address, if the rules allow it.
    pub fn eject(&self, address: &Address, cause: Cause, now: Timestamp) -> Vec<Change> {
        let mut fleet = self.lock();
        let mut changes = Vec::new();
        let mut followers = Followers::new();
        fleet.eject(address, cause, now, &self.rules, &mut changes, &mut followers);
        drop(fleet);
        follow(followers);
        changes
    }

    /// When [`sweep`](Self::sweep) should be called; `None` while there are no nodes.
    #[must_use]
    pub fn due(&self) -> Option<Timestamp> {
        let fleet = self.lock();
        let live = || fleet.members.values().filter(|member| member.is_live());
        live().next()?;
        let returns = live().filter_map(Member::ejected_until);
        let trials = live().filter_map(Member::trial_until);
        returns.chain(trials).chain([fleet.next_sweep]).min()
    }

    /// Lets nodes come back if their time is over or they are needed, ejects nodes again if their
    /// trials took too long, and ejects outliers once in each interval. It may be called at any
    /// time, for example when a node was closed for another reason.
    pub fn sweep(&self, now: Timestamp) -> Vec<Change> {
        let mut fleet = self.lock();
        let mut changes = Vec::new();
        let mut followers = Followers::new();
        fleet.release(now, &self.rules, &mut changes, &mut followers);
        for address in fleet.without_answer(now) {
            let cause = Cause::Probation;
            fleet.eject(&address, cause, now, &self.rules, &mut changes, &mut followers);
        }
        if fleet.next_sweep <= now {
            fleet.next_sweep = now + self.rules.interval;
            for (address, cause) in fleet.outliers(&self.rules) {
                fleet.eject(&address, cause, now, &self.rules, &mut changes, &mut followers);
            }
            fleet.decay(now, self.rules.interval);
            fleet.forget(self.rules.max_remembered);
        }
        fleet.release_needed(now, &self.rules, &mut changes, &mut followers);
        drop(fleet);
        follow(followers);
        changes
    }

    /// A health check of this address has passed. If the rules say so, that ends its ejection or
    /// its probation.
    pub fn passed_check(&self, address: &Address, now: Timestamp) -> Vec<Change> {
        let mut changes = Vec::new();
        if !self.rules.check_ends_ejection {
            return changes;
        }
        let mut fleet = self.lock();
        let mut followers = Followers::new();
        if let Some(member) = fleet.members.get_mut(address) {
            let trials = match member.state {
                State::Healthy => None,
                State::Ejected { .. } => Some(self.rules.probation_calls),
                State::Probation { .. } => Some(0),
            };
            if let Some(trials) = trials {
                member.come_back(address, now, trials, &mut changes);
                followers.push(member.follower());
            }
        }
        drop(fleet);
        follow(followers);
        changes
    }

    /// The nodes that are ejected now, with the cause and until when.
    #[must_use]
    pub fn ejected(&self) -> Vec<(Address, Cause, Timestamp)> {
        let fleet = self.lock();
        let live = fleet.members.iter().filter(|(_, member)| member.is_live());
        live.filter_map(|(address, member)| match member.state {
            State::Ejected { until, cause } => Some((address.clone(), cause, until)),
            _ => None,
        })
        .collect()
    }

    /// Whether an attempt may go ahead at a node. If it is a trial, something may be
    /// [due](Self::due) sooner.
    pub fn admit(&self, address: &Address, host: &Host, now: Timestamp) -> OutlierAdmission {
        if host.access() == Access::Open {
            return OutlierAdmission::Free;
        }
        let mut fleet = self.lock();
        let Some(member) = fleet.members.get_mut(address) else { return OutlierAdmission::Free };
        let State::Probation { taken, succeeded, until } = &mut member.state else {
            let is_open = member.host.access() == Access::Open;
            return if is_open { OutlierAdmission::Free } else { OutlierAdmission::Refused };
        };
        if *taken == self.rules.probation_calls {
            return OutlierAdmission::Refused;
        }
        // Trials that are given up one after another would otherwise never run out of time. If none
        // was under way when the time ran out, there was a pause, which says nothing.
        let is_over = until.is_none_or(|until| until <= now);
        if is_over && *succeeded == *taken {
            *until = Some(now + self.rules.trial_timeout);
        }
        *taken += 1;
        if *taken == self.rules.probation_calls {
            member.host.set_access(Access::Closed);
        }
        OutlierAdmission::Trial(Trial { round: member.round, is_placed: true })
    }

    /// Ends a trial request. The first failure ejects the node again. When enough trials have
    /// succeeded, the node is back. Make the gate [follow](Node::follow) after this.
    #[allow(clippy::needless_pass_by_value)]
    pub fn finish_trial(
        &self,
        trial: Trial,
        address: &Address,
        outcome: Outcome,
        now: Timestamp,
    ) -> Vec<Change> {
        let mut fleet = self.lock();
        let mut changes = Vec::new();
        let mut followers = Followers::new();
        let Some(member) = fleet.on_trial(&trial, address) else { return changes };
        match outcome {
            Outcome::Success => {
                let (calls, timeout) = (self.rules.probation_calls, self.rules.trial_timeout);
                if member.succeed(&trial, calls, now + timeout) {
                    member.come_back(address, now, 0, &mut changes);
                    followers.push(member.follower());
                }
            }
            Outcome::Failure => {
                let cause = Cause::Probation;
                fleet.eject(address, cause, now, &self.rules, &mut changes, &mut followers);
            }
            _ => {
                if trial.is_placed {
                    member.give_back();
                }
                member.note_answer(now + self.rules.trial_timeout);
            }
        }
        drop(fleet);
        follow(followers);
        changes
    }

    /// Gives back the place of a cancelled trial request. Make the gate [follow](Node::follow)
    /// after this.
    #[allow(clippy::needless_pass_by_value)]
    pub fn cancel_trial(&self, trial: Trial, address: &Address) {
        if let Some(member) = self.lock().on_trial(&trial, address)
            && trial.is_placed
        {
            member.give_back();
        }
    }

    /// Lets another request take this one's place, because its answer may be late by design. When
    /// this request ends, it still ends the probation, or ejects. Make the gate
    /// [follow](Node::follow) after this.
    pub fn give_place(&self, trial: &mut Trial, address: &Address) {
        let mut fleet = self.lock();
        if std::mem::take(&mut trial.is_placed)
            && let Some(member) = fleet.on_trial(trial, address)
        {
            member.give_back();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Fleet> {
        self.fleet.lock().expect("no panic under the lock")
    }
}

fn follow(followers: Followers) {
    for (node, host) in followers {
        if let Some(node) = node.upgrade() {
            node.follow(Gate::Ejected, || host.access());
        }
    }
}

#[cfg(test)]
mod tests;
