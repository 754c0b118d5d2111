//! Active health checks: when each endpoint is probed, and what follows from the results.
//!
//! An endpoint is probed at an interval. After a result that contradicts what was known, it is
//! probed again soon, until enough results in a row confirm the contradiction
//! ([`fall`](CheckRules::fall), [`rise`](CheckRules::rise)) or one takes it back. So an endpoint
//! that dies is closed within
//!
//! > interval + timeout + (fall − 1) · (interval on the edge + timeout)
//!
//! of its death, and within one interval if it [denies](ProbeResult::Denied) being healthy. The very
//! first result decides alone, and so does the first one that passes. What an endpoint
//! [reports](Checks::report) by itself counts at once.
//!
//! Probes of all endpoints together begin at a [pace](CheckRules::probes_per_second): a set of
//! 10,000 is never probed in one burst, neither at its start nor later. Probes do not wait for each
//! other: any number is under way at the same time, at most one for each endpoint.
//!
//! Endpoints are known by their addresses. Several balancers may have a node for the same address,
//! and all of these follow the results. Results are kept when an endpoint leaves, so that they hold
//! when it comes back, for a time and for a number of endpoints
//! ([`remembered_for`](CheckRules::remembered_for),
//! [`max_remembered`](CheckRules::max_remembered)).
//!
//! The time is an argument: [`next`](Checks::next) says which node to probe, or when to ask again.
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//! use evenkeel::core::{
//!     health::check::{CheckRules, Checks, Next, ProbeResult},
//!     node::{Gate, Node}, rng::Rng, time::Timestamp,
//! };
//!
//! let checks = Checks::new(CheckRules::default(), Rng::with_seed(1));
//! let node = Arc::new(Node::new("10.0.0.1:80".parse().unwrap()));
//! let now = Timestamp::from_nanos(0);
//! checks.join(&node, now);
//!
//! let Next::Probe(ticket) = checks.next(now) else { panic!("it was never probed") };
//! assert_eq!(ticket.node().address(), node.address());
//! checks.finish(ticket, ProbeResult::Failed, now + Duration::from_secs(1));
//!
//! assert!(node.is_closed_by(Gate::Unhealthy), "the first result decides alone");
//! ```

use std::sync::Arc;

mod member;
mod pace;
mod probe;
mod rules;
mod standing;
mod table;
mod ticket;

pub use probe::{News, NotServing, Probe};
pub use rules::CheckRules;
pub use standing::{ProbeResult, Standing};
pub use ticket::{Next, Ticket};

use self::{
    member::{Lane, Member, Turn},
    table::Table,
};
use crate::{
    endpoint::Address,
    node::Node,
    rng::Rng,
    sync::{AtomicU8, Mutex, MutexGuard, Ordering},
    time::Timestamp,
};

/// The effect of a result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Effect {
    /// What is known of the endpoint now, if the result has opened or closed its gate.
    pub change: Option<Standing>,
    /// Whether enough probes have passed to end an ejection of the endpoint.
    pub ends_ejection: bool,
}

/// Active health checks over the endpoints of one set. See the [module docs](self).
#[derive(Debug)]
pub struct Checks {
    rules: CheckRules,
    table: Mutex<Table>,
    /// Whether requests have ended since the last look.
    traffic: AtomicU8,
}

/// No request has ended for a long time.
const IDLE: u8 = 0;
/// No request has ended since the last look.
const QUIET: u8 = 1;
/// Some requests have ended since the last look.
const BUSY: u8 = 2;

impl Checks {
    /// Checks by `rules` that draw their jitter from `rng`.
    ///
    /// # Panics
    /// If a rule makes no sense: an interval, threshold or timeout of zero, a jitter above 100 %,
    /// or a pace outside 1 to 1,000,000.
    #[must_use]
    pub fn new(rules: CheckRules, rng: Rng) -> Self {
        rules.check();
        let table = Mutex::new(Table::new(&rules, rng));
        Self { rules, table, traffic: AtomicU8::new(IDLE) }
    }

    /// The rules.
    #[must_use]
    pub fn rules(&self) -> &CheckRules {
        &self.rules
    }

    /// Checks `node` from now on, with what is remembered of its address.
    pub fn join(&self, node: &Arc<Node>, now: Timestamp) {
        let mut table = self.lock();
        let member = table.arrive(node.address(), now, &self.rules);
        member.add(node);
        let door = member.door.clone();
        drop(table);
        door.lead(node);
    }

    /// Says what to do now.
    pub fn next(&self, now: Timestamp) -> Next {
        let mut table = self.lock();
        self.look_at_traffic(&mut table, now);
        table.next(now, &self.rules)
    }

    /// Ends a probe.
    pub fn finish(&self, ticket: Ticket, verdict: ProbeResult, now: Timestamp) -> Effect {
        let Ticket { number, node } = ticket;
        let mut table = self.lock();
        let Some(member) = table.members.get_mut(node.address()) else { return Effect::default() };
        if member.turn != Turn::UnderWay(number) {
            // The endpoint has reported something meanwhile, which is newer.
            return Effect::default();
        }
        let is_changed = member.take_result(verdict, &self.rules);
        let ends_ejection = member.ends_ejection(verdict, &self.rules);
        let change = is_changed.then_some(member.standing);
        table.plan(node.address(), now, &self.rules);
        follow(table, node.address());
        Effect { change, ends_ejection }
    }

    /// Ends a probe that could not be made here. It says nothing of the endpoint, which is probed
    /// again.
    pub fn abandon(&self, ticket: Ticket, now: Timestamp) {
        let Ticket { number, node } = ticket;
        let mut table = self.lock();
        let member = table.members.get(node.address());
        if member.is_some_and(|member| member.turn == Turn::UnderWay(number)) {
            table.plan(node.address(), now, &self.rules);
        }
    }

    /// The endpoint of this address reports that it is healthy, or that it is not. That counts at
    /// once.
    pub fn report(&self, address: &Address, is_healthy: bool, now: Timestamp) -> Effect {
        let verdict = if is_healthy { ProbeResult::Passed } else { ProbeResult::Denied };
        let mut table = self.lock();
        let Some(member) = table.members.get_mut(address) else { return Effect::default() };
        if matches!(member.turn, Turn::Gone(_)) {
            return Effect::default();
        }
        let change = member.settle(verdict).then_some(member.standing);
        table.plan(address, now, &self.rules);
        follow(table, address);
        Effect { change, ends_ejection: false }
    }

    /// There is a sign against the endpoint of this address: it is probed as soon as there is room.
    pub fn suspect(&self, address: &Address, now: Timestamp) {
        let mut table = self.lock();
        if table.members.get(address).is_some_and(|member| matches!(member.turn, Turn::Due(..))) {
            table.set_turn(address, Turn::Due(Lane::Edge, now));
        }
    }

    /// Probes that are under way will not end: their endpoints are due again.
    pub fn restart(&self, now: Timestamp) {
        let mut table = self.lock();
        let is_under_way = |member: &Member| matches!(member.turn, Turn::UnderWay(_));
        let lost = table.members.iter().filter(|(_, member)| is_under_way(member));
        let lost: Vec<_> = lost.map(|(address, _)| address.clone()).collect();
        for address in lost {
            table.set_turn(&address, Turn::Due(Lane::Settled, now));
        }
    }

    /// A request has ended. Returns whether [`next`](Self::next) has to be called again because of
    /// that.
    ///
    /// It costs one atomic load if nothing has changed. Only
    /// [`interval_idle`](CheckRules::interval_idle) needs this call.
    #[inline]
    pub fn record_request(&self) -> bool {
        self.traffic.load(Ordering::Relaxed) != BUSY
            && self.traffic.swap(BUSY, Ordering::AcqRel) == IDLE
    }

    /// What is known of each endpoint, including those that left recently.
    #[must_use]
    pub fn list(&self) -> Vec<(Address, Standing)> {
        let table = self.lock();
        table.members.iter().map(|(address, member)| (address.clone(), member.standing)).collect()
    }

    /// What is known of the endpoint of this address.
    #[must_use]
    pub fn standing(&self, address: &Address) -> Standing {
        self.lock().members.get(address).map_or(Standing::Unknown, |member| member.standing)
    }

    /// The nodes that balancers have for this address.
    #[must_use]
    pub fn nodes(&self, address: &Address) -> Vec<Arc<Node>> {
        let table = self.lock();
        let nodes = table.members.get(address).map(|member| member.nodes.iter());
        nodes.into_iter().flatten().filter_map(std::sync::Weak::upgrade).collect()
    }

    fn look_at_traffic(&self, table: &mut Table, now: Timestamp) {
        let Some(idle_after) = self.rules.interval_idle else { return };
        if table.is_idle && self.traffic.load(Ordering::Acquire) == IDLE {
            return;
        }
        if self.traffic.swap(QUIET, Ordering::AcqRel) == BUSY {
            table.traffic_at = Some(now);
            if std::mem::take(&mut table.is_idle) {
                table.hasten(now, &self.rules);
            }
        }
        let is_idle = table.traffic_at.is_none_or(|at| idle_after <= now.since(at));
        if is_idle {
            let still = Ordering::AcqRel;
            let swapped = self.traffic.compare_exchange(QUIET, IDLE, still, Ordering::Relaxed);
            table.is_idle = swapped.is_ok();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("no panic under the lock")
    }
}

/// Makes the gates of the endpoint's nodes follow, once the lock is released.
fn follow(table: MutexGuard<'_, Table>, address: &Address) {
    let Some(member) = table.members.get(address) else { return };
    let (nodes, door) = (member.nodes.clone(), member.door.clone());
    drop(table);
    for node in nodes.iter().filter_map(std::sync::Weak::upgrade) {
        door.lead(&node);
    }
}

#[cfg(test)]
mod tests;
