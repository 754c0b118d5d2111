//! Which nodes are ejected, decided under one lock.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

use super::{
    change::Change,
    compare,
    host::{Cause, Host},
    rules::OutlierRules,
    trial::Trial,
};
use crate::{
    endpoint::Address,
    node::{Access, Gate, Node},
    rng::Rng,
    time::Timestamp,
};

/// All nodes of a set, and those that left recently.
#[derive(Debug)]
pub(super) struct Fleet {
    pub(super) rng: Rng,
    /// Ordered by address, so that a run can be repeated.
    pub(super) members: BTreeMap<Address, Member>,
    pub(super) next_sweep: Timestamp,
    /// How many addresses have to be known before a new node makes room.
    room_at: usize,
}

/// The nodes with gates that have to follow, once the lock is released.
pub(super) type Followers = Vec<(Weak<Node>, Arc<Host>)>;

/// The least value of `room_at`.
const MIN_ROOM: usize = 64;

/// What is known of one address.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) host: Arc<Host>,
    pub(super) node: Weak<Node>,
    pub(super) state: State,
    /// Counts probations and ejections, so that trials of earlier ones can be recognised.
    pub(super) round: u64,
    /// How many times the least ejection time the last ejection lasted.
    multiplier: u32,
    healthy_since: Timestamp,
}

#[derive(Debug)]
pub(super) enum State {
    Healthy,
    Ejected {
        until: Timestamp,
        cause: Cause,
    },
    /// At `until`, trials that began since the last answer have taken too long, if there are any.
    Probation {
        taken: u32,
        succeeded: u32,
        until: Option<Timestamp>,
    },
}

/// A probation that begins, with no trial under way.
const PROBATION: State = State::Probation { taken: 0, succeeded: 0, until: None };

impl Fleet {
    pub(super) fn new(rng: Rng) -> Self {
        let next_sweep = Timestamp::default();
        Self { rng, members: BTreeMap::new(), next_sweep, room_at: MIN_ROOM }
    }

    pub(super) fn eject(
        &mut self,
        address: &Address,
        cause: Cause,
        now: Timestamp,
        rules: &OutlierRules,
        changes: &mut Vec<Change>,
        followers: &mut Followers,
    ) {
        let in_the_way = self.in_the_way(address, rules);
        let is_allowed = self.may_eject(address, &in_the_way, rules);
        if is_allowed {
            self.make_way(in_the_way, now, changes, followers);
        }
        let jitter = rules.ejection_jitter.mul_f64(self.rng.unit());
        let Some(member) = self.members.get_mut(address) else { return };
        // The counts restart either way: a node that may not be ejected now is judged again later.
        member.host.clear_rows();
        if member.ejected_until().is_some() {
            return;
        }
        if !is_allowed {
            if !matches!(member.state, State::Healthy) {
                member.come_back(address, now, 0, changes);
                followers.push(member.follower());
            }
            return;
        }
        if member.ejection_time(rules) < rules.max_ejection || member.multiplier == 0 {
            member.multiplier += 1;
        }
        let until = now + member.ejection_time(rules) + jitter;
        member.state = State::Ejected { until, cause };
        member.round += 1;
        member.host.set_access(Access::Closed);
        followers.push(member.follower());
        changes.push(Change::Ejected(address.clone(), cause, until));
    }

    /// The nodes on probation that prevent the ejection of this one, which fails now.
    fn in_the_way(&self, address: &Address, rules: &OutlierRules) -> Vec<Address> {
        let is_healthy = |member: &Member| matches!(member.state, State::Healthy);
        let nodes = self.members.values().filter(|member| member.is_live()).count();
        let room = rules.max_ejected(nodes).checked_sub(1);
        let (Some(room), true) = (room, self.members.get(address).is_some_and(is_healthy)) else {
            return Vec::new();
        };
        let others = || self.members.iter().filter(|(other, m)| *other != address && m.is_live());
        let is_ejected = |member: &Member| member.ejected_until().is_some();
        let ejected = others().filter(|(_, member)| is_ejected(member)).count();
        if room < ejected {
            return Vec::new();
        }
        let on_probation = others().filter(|(_, member)| member.is_out() && !is_ejected(member));
        on_probation.skip(room - ejected).map(|(other, _)| other.clone()).collect()
    }

    /// Lets the nodes come back that are in the way.
    fn make_way(
        &mut self,
        in_the_way: Vec<Address>,
        now: Timestamp,
        changes: &mut Vec<Change>,
        followers: &mut Followers,
    ) {
        for other in in_the_way {
            if let Some(member) = self.members.get_mut(&other) {
                member.come_back(&other, now, 0, changes);
                followers.push(member.follower());
            }
        }
    }

    /// Whether this node may be ejected in addition to those that are, with enough left, after
    /// those in the way have come back.
    fn may_eject(&self, address: &Address, in_the_way: &[Address], rules: &OutlierRules) -> bool {
        let (mut nodes, mut ejected, mut open) = (0, 1, 0);
        for (other, member) in &self.members {
            let Some(node) = member.live_node() else { continue };
            nodes += 1;
            if other == address {
                continue;
            }
            let is_out = member.is_out() && !in_the_way.contains(other);
            ejected += usize::from(is_out);
            open += usize::from(!is_out && is_open_otherwise(&node));
        }
        ejected <= rules.max_ejected(nodes) && is_enough(open, nodes, rules)
    }

    /// Lets nodes come back if their time is over.
    pub(super) fn release(
        &mut self,
        now: Timestamp,
        rules: &OutlierRules,
        changes: &mut Vec<Change>,
        followers: &mut Followers,
    ) {
        for (address, member) in &mut self.members {
            if member.ejected_until().is_some_and(|until| until <= now) {
                member.come_back(address, now, rules.probation_calls, changes);
                followers.push(member.follower());
            }
        }
    }

    /// The nodes with trials that have taken too long.
    pub(super) fn without_answer(&self, now: Timestamp) -> Vec<Address> {
        let is_late = |member: &Member| member.trial_until().is_some_and(|until| until <= now);
        let late = self.members.iter().filter(|(_, member)| member.is_live() && is_late(member));
        late.map(|(address, _)| address.clone()).collect()
    }

    /// Lets nodes come back that are too many for the set as it is now, those with the earliest end
    /// first. If too few nodes are open, all of them come back.
    pub(super) fn release_needed(
        &mut self,
        now: Timestamp,
        rules: &OutlierRules,
        changes: &mut Vec<Change>,
        followers: &mut Followers,
    ) {
        let live = || self.members.iter().filter_map(|(a, m)| Some((a, m, m.live_node()?)));
        let nodes = live().count();
        let is_open = |m: &Member, node: &Node| !m.is_out() && is_open_otherwise(node);
        let open = live().filter(|(_, m, node)| is_open(m, node)).count();
        let mut out: Vec<_> = live()
            .filter(|(_, member, _)| member.is_out())
            .map(|(address, member, _)| (member.ejected_until(), address.clone()))
            .collect();
        if is_enough(open, nodes, rules) {
            out.sort();
            out.truncate(out.len().saturating_sub(rules.max_ejected(nodes)));
        }
        for (_, address) in out {
            if let Some(member) = self.members.get_mut(&address) {
                member.come_back(&address, now, 0, changes);
                followers.push(member.follower());
            }
        }
    }

    /// The outliers of the past interval.
    pub(super) fn outliers(&self, rules: &OutlierRules) -> Vec<(Address, Cause)> {
        let intervals: Vec<_> = self
            .members
            .iter()
            .map(|(address, member)| (address, member.host.take_interval()))
            .collect();
        let outliers = compare::outliers(&intervals, rules);
        outliers.into_iter().map(|(address, cause)| (address.clone(), cause)).collect()
    }

    /// Makes the next ejection shorter for each node that was healthy for an interval.
    pub(super) fn decay(&mut self, now: Timestamp, interval: Duration) {
        for member in self.members.values_mut() {
            if matches!(member.state, State::Healthy) && interval <= now.since(member.healthy_since)
            {
                member.multiplier = member.multiplier.saturating_sub(1);
            }
        }
    }

    /// Forgets nodes that have left and would come back as new, and if too many are left, the
    /// longest gone.
    pub(super) fn forget(&mut self, max_remembered: usize) {
        self.members.retain(|_, member| {
            member.is_live() || 0 < member.multiplier || !matches!(member.state, State::Healthy)
        });
        let gone = |member: &Member| !member.is_live();
        let mut left: Vec<_> = self
            .members
            .iter()
            .filter(|(_, member)| gone(member))
            .map(|(address, member)| {
                (member.ejected_until(), member.healthy_since, address.clone())
            })
            .collect();
        if max_remembered < left.len() {
            left.sort();
            left.truncate(left.len() - max_remembered);
            for (_, _, address) in left {
                self.members.remove(&address);
            }
        }
    }

    /// Forgets when twice as many are known as were kept the last time. Looking at all of them for
    /// each node that joins would take seconds in a set of ten thousand.
    pub(super) fn make_room(&mut self, max_remembered: usize) {
        if self.room_at <= self.members.len() {
            self.forget(max_remembered);
            self.room_at = (2 * self.members.len()).max(MIN_ROOM);
        }
    }

    pub(super) fn on_trial(&mut self, trial: &Trial, address: &Address) -> Option<&mut Member> {
        let member = self.members.get_mut(address)?;
        let is_on_trial = matches!(member.state, State::Probation { .. });
        (is_on_trial && member.round == trial.round).then_some(member)
    }
}

impl Member {
    pub(super) fn new() -> Self {
        Self {
            host: Arc::default(),
            node: Weak::new(),
            state: State::Healthy,
            round: 0,
            multiplier: 0,
            healthy_since: Timestamp::default(),
        }
    }

    fn live_node(&self) -> Option<Arc<Node>> {
        self.node.upgrade().filter(|node| !node.is_closed_by(Gate::Retired))
    }

    pub(super) fn is_live(&self) -> bool {
        self.live_node().is_some()
    }

    /// Whether it is ejected or on probation.
    fn is_out(&self) -> bool {
        !matches!(self.state, State::Healthy)
    }

    pub(super) fn ejected_until(&self) -> Option<Timestamp> {
        match self.state {
            State::Ejected { until, .. } => Some(until),
            _ => None,
        }
    }

    /// When the trials under way have taken too long, if there are any.
    pub(super) fn trial_until(&self) -> Option<Timestamp> {
        match self.state {
            State::Probation { taken, succeeded, until } if succeeded < taken => until,
            _ => None,
        }
    }

    /// Lets it come back, with `probation_calls` trial requests.
    pub(super) fn come_back(
        &mut self,
        address: &Address,
        now: Timestamp,
        probation_calls: u32,
        changes: &mut Vec<Change>,
    ) {
        self.round += 1;
        self.host.clear_rows();
        self.host.take_interval();
        if 0 < probation_calls {
            self.state = PROBATION;
            self.host.set_access(Access::Guarded);
            changes.push(Change::OnProbation(address.clone()));
        } else {
            self.state = State::Healthy;
            self.healthy_since = now;
            self.host.set_access(Access::Open);
            changes.push(Change::Returned(address.clone()));
        }
    }

    /// Ends the trials of a node that has left.
    pub(super) fn restart_probation(&mut self) {
        if let State::Probation { .. } = self.state {
            self.round += 1;
            self.state = PROBATION;
            self.host.set_access(Access::Guarded);
        }
    }

    /// Counts a successful trial. Returns whether it was the last one needed.
    pub(super) fn succeed(&mut self, trial: &Trial, calls: u32, until: Timestamp) -> bool {
        let State::Probation { taken, succeeded, .. } = &mut self.state else { return false };
        if !trial.is_placed {
            if *taken == calls {
                return false;
            }
            *taken += 1;
        }
        *succeeded += 1;
        let is_last = *succeeded == calls;
        self.note_answer(until);
        is_last
    }

    /// Notes an answer: other trials under way have until `then`.
    pub(super) fn note_answer(&mut self, then: Timestamp) {
        if let State::Probation { taken, succeeded, until } = &mut self.state {
            *until = (succeeded < taken).then_some(then);
        }
    }

    /// A trial said nothing: another may take its place.
    pub(super) fn give_back(&mut self) {
        if let State::Probation { taken, .. } = &mut self.state {
            *taken -= 1;
            self.host.set_access(Access::Guarded);
        }
    }

    pub(super) fn follower(&self) -> (Weak<Node>, Arc<Host>) {
        (self.node.clone(), self.host.clone())
    }

    fn ejection_time(&self, rules: &OutlierRules) -> Duration {
        rules.min_ejection.saturating_mul(self.multiplier).min(rules.max_ejection)
    }
}

/// Whether nothing closes it except an ejection.
fn is_open_otherwise(node: &Node) -> bool {
    // A node that is full for the moment is not out of service either.
    node.closed_by().all(|gate| matches!(gate, Gate::Ejected | Gate::Limit))
}

/// Whether `open` open nodes are enough: at least one.
fn is_enough(open: usize, nodes: usize, rules: &OutlierRules) -> bool {
    0 < open && rules.panic_percent as usize * nodes <= open * 100
}
