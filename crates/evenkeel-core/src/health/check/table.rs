//! Which probe is due, decided under one lock.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    member::{Lane, Member, Turn},
    pace::Pace,
    rules::CheckRules,
    standing::Standing,
    ticket::{Next, Ticket},
};
use crate::{
    endpoint::Address,
    rng::Rng,
    time::{Timestamp, scaled},
};

/// Up to this many members there is no sweep.
const MIN_SWEEP: usize = 64;

/// All endpoints, and those that left recently.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) rng: Rng,
    /// Ordered by address, so that a run can be repeated.
    pub(super) members: BTreeMap<Address, Member>,
    /// When endpoints are due: those in doubt, and the settled ones.
    lanes: [BTreeSet<(Timestamp, Address)>; 2],
    /// When endpoints left.
    gone: BTreeSet<(Timestamp, Address)>,
    pace: Pace,
    /// The lane of the last probe.
    last: Lane,
    probes: u64,
    /// With this many members, a sweep looks for those that left before their next probe is due.
    sweep_from: usize,
    pub(super) is_idle: bool,
    pub(super) traffic_at: Option<Timestamp>,
}

impl Table {
    pub(super) fn new(rules: &CheckRules, rng: Rng) -> Self {
        Self {
            rng,
            members: BTreeMap::new(),
            lanes: Default::default(),
            gone: BTreeSet::new(),
            pace: Pace::new(rules.probes_per_second),
            last: Lane::Settled,
            probes: 0,
            sweep_from: MIN_SWEEP,
            is_idle: rules.interval_idle.is_some(),
            traffic_at: None,
        }
    }

    /// The member of this address. If it is new or was gone, it is made and due at once.
    pub(super) fn arrive(
        &mut self,
        address: &Address,
        now: Timestamp,
        rules: &CheckRules,
    ) -> &mut Member {
        self.forget(now, rules);
        if self.sweep_from < self.members.len() {
            self.sweep(now, rules);
        }
        let turn = self.members.get(address).map(|member| member.turn);
        if matches!(turn, None | Some(Turn::Gone(_))) {
            let new = || Member::new(rules, Turn::Gone(now));
            self.members.entry(address.clone()).or_insert_with(new);
            self.set_turn(address, Turn::Due(Lane::Settled, now));
        }
        self.members.get_mut(address).expect("it is there or was made")
    }

    pub(super) fn set_turn(&mut self, address: &Address, turn: Turn) {
        let Some(member) = self.members.get_mut(address) else { return };
        match std::mem::replace(&mut member.turn, turn) {
            Turn::Due(lane, at) => _ = self.lanes[lane as usize].remove(&(at, address.clone())),
            Turn::Gone(at) => _ = self.gone.remove(&(at, address.clone())),
            Turn::UnderWay(_) => {}
        }
        match turn {
            Turn::Due(lane, at) => _ = self.lanes[lane as usize].insert((at, address.clone())),
            Turn::Gone(at) => _ = self.gone.insert((at, address.clone())),
            Turn::UnderWay(_) => {}
        }
    }

    /// Plans the next probe of an endpoint, or lets it go if no balancer has it any longer.
    pub(super) fn plan(&mut self, address: &Address, now: Timestamp, rules: &CheckRules) {
        let Some(member) = self.members.get_mut(address) else { return };
        if member.live_node().is_none() {
            self.set_turn(address, Turn::Gone(now));
            self.forget(now, rules);
            return;
        }
        let is_doubtful = member.is_doubtful(rules);
        let wait = rules.wait(is_doubtful, member.standing == Standing::Down, self.is_idle);
        let shorter = f64::from(rules.jitter_percent) / 100.0 * self.rng.unit();
        let lane = if is_doubtful { Lane::Edge } else { Lane::Settled };
        self.set_turn(address, Turn::Due(lane, now + scaled(wait, 1.0 - shorter)));
    }

    pub(super) fn next(&mut self, now: Timestamp, rules: &CheckRules) -> Next {
        self.forget(now, rules);
        loop {
            let Some((lane, due)) = self.first(now) else { return Next::Nothing };
            if now < due {
                return Next::At(due);
            }
            if let Some(until) = self.pace.wait_until(now) {
                return Next::At(until);
            }
            let (_, address) = self.lanes[lane as usize].first().cloned().expect("just seen");
            let member = self.members.get_mut(&address).expect("due endpoints are members");
            match member.live_node() {
                None => {
                    self.set_turn(&address, Turn::Gone(now));
                    self.forget(now, rules);
                }
                Some(node) => {
                    self.pace.take(now);
                    self.last = lane;
                    self.probes += 1;
                    self.set_turn(&address, Turn::UnderWay(self.probes));
                    return Next::Probe(Ticket { number: self.probes, node });
                }
            }
        }
    }

    /// The endpoint to probe next: the earlier one of both lanes. If both are due, they take turns.
    fn first(&self, now: Timestamp) -> Option<(Lane, Timestamp)> {
        let of = |lane: Lane| self.lanes[lane as usize].first().map(|(due, _)| (lane, *due));
        match (of(Lane::Edge), of(Lane::Settled)) {
            (Some((_, edge)), Some((_, settled))) => {
                let is_edge = if edge.max(settled) <= now {
                    self.last == Lane::Settled
                } else {
                    edge <= settled
                };
                Some(if is_edge { (Lane::Edge, edge) } else { (Lane::Settled, settled) })
            }
            (edge, settled) => edge.or(settled),
        }
    }

    /// Requests have come again: probes that were planned for idle times become due sooner, but not
    /// all at once.
    pub(super) fn hasten(&mut self, now: Timestamp, rules: &CheckRules) {
        let latest = now + rules.interval;
        let lane = self.lanes[Lane::Settled as usize].iter().rev();
        let late: Vec<_> = lane.take_while(|(at, _)| latest < *at).cloned().collect();
        for (_, address) in late {
            let at = now + rules.interval.mul_f64(self.rng.unit());
            self.set_turn(&address, Turn::Due(Lane::Settled, at));
        }
    }

    /// Lets go of endpoints that no balancer has any longer, before their next probe is due.
    fn sweep(&mut self, now: Timestamp, rules: &CheckRules) {
        let mut left = Vec::new();
        for (address, member) in &mut self.members {
            if matches!(member.turn, Turn::Due(..)) && member.live_node().is_none() {
                left.push(address.clone());
            }
        }
        left.iter().for_each(|address| self.set_turn(address, Turn::Gone(now)));
        self.forget(now, rules);
        self.sweep_from = MIN_SWEEP.max(2 * self.members.len());
    }

    /// Forgets endpoints that left long ago, and if there are too many, those that left first.
    fn forget(&mut self, now: Timestamp, rules: &CheckRules) {
        while let Some((at, address)) = self.gone.first().cloned()
            && (rules.max_remembered < self.gone.len() || at + rules.remembered_for < now)
        {
            self.gone.remove(&(at, address.clone()));
            self.members.remove(&address);
        }
    }
}
