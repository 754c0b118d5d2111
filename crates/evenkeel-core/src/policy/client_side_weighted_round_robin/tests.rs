use super::*;
use crate::{
    load::LoadReport,
    node::{Access, Gate},
    rng::Rng,
};

struct Fleet {
    nodes: Vec<Arc<Node>>,
    picker: Box<dyn Picker>,
    rng: Rng,
}

impl Fleet {
    fn new(policy: &ClientSideWeighted, nodes: u16) -> Self {
        let node = |port| Arc::new(Node::new(format!("10.0.0.1:{port}").parse().unwrap()));
        let nodes: Vec<_> = (1..=nodes).map(node).collect();
        let picker = policy.build(&nodes, None);
        Self { nodes, picker, rng: Rng::with_seed(1) }
    }

    fn report(&self, index: usize, rps: f64, utilization: f64, now: Timestamp) {
        let report = LoadReport {
            requests_per_second: rps,
            cpu_utilization: utilization,
            ..LoadReport::default()
        };
        self.nodes[index].report_load(&report, now);
    }

    fn counts(&mut self, picks: usize) -> Vec<usize> {
        let mut counts = vec![0; self.nodes.len()];
        for _ in 0..picks {
            let mut cx = PickContext::new(&mut self.rng);
            counts[self.picker.pick(&self.nodes, &mut cx).expect("one is open")] += 1;
        }
        counts
    }
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_nanos(1 << 50) + Duration::from_secs(seconds)
}

#[test]
fn shares_follow_reports_after_the_blackout_and_until_they_expire() {
    let mut fleet = Fleet::new(&ClientSideWeighted::new(), 2);
    for second in 0..20 {
        fleet.report(0, 30.0, 0.5, at(second));
        fleet.report(1, 10.0, 0.5, at(second));
        fleet.picker.tend(at(second));
        let expected = if second < 10 { [200, 200] } else { [300, 100] };
        assert_eq!(fleet.counts(400), expected, "after {second} s");
    }
    fleet.picker.tend(at(19 + 179));
    assert_eq!(fleet.counts(400), [300, 100]);
    fleet.picker.tend(at(19 + 180));
    assert_eq!(fleet.counts(400), [200, 200]);

    // A node that reports again begins with the blackout.
    fleet.report(0, 30.0, 0.5, at(200));
    fleet.report(1, 10.0, 0.5, at(200));
    fleet.picker.tend(at(201));
    assert_eq!(fleet.counts(400), [200, 200]);
    fleet.picker.tend(at(210));
    assert_eq!(fleet.counts(400), [300, 100]);
}

#[test]
fn an_endpoint_that_does_not_report_gets_the_mean_weight() {
    let mut fleet = Fleet::new(&ClientSideWeighted::new().blackout(Duration::ZERO), 3);
    fleet.report(0, 30.0, 0.5, at(0));
    fleet.report(1, 10.0, 0.5, at(0));
    fleet.picker.tend(at(0));
    assert_eq!(fleet.counts(600), [300, 100, 200]);
}

#[test]
fn a_node_that_was_closed_for_its_health_has_to_report_again() {
    let mut fleet = Fleet::new(&ClientSideWeighted::new(), 3);
    for index in 0..3 {
        fleet.report(index, [30.0, 10.0, 20.0][index], 0.5, at(0));
    }
    fleet.nodes[0].follow(Gate::Breaker, || Access::Closed);
    fleet.nodes[0].follow(Gate::Breaker, || Access::Open);
    fleet.picker.tend(at(10));
    assert_eq!(fleet.counts(450), [150, 100, 200], "the mean of the two others");
}

#[test]
fn weights_survive_a_change_of_the_set() {
    let policy = ClientSideWeighted::new().blackout(Duration::ZERO);
    let mut fleet = Fleet::new(&policy, 3);
    for index in 0..3 {
        fleet.report(index, [30.0, 10.0, 20.0][index], 0.5, at(0));
    }
    fleet.picker.tend(at(0));
    fleet.nodes.remove(2);
    fleet.picker = policy.build(&fleet.nodes, Some(&*fleet.picker));
    assert_eq!(fleet.counts(400), [300, 100]);
    let observers = fleet.nodes[0].observers().count();
    assert_eq!(observers, 1, "it is observed once");
}

#[test]
fn nonsense_reports_and_clocks_change_nothing() {
    let mut fleet = Fleet::new(&ClientSideWeighted::new().blackout(Duration::ZERO), 2);
    fleet.report(0, 30.0, 0.5, at(0));
    fleet.report(1, 10.0, 0.5, at(0));
    for nonsense in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -3.0] {
        fleet.report(0, nonsense, 0.5, at(0));
        fleet.report(1, 30.0, nonsense, at(0));
    }
    fleet.picker.tend(at(0));
    assert_eq!(fleet.counts(400), [300, 100]);
    for now in [at(0), Timestamp::default(), at(0)] {
        fleet.picker.tend(now);
        assert_eq!(fleet.counts(400), [300, 100], "a clock that stands or goes back");
    }
    fleet.report(0, 30.0, 0.5, Timestamp::from_nanos(u64::MAX));
    fleet.picker.tend(Timestamp::from_nanos(u64::MAX));
    assert_eq!(fleet.counts(400).iter().sum::<usize>(), 400);
}

#[test]
fn nodes_of_extremely_low_weight_still_get_turns() {
    let mut fleet = Fleet::new(&ClientSideWeighted::new().blackout(Duration::ZERO), 20);
    fleet.report(0, 1e12, 0.5, at(0));
    (1..20).for_each(|index| fleet.report(index, 1.0, 0.5, at(0)));
    fleet.picker.tend(at(0));
    let counts = fleet.counts(10_000);
    assert!(counts[1..].iter().all(|&count| 0 < count), "{counts:?}");
    assert!(counts[1] * 20 < counts[0], "{counts:?}");
}
