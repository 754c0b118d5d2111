//! Outlier detection against its promises, at its boundaries, and under random faults.

use std::time::Duration;

mod model;

use super::*;
use crate::{endpoint::Endpoint, observe::Fault};

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_nanos((1 << 62) + seconds * 1_000_000_000)
}

fn rules() -> OutlierRules {
    OutlierRules { ejection_jitter: Duration::ZERO, ..OutlierRules::default() }
}

fn address(index: usize) -> Address {
    Address::Name { host: format!("h{index:02}").into(), port: 80 }
}

/// Nodes that are watched, as by a layer.
struct Set {
    outlier: Outlier,
    nodes: Vec<Arc<Node>>,
    hosts: Vec<Arc<Host>>,
}

impl Set {
    fn of(size: usize, rules: OutlierRules) -> Self {
        let outlier = Outlier::new(rules, Rng::with_seed(3));
        let mut set = Self { outlier, nodes: Vec::new(), hosts: Vec::new() };
        (0..size).for_each(|index| set.join(index, at(0)));
        set
    }

    fn join(&mut self, index: usize, now: Timestamp) {
        self.join_as(index, address(index), now);
    }

    fn join_as(&mut self, index: usize, address: Address, now: Timestamp) {
        let node = Arc::new(Node::new(Endpoint::new(address)));
        self.hosts.insert(index, self.outlier.join(&node, now));
        self.nodes.insert(index, node);
    }

    fn leave(&mut self, index: usize) {
        self.nodes.remove(index).close(Gate::Retired);
        self.hosts.remove(index);
    }

    fn end(&self, index: usize, report: &Report, now: Timestamp) -> Vec<Change> {
        match self.outlier.record(&self.hosts[index], report) {
            Some(cause) => self.outlier.eject(self.nodes[index].address(), cause, now),
            None => Vec::new(),
        }
    }

    fn fail(&self, index: usize, times: usize, fault: Fault, now: Timestamp) {
        let report = Report::new(Outcome::Failure, Duration::ZERO).fault(fault);
        (0..times).for_each(|_| _ = self.end(index, &report, now));
    }

    fn succeed(&self, index: usize, times: usize) {
        let report = Report::new(Outcome::Success, Duration::ZERO);
        (0..times).for_each(|_| _ = self.end(index, &report, at(0)));
    }

    fn ejected(&self) -> Vec<usize> {
        let is_ejected = |index: &usize| self.nodes[*index].is_closed_by(Gate::Ejected);
        (0..self.nodes.len()).filter(is_ejected).collect()
    }
}

#[test]
fn each_kind_of_error_is_counted_apart_and_the_last_one_in_a_row_ejects_at_once() {
    let rules = OutlierRules { consecutive_gateway_errors: Some(3), ..rules() };
    let set = Set::of(20, rules);
    set.fail(0, 4, Fault::Server, at(0));
    set.fail(0, 4, Fault::Local, at(0));
    assert_eq!(set.ejected(), []);
    set.fail(0, 1, Fault::Server, at(0));
    assert_eq!(set.ejected(), [0], "a missing answer does not interrupt a row of errors");

    set.fail(1, 2, Fault::Gateway, at(0));
    set.succeed(1, 1);
    set.fail(1, 2, Fault::Gateway, at(0));
    assert_eq!(set.ejected(), [0]);
    set.fail(1, 1, Fault::Gateway, at(0));
    assert_eq!(set.ejected(), [0, 1]);
    let causes: Vec<_> = set.outlier.ejected().into_iter().map(|(_, cause, _)| cause).collect();
    assert_eq!(causes, [Cause::ConsecutiveErrors, Cause::ConsecutiveGatewayErrors]);
}

#[test]
fn missing_answers_in_a_row_eject_and_any_answer_starts_the_row_over() {
    let set = Set::of(5, rules());
    set.fail(0, 4, Fault::Local, at(0));
    set.fail(0, 1, Fault::Server, at(0));
    set.fail(0, 4, Fault::Local, at(0));
    assert_eq!(set.ejected(), []);
    set.fail(0, 1, Fault::Local, at(0));
    assert_eq!(set.ejected(), [0]);
}

#[test]
fn throttled_and_ignored_attempts_eject_no_node() {
    let set = Set::of(5, rules());
    for outcome in [Outcome::Throttled(None), Outcome::Ignored] {
        for _ in 0..1_000 {
            set.end(0, &Report::new(outcome, Duration::ZERO), at(0));
        }
    }
    set.outlier.sweep(at(10));
    assert_eq!(set.ejected(), []);
}

#[test]
fn the_allowed_share_of_ejections_is_rounded_down_to_whole_nodes() {
    for (nodes, percent, always_one, allowed) in [
        (1, 100, true, 0),
        (2, 10, true, 1),
        (2, 10, false, 0),
        (2, 50, false, 1),
        (2, 49, false, 0),
        (2, 100, true, 1),
        (3, 10, true, 1),
        (3, 33, false, 0),
        (3, 34, false, 1),
        (3, 66, false, 1),
        (3, 67, false, 2),
        (3, 100, true, 2),
        (5, 10, false, 0),
        (5, 19, false, 0),
        (5, 20, false, 1),
        (5, 30, true, 1),
        (5, 40, true, 2),
        (5, 100, true, 4),
        (10, 10, false, 1),
        (20, 10, false, 2),
    ] {
        let rules = OutlierRules {
            max_ejected_percent: percent,
            always_eject_one: always_one,
            panic_percent: 0,
            ..rules()
        };
        let set = Set::of(nodes, rules);
        for index in 0..nodes {
            set.fail(index, 20, Fault::Server, at(0));
        }
        assert_eq!(set.ejected().len(), allowed, "{nodes} nodes, {percent} %, {always_one}");
        assert!(set.nodes.iter().any(|node| node.is_open()));
    }
}

#[test]
fn a_node_that_is_closed_for_another_reason_does_not_count_as_available() {
    let rules = OutlierRules { max_ejected_percent: 100, panic_percent: 0, ..rules() };
    let set = Set::of(2, rules);
    set.nodes[1].close(Gate::Unhealthy);
    set.fail(0, 100, Fault::Server, at(0));
    assert_eq!(set.ejected(), []);

    set.nodes[1].open(Gate::Unhealthy);
    set.fail(0, 5, Fault::Server, at(0));
    assert_eq!(set.ejected(), [0]);
    set.nodes[1].close(Gate::Unhealthy);
    set.outlier.sweep(at(1));
    assert_eq!(set.ejected(), [], "it is needed");
}

#[test]
fn while_too_few_nodes_are_open_none_is_ejected_and_all_come_back() {
    let set = Set::of(10, OutlierRules { max_ejected_percent: 100, ..rules() });
    for index in 0..10 {
        set.fail(index, 5, Fault::Server, at(0));
    }
    assert_eq!(set.ejected().len(), 5, "half of them stay");

    set.nodes[9].close(Gate::Unhealthy);
    set.outlier.sweep(at(0));
    assert_eq!(set.ejected(), []);
}

#[test]
fn ejections_grow_up_to_the_maximum_and_shrink_after_healthy_intervals() {
    let set = Set::of(5, OutlierRules { probation_calls: 0, ..rules() });
    let mut now = 0;
    for seconds in [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300] {
        set.fail(0, 5, Fault::Server, at(now));
        assert_eq!(set.outlier.ejected()[0].2, at(now + seconds));
        set.outlier.sweep(at(now + seconds - 1));
        assert_eq!(set.ejected(), [0]);
        now += seconds;
        set.outlier.sweep(at(now));
        assert_eq!(set.ejected(), []);
    }
    for _ in 0..9 {
        now += 10;
        set.outlier.sweep(at(now));
    }
    set.fail(0, 5, Fault::Server, at(now));
    let (_, _, until) = set.outlier.ejected()[0];
    assert_eq!(until, at(now + 60), "ten ejections, nine healthy intervals, one more");
}

#[test]
fn jitter_is_added_up_to_its_limit() {
    let set = Set::of(
        40,
        OutlierRules {
            ejection_jitter: Duration::from_secs(6),
            max_ejected_percent: 50,
            ..rules()
        },
    );
    for index in 0..20 {
        set.fail(index, 5, Fault::Server, at(0));
    }
    let times: Vec<_> =
        set.outlier.ejected().into_iter().map(|(.., until)| until.since(at(0))).collect();
    assert_eq!(times.len(), 20);
    let (least, most) = (times.iter().min().unwrap(), times.iter().max().unwrap());
    assert!(Duration::from_secs(30) <= *least && *most <= Duration::from_secs(36));
    assert!(Duration::from_secs(3) < *most - *least);
}

#[test]
fn a_node_that_comes_back_is_on_probation_until_its_trials_succeed() {
    let set = Set::of(5, OutlierRules { probation_calls: 2, ..rules() });
    set.fail(0, 5, Fault::Server, at(0));
    assert_eq!(set.outlier.sweep(at(30)), [Change::OnProbation(address(0))]);
    let admit = || set.outlier.admit(&address(0), &set.hosts[0], at(30));
    let (OutlierAdmission::Trial(first), OutlierAdmission::Trial(second)) = (admit(), admit())
    else {
        panic!("two may try")
    };
    assert!(matches!(admit(), OutlierAdmission::Refused));
    set.outlier.cancel_trial(first, &address(0));
    let OutlierAdmission::Trial(third) = admit() else { panic!("its place is free") };
    let finish = |trial, outcome| set.outlier.finish_trial(trial, &address(0), outcome, at(31));
    assert_eq!(finish(second, Outcome::Success), []);
    assert_eq!(finish(third, Outcome::Success), [Change::Returned(address(0))]);
    assert!(matches!(admit(), OutlierAdmission::Free));
}

#[test]
fn a_trial_that_fails_ejects_for_longer() {
    let set = Set::of(5, rules());
    set.fail(0, 5, Fault::Server, at(0));
    set.outlier.sweep(at(30));
    let OutlierAdmission::Trial(trial) = set.outlier.admit(&address(0), &set.hosts[0], at(30))
    else {
        panic!("one may try")
    };

    let changes = set.outlier.finish_trial(trial, &address(0), Outcome::Failure, at(31));

    assert_eq!(changes, [Change::Ejected(address(0), Cause::Probation, at(91))]);
}

#[test]
fn a_trial_without_an_answer_ejects_again_when_its_time_is_over() {
    let set = Set::of(5, rules());
    set.fail(0, 5, Fault::Server, at(0));
    set.outlier.sweep(at(30));
    assert_eq!(set.outlier.due(), Some(at(40)), "the next sweep");
    let admit = |now| set.outlier.admit(&address(0), &set.hosts[0], at(now));
    let OutlierAdmission::Trial(trial) = admit(33) else { panic!("one may try") };

    assert_eq!(set.outlier.sweep(at(40)), []);
    assert_eq!(set.outlier.due(), Some(at(43)), "the trial has ten seconds");
    assert_eq!(set.outlier.sweep(at(42)), []);
    let changes = set.outlier.sweep(at(43));
    assert_eq!(changes, [Change::Ejected(address(0), Cause::Probation, at(103))]);

    let late = set.outlier.finish_trial(trial, &address(0), Outcome::Success, at(44));
    assert_eq!((late, set.ejected()), (vec![], vec![0]), "too late");
    set.outlier.sweep(at(103));
    let OutlierAdmission::Trial(given_back) = admit(103) else { panic!("one may try") };
    set.outlier.cancel_trial(given_back, &address(0));
    assert_eq!(set.outlier.sweep(at(200)), [], "nothing is under way");
}

#[test]
fn trials_that_hang_one_after_another_eject_again_when_the_time_of_the_first_is_over() {
    let set = Set::of(5, rules());
    set.fail(0, 5, Fault::Server, at(0));
    set.outlier.sweep(at(30));
    let admit = |now| match set.outlier.admit(&address(0), &set.hosts[0], at(now)) {
        OutlierAdmission::Trial(trial) => trial,
        other => panic!("no trial but {other:?}"),
    };
    for begins in [31, 35] {
        set.outlier.cancel_trial(admit(begins), &address(0));
    }
    let _held = admit(39);
    assert_eq!(set.outlier.sweep(at(40)), []);

    let changes = set.outlier.sweep(at(41));

    assert_eq!(changes, [Change::Ejected(address(0), Cause::Probation, at(101))]);
}

#[test]
fn an_answer_or_a_pause_gives_later_trials_their_full_time() {
    let set = Set::of(5, OutlierRules { probation_calls: 2, ..rules() });
    set.fail(0, 5, Fault::Server, at(0));
    set.outlier.sweep(at(30));
    let admit = |now| match set.outlier.admit(&address(0), &set.hosts[0], at(now)) {
        OutlierAdmission::Trial(trial) => trial,
        other => panic!("no trial but {other:?}"),
    };
    let (answered, held) = (admit(31), admit(33));
    set.outlier.finish_trial(answered, &address(0), Outcome::Ignored, at(38));
    assert_eq!(set.outlier.sweep(at(47)), []);
    set.outlier.cancel_trial(held, &address(0));

    let _after_a_pause = admit(100);

    assert_eq!(set.outlier.sweep(at(109)), []);
    assert_eq!(set.outlier.sweep(at(110)).len(), 1);
}

#[test]
fn an_untimed_trial_takes_no_place_and_its_outcome_still_counts() {
    for (outcome, ends) in [
        (Outcome::Success, Change::Returned(address(0))),
        (Outcome::Failure, Change::Ejected(address(0), Cause::Probation, at(160))),
    ] {
        let set = Set::of(5, rules());
        set.fail(0, 5, Fault::Server, at(0));
        set.outlier.sweep(at(30));
        let admit = || set.outlier.admit(&address(0), &set.hosts[0], at(30));
        let OutlierAdmission::Trial(mut poll) = admit() else { panic!("one may try") };
        set.outlier.give_place(&mut poll, &address(0));
        assert_eq!(set.hosts[0].access(), Access::Guarded);
        assert_eq!(set.outlier.sweep(at(90)), [], "it may take long");

        let changes = set.outlier.finish_trial(poll, &address(0), outcome, at(100));

        assert_eq!(changes, [ends]);
    }
}

#[test]
fn a_node_stays_on_probation_if_its_return_would_not_permit_the_other_ejection() {
    // Without the failing node, three of five are open if one is unhealthy, and two if two are.
    for (unhealthy, is_ejected) in [(1, true), (2, false)] {
        let set = Set::of(5, OutlierRules { panic_percent: 60, ..rules() });
        set.fail(0, 5, Fault::Server, at(0));
        set.outlier.sweep(at(30));
        let _held = set.outlier.admit(&address(0), &set.hosts[0], at(30));
        set.nodes[2..2 + unhealthy].iter().for_each(|node| _ = node.close(Gate::Unhealthy));

        set.fail(1, 5, Fault::Server, at(31));

        assert_eq!(set.ejected() == [1], is_ejected);
        let is_back = set.hosts[0].access() == Access::Open;
        assert_eq!(is_back, is_ejected, "with {unhealthy} unhealthy");
    }
}

#[test]
fn a_passing_check_ends_a_probation_whose_trial_is_under_way() {
    let set = Set::of(5, rules());
    set.fail(0, 5, Fault::Server, at(0));
    set.outlier.sweep(at(30));
    let _held = set.outlier.admit(&address(0), &set.hosts[0], at(30));

    let changes = set.outlier.passed_check(&address(0), at(31));

    assert_eq!(changes, [Change::Returned(address(0))]);
    assert!(matches!(
        set.outlier.admit(&address(0), &set.hosts[0], at(31)),
        OutlierAdmission::Free
    ));
    assert_eq!(set.outlier.passed_check(&address(0), at(32)), []);
}

#[test]
fn a_node_on_probation_gives_way_to_the_ejection_of_one_that_fails_now() {
    let set = Set::of(5, rules());
    set.fail(0, 5, Fault::Server, at(0));
    set.outlier.sweep(at(30));
    let _held = set.outlier.admit(&address(0), &set.hosts[0], at(30));

    set.fail(1, 5, Fault::Server, at(31));

    assert_eq!(set.ejected(), [1]);
    assert!(matches!(
        set.outlier.admit(&address(0), &set.hosts[0], at(31)),
        OutlierAdmission::Free
    ));
    set.fail(0, 5, Fault::Server, at(32));
    assert_eq!(set.ejected(), [1], "one that is ejected does not give way");
}

#[test]
fn an_ejection_outlives_a_flap_of_discovery_and_a_passing_check_ends_it() {
    let mut set = Set::of(5, rules());
    set.fail(2, 5, Fault::Server, at(0));
    set.leave(2);
    set.outlier.sweep(at(5));
    set.join(2, at(6));
    assert_eq!(set.ejected(), [2]);
    set.outlier.sweep(at(29));
    assert_eq!(set.ejected(), [2]);

    set.outlier.passed_check(&address(2), at(29));

    assert_eq!(set.ejected(), []);
}

#[test]
fn a_set_that_shrinks_gets_back_the_nodes_ejected_beyond_the_allowed_share() {
    let mut set = Set::of(20, rules());
    set.fail(0, 5, Fault::Server, at(0));
    set.fail(1, 5, Fault::Server, at(1));
    assert_eq!(set.ejected(), [0, 1]);
    for _ in 0..10 {
        set.leave(10);
    }

    set.outlier.sweep(at(2));

    assert_eq!(set.ejected(), [1], "the one due first comes back first");
}

#[test]
fn the_memory_of_nodes_that_left_is_bounded() {
    let mut set =
        Set::of(100, OutlierRules { max_remembered: 3, max_ejected_percent: 50, ..rules() });
    for index in 0..20 {
        set.fail(index, 5, Fault::Server, at(index as u64));
    }
    for _ in 0..20 {
        set.leave(0);
    }
    set.outlier.sweep(at(21));

    assert_eq!(set.outlier.lock().members.len(), 80 + 3);
    assert_eq!(set.outlier.due(), Some(at(31)));
    for _ in 0..80 {
        set.leave(0);
    }
    assert_eq!(set.outlier.due(), None, "no node is left");
}

#[test]
fn addresses_that_come_and_go_between_two_sweeps_do_not_pile_up() {
    let mut set = Set::of(10, rules());
    for index in 100..10_000 {
        set.join(10, at(1));
        set.leave(10);
        set.join_as(10, address(index), at(1));
        set.leave(10);
    }

    let known = set.outlier.lock().members.len();
    assert!(known <= 2 * 64, "{known} are known of 10");
}

/// The scenarios of gRPC's own test (`OutlierDetectionLoadBalancerTest` of grpc-java): five hosts,
/// one interval. Where gRPC overshoots its share, we do not.
#[test]
fn scenarios_of_grpc_end_as_they_do_there() {
    let success_rate = |deviations, min_calls| OutlierRules {
        consecutive_errors: None,
        success_rate: Some(SuccessRate {
            deviations,
            min_difference: 0.0,
            min_nodes: 3,
            min_calls,
        }),
        ..rules()
    };
    let run = |rules: OutlierRules, failing: &[usize], calls: &[usize; 5]| {
        let set = Set::of(5, OutlierRules { panic_percent: 0, ..rules });
        for (index, calls) in calls.iter().enumerate() {
            if failing.contains(&index) {
                set.fail(index, *calls, Fault::Server, at(1));
            } else {
                set.succeed(index, *calls);
            }
        }
        set.outlier.sweep(at(10));
        set.ejected()
    };
    let twenty = [20; 5];
    let half = |rules| OutlierRules { max_ejected_percent: 50, ..rules };

    assert_eq!(run(half(success_rate(1.9, 10)), &[], &twenty), []);
    assert_eq!(run(half(success_rate(1.9, 20)), &[0], &[19, 20, 20, 20, 20]), []);
    assert_eq!(run(half(success_rate(1.9, 10)), &[0], &twenty), [0]);
    let off = OutlierRules { success_rate: None, ..success_rate(1.9, 10) };
    assert_eq!(run(off, &[0], &twenty), []);
    let share = OutlierRules { max_ejected_percent: 30, ..success_rate(0.001, 10) };
    assert_eq!(run(share, &[0, 1, 2], &twenty).len(), 1, "gRPC ejects two of five at 30 %");
    let failures = OutlierRules {
        success_rate: None,
        failure_percentage: Some(FailurePercentage { min_nodes: 3, min_calls: 100, percent: 85 }),
        ..success_rate(1.9, 10)
    };
    assert_eq!(run(failures, &[0], &twenty), [], "too few calls");
}

#[test]
fn the_cap_holds_and_one_node_is_open_whatever_happens() {
    for seed in 0..60 {
        let mut rng = Rng::with_seed(seed);
        let rules = OutlierRules {
            max_ejected_percent: [10, 40, 100][rng.below(3)],
            panic_percent: [0, 50][rng.below(2)],
            probation_calls: rng.below(3) as u32,
            consecutive_errors: Some(2),
            ..rules()
        };
        let mut set = Set::of(2 + rng.below(8), rules);
        let mut now = 0;
        for step in 0..500 {
            now += rng.below_u64(3);
            let nodes = set.nodes.len();
            let index = rng.below(nodes);
            match rng.below(20) {
                0 if 1 < nodes => set.leave(index),
                1 if nodes < 10 => {
                    let is_known = |a: &Address| set.nodes.iter().any(|node| node.address() == a);
                    let new = (0..).map(address).find(|a| !is_known(a)).expect("endless");
                    set.join_as(index, new, at(now));
                }
                2..=4 => set.succeed(index, 1),
                5 => {
                    match set.outlier.admit(set.nodes[index].address(), &set.hosts[index], at(now))
                    {
                        OutlierAdmission::Trial(trial) => {
                            let outcome = [Outcome::Success, Outcome::Failure][rng.below(2)];
                            let node = &set.nodes[index];
                            set.outlier.finish_trial(trial, node.address(), outcome, at(now));
                            node.follow(Gate::Ejected, || set.hosts[index].access());
                        }
                        _ => set.succeed(index, 1),
                    }
                }
                _ => set.fail(index, 1, Fault::Server, at(now)),
            }
            set.outlier.sweep(at(now));
            let (nodes, ejected) = (set.nodes.len(), set.ejected().len());
            let allowed = set.outlier.rules().max_ejected(nodes);
            assert!(ejected <= allowed, "seed {seed}, step {step}: {ejected} of {nodes}");
            assert!(set.nodes.iter().any(|node| node.is_open()), "seed {seed}, step {step}");
        }
    }
}

#[test]
fn sixteen_threads_eject_no_more_than_allowed() {
    for _ in 0..50 {
        let set = Set::of(16, OutlierRules { max_ejected_percent: 25, ..rules() });
        std::thread::scope(|scope| {
            for index in 0..16 {
                let set = &set;
                scope.spawn(move || set.fail(index, 50, Fault::Server, at(0)));
            }
        });
        assert_eq!(set.ejected().len(), 4);
    }
}
