//! Outlier detection against a plain model: what its documentation says, a list and no lock.

use super::*;

const INTERVAL: u64 = 10;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Standing {
    Healthy,
    Until(u64),
    Probation { taken: u32, succeeded: u32 },
}

#[derive(Clone, Debug)]
struct Member {
    standing: Standing,
    is_unhealthy: bool,
    errors: u32,
    local_errors: u32,
    calls: u32,
    failed: u32,
    multiplier: u64,
    healthy_since: Option<u64>,
}

struct Model {
    rules: OutlierRules,
    members: Vec<Member>,
    next_sweep: u64,
}

impl Model {
    fn new(size: usize, rules: OutlierRules) -> Self {
        let member = Member {
            standing: Standing::Healthy,
            is_unhealthy: false,
            errors: 0,
            local_errors: 0,
            calls: 0,
            failed: 0,
            multiplier: 0,
            healthy_since: None,
        };
        Self { rules, members: vec![member; size], next_sweep: INTERVAL }
    }

    fn ended(&mut self, index: usize, is_good: bool, fault: Fault, now: u64) {
        let member = &mut self.members[index];
        member.calls += 1;
        if is_good {
            (member.errors, member.local_errors) = (0, 0);
            return;
        }
        member.failed += 1;
        let is_over = if fault == Fault::Local {
            member.local_errors += 1;
            self.rules.consecutive_local_errors.is_some_and(|max| max <= member.local_errors)
        } else {
            (member.errors, member.local_errors) = (member.errors + 1, 0);
            self.rules.consecutive_errors.is_some_and(|max| max <= member.errors)
        };
        if is_over {
            self.eject(index, now);
        }
    }

    fn is_enough(&self, open: usize) -> bool {
        0 < open && self.rules.panic_percent as usize * self.members.len() <= open * 100
    }

    fn open(&self, besides: Option<usize>) -> usize {
        let is_open = |(index, member): &(usize, &Member)| {
            let is_counted = Some(*index) != besides && !member.is_unhealthy;
            is_counted && member.standing == Standing::Healthy
        };
        self.members.iter().enumerate().filter(is_open).count()
    }

    fn out(&self, besides: Option<usize>) -> Vec<usize> {
        let is_out = |index: &usize| {
            Some(*index) != besides && self.members[*index].standing != Standing::Healthy
        };
        (0..self.members.len()).filter(is_out).collect()
    }

    fn most(&self) -> usize {
        let nodes = self.members.len();
        let share = nodes * self.rules.max_ejected_percent as usize / 100;
        if share == 0 && self.rules.always_eject_one {
            1.min(nodes - 1)
        } else {
            share.min(nodes - 1)
        }
    }

    fn eject(&mut self, index: usize, now: u64) {
        (self.members[index].errors, self.members[index].local_errors) = (0, 0);
        if matches!(self.members[index].standing, Standing::Until(_)) {
            return;
        }
        self.make_way(index, now);
        let others = self.out(Some(index)).len();
        if others < self.most() && self.is_enough(self.open(Some(index))) {
            let (min, max) = (self.rules.min_ejection.as_secs(), self.rules.max_ejection.as_secs());
            let member = &mut self.members[index];
            if member.multiplier * min < max {
                member.multiplier += 1;
            }
            member.standing = Standing::Until(now + (member.multiplier * min).min(max));
        } else if self.members[index].standing != Standing::Healthy {
            self.come_back(index, 0, now);
        }
    }

    /// A node on probation leaves it early if it would keep a node that fails now from being
    /// ejected.
    fn make_way(&mut self, index: usize, now: u64) {
        if self.members[index].standing != Standing::Healthy {
            return;
        }
        let is_ejected =
            |other: &usize| matches!(self.members[*other].standing, Standing::Until(_));
        let (ejected, trying): (Vec<_>, Vec<_>) =
            self.out(Some(index)).into_iter().partition(is_ejected);
        if ejected.len() < self.most() {
            let room = self.most() - 1 - ejected.len();
            let way: Vec<_> = trying.into_iter().skip(room).collect();
            let open = way.iter().filter(|other| !self.members[**other].is_unhealthy).count();
            if self.is_enough(self.open(Some(index)) + open) {
                way.into_iter().for_each(|other| self.come_back(other, 0, now));
            }
        }
    }

    fn come_back(&mut self, index: usize, trials: u32, now: u64) {
        let member = &mut self.members[index];
        (member.errors, member.local_errors, member.calls, member.failed) = (0, 0, 0, 0);
        member.standing = if trials == 0 {
            member.healthy_since = Some(now);
            Standing::Healthy
        } else {
            Standing::Probation { taken: 0, succeeded: 0 }
        };
    }

    fn sweep(&mut self, now: u64) {
        for index in 0..self.members.len() {
            if matches!(self.members[index].standing, Standing::Until(until) if until <= now) {
                self.come_back(index, self.rules.probation_calls, now);
            }
        }
        if self.next_sweep <= now {
            self.next_sweep = now + INTERVAL;
            for index in self.outliers() {
                self.eject(index, now);
            }
            for member in &mut self.members {
                let is_long = member.healthy_since.is_none_or(|since| INTERVAL <= now - since);
                if member.standing == Standing::Healthy && is_long {
                    member.multiplier = member.multiplier.saturating_sub(1);
                }
            }
        }
        if !self.is_enough(self.open(None)) {
            self.out(None).into_iter().for_each(|index| self.come_back(index, 0, now));
        }
        while self.most() < self.out(None).len() {
            let first = |index: &usize| match self.members[*index].standing {
                Standing::Until(until) => (Some(until), *index),
                _ => (None, *index),
            };
            let first = self.out(None).into_iter().min_by_key(first).expect("too many are out");
            self.come_back(first, 0, now);
        }
    }

    /// The nodes with too large a share of failed calls, the worst first.
    fn outliers(&mut self) -> Vec<usize> {
        let rule = self.rules.failure_percentage.expect("the tests have it");
        let mut known: Vec<_> = (0..self.members.len())
            .filter(|index| rule.min_calls <= self.members[*index].calls)
            .map(|index| {
                let Member { calls, failed, .. } = self.members[index];
                (index, f64::from(failed) * 100.0 / f64::from(calls))
            })
            .collect();
        if known.len() < rule.min_nodes {
            known.clear();
        }
        for member in &mut self.members {
            (member.calls, member.failed) = (0, 0);
        }
        known.retain(|(_, share)| f64::from(rule.percent) <= *share);
        known.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        known.into_iter().map(|(index, _)| index).collect()
    }

    fn agrees_with(&self, set: &Set) -> bool {
        let ejected = set.outlier.ejected();
        self.members.iter().enumerate().all(|(index, member)| {
            let until = ejected.iter().find(|(known, ..)| *known == address(index));
            let access = set.hosts[index].access();
            let is_full = |taken| taken == self.rules.probation_calls;
            match member.standing {
                Standing::Healthy => until.is_none() && access == Access::Open,
                Standing::Until(at_least) => {
                    until.is_some_and(|(.., until)| *until == at(at_least))
                        && access == Access::Closed
                }
                Standing::Probation { taken, .. } => {
                    let expected = if is_full(taken) { Access::Closed } else { Access::Guarded };
                    until.is_none() && access == expected
                }
            }
        })
    }
}

/// A trial that was let in on probation ends with an outcome.
fn try_one(set: &Set, model: &mut Model, index: usize, end: usize, now: u64) {
    let q = model.rules.probation_calls;
    let Standing::Probation { taken, succeeded } = model.members[index].standing else {
        panic!("only a node on probation lets trials in")
    };
    let OutlierAdmission::Trial(trial) =
        set.outlier.admit(&address(index), &set.hosts[index], at(now))
    else {
        panic!("there is room for one")
    };
    let (outcome, standing) = match end {
        0 => (Outcome::Failure, None),
        1 => (Outcome::Ignored, Some(Standing::Probation { taken, succeeded })),
        _ => {
            let more = Standing::Probation { taken: taken + 1, succeeded: succeeded + 1 };
            (Outcome::Success, Some(more))
        }
    };
    set.outlier.finish_trial(trial, &address(index), outcome, at(now));
    set.nodes[index].follow(Gate::Ejected, || set.hosts[index].access());
    match standing {
        None => model.eject(index, now),
        Some(Standing::Probation { succeeded, .. }) if succeeded == q => {
            model.come_back(index, 0, now);
        }
        Some(standing) => model.members[index].standing = standing,
    }
}

#[test]
fn it_does_what_a_plain_model_does() {
    for seed in 0..200 {
        let mut rng = Rng::with_seed(seed);
        let rules = OutlierRules {
            consecutive_errors: Some(2),
            consecutive_local_errors: Some(3),
            success_rate: None,
            failure_percentage: Some(FailurePercentage { percent: 60, min_nodes: 2, min_calls: 4 }),
            max_ejection: Duration::from_secs(100),
            max_ejected_percent: [0, 10, 40, 60, 100][rng.below(5)],
            always_eject_one: rng.below(2) == 0,
            panic_percent: [0, 30, 50][rng.below(3)],
            probation_calls: rng.below(3) as u32,
            ..rules()
        };
        let size = 2 + rng.below(8);
        let (set, mut model) = (Set::of(size, rules.clone()), Model::new(size, rules));
        let mut now = 0;
        for step in 0..1_500 {
            now += rng.below_u64(3);
            let index = rng.below(size);
            match (rng.below(16), model.members[index].standing) {
                (0, _) => {
                    let is_unhealthy = !model.members[index].is_unhealthy;
                    model.members[index].is_unhealthy = is_unhealthy;
                    let node = &set.nodes[index];
                    _ = if is_unhealthy {
                        node.close(Gate::Unhealthy)
                    } else {
                        node.open(Gate::Unhealthy)
                    };
                }
                (1, standing) => {
                    set.outlier.passed_check(&address(index), at(now));
                    match standing {
                        Standing::Healthy => {}
                        Standing::Until(_) => {
                            model.come_back(index, model.rules.probation_calls, now);
                        }
                        Standing::Probation { .. } => model.come_back(index, 0, now),
                    }
                }
                (2..6, _) => {
                    set.outlier.sweep(at(now));
                    model.sweep(now);
                }
                (end, Standing::Probation { taken, .. }) => {
                    if taken < model.rules.probation_calls {
                        try_one(&set, &mut model, index, end % 5, now);
                    }
                }
                (_, Standing::Until(_)) => {}
                (end, Standing::Healthy) => {
                    let fault = [Fault::Server, Fault::Local][rng.below(2)];
                    // Some nodes fail more often than others.
                    let is_good = index % 4 < end % 6;
                    let outcome = if is_good { Outcome::Success } else { Outcome::Failure };
                    set.end(index, &Report::new(outcome, Duration::ZERO).fault(fault), at(now));
                    model.ended(index, is_good, fault, now);
                }
            }
            assert!(model.agrees_with(&set), "seed {seed}, step {step}: {:?}", model.members);
        }
    }
}
