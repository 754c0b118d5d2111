use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use super::*;
use crate::{
    endpoint::{Address, Endpoint},
    load::LoadReport,
    observe::Report,
    outcome::Outcome,
    rng::Rng,
    time::Timestamp,
};

/// A fleet that answers probes at once, and the client that sends to it.
struct Fleet {
    nodes: Vec<Arc<Node>>,
    picker: Box<dyn Picker>,
    rng: Rng,
    now: Timestamp,
}

impl Fleet {
    fn new(policy: &Prequal, nodes: u16) -> Self {
        let nodes: Vec<_> = (1..=nodes).map(node).collect();
        let picker = policy.build(&nodes, None);
        Self { nodes, picker, rng: Rng::with_seed(1), now: Timestamp::from_nanos(1 << 50) }
    }

    fn tickets(&mut self) -> Vec<Ticket> {
        let mut tickets = Vec::new();
        let probing = self.picker.probing().expect("it probes");
        probing.due(&self.nodes, &mut self.rng, self.now, &mut |ticket| tickets.push(ticket));
        tickets
    }

    /// Sends the probes that are due and answers them.
    fn probe(&mut self, load: impl Fn(usize) -> (f64, u64)) -> usize {
        let tickets = self.tickets();
        let count = tickets.len();
        for ticket in tickets {
            let (in_flight, millis) = load(ticket.index());
            let load = ServerLoad::new(in_flight, Duration::from_millis(millis));
            ticket.record_answer(load, self.now);
        }
        count
    }

    fn pick(&mut self) -> usize {
        let mut cx = PickContext { now: self.now, ..PickContext::new(&mut self.rng) };
        self.picker.pick(&self.nodes, &mut cx).expect("picks while one is open")
    }

    fn pooled(&self) -> usize {
        self.picker.probing().expect("it probes").pooled()
    }

    fn end(&self, index: usize, outcome: Outcome) {
        let node = &self.nodes[index];
        let report = Report::new(outcome, Duration::ZERO);
        node.observers().for_each(|observer| observer.ended(node, &report));
    }
}

fn node(port: u16) -> Arc<Node> {
    let address = Address::from(std::net::SocketAddr::from(([10, 0, 0, 1], port)));
    Arc::new(Node::new(Endpoint::new(address)))
}

#[test]
fn exactly_as_many_probes_are_sent_as_the_rate_says() {
    for (rate, requests, expected) in [(3.0, 100, 300), (0.25, 100, 25), (0.7, 1_000, 700)] {
        let mut fleet = Fleet::new(&Prequal::new().probe_rate(rate), 100);
        fleet.probe(|_| (0.0, 1));
        let mut probes = 0;
        for _ in 0..requests {
            fleet.pick();
            probes += fleet.probe(|_| (0.0, 1));
        }
        // If a rate is not a sum of powers of two, one probe may be late through rounding.
        assert!((expected - 1..=expected).contains(&probes), "{probes} at a rate of {rate}");
    }
}

#[test]
fn the_probes_of_one_request_go_to_distinct_nodes() {
    let mut fleet = Fleet::new(&Prequal::new(), 4);
    fleet.probe(|_| (0.0, 1));
    for _ in 0..100 {
        fleet.pick();
        let mut indices: Vec<_> = fleet.tickets().iter().map(Ticket::index).collect();
        indices.sort_unstable();
        indices.dedup();
        assert_eq!(indices.len(), 3);
    }
}

#[test]
fn a_client_that_is_idle_probes_now_and_then() {
    let mut fleet = Fleet::new(&Prequal::new(), 100);
    fleet.probe(|_| (0.0, 1));
    assert_eq!(fleet.probe(|_| (0.0, 1)), 0, "nothing is due");
    let mut probes = 0;
    for _ in 0..1_000 {
        fleet.now = fleet.now + Duration::from_millis(10);
        probes += fleet.probe(|_| (0.0, 1));
    }
    assert_eq!(probes, 100);
    assert!((9..=11).contains(&fleet.pooled()), "{} younger than a second", fleet.pooled());
}

#[test]
fn requests_go_where_probes_say_that_they_are_quick() {
    let mut fleet = Fleet::new(&Prequal::new(), 10);
    let load = |index| if index < 8 { (6.0, 80) } else { (2.0, 10) };
    fleet.probe(load);
    let mut quick = 0;
    for _ in 0..1_000 {
        quick += u32::from(8 <= fleet.pick());
        fleet.probe(load);
    }
    assert!(800 < quick, "{quick} of 1,000 went to the two quick ones of ten");
}

#[test]
fn probes_under_way_are_bounded_and_dropped_ones_leave_no_trace() {
    let mut fleet = Fleet::new(&Prequal::new().max_probes(8), 100);
    let mut held = fleet.tickets();
    for _ in 0..1_000 {
        fleet.pick();
        held.extend(fleet.tickets());
        assert!(held.len() <= 8);
    }
    assert_eq!(held.len(), 8);
    held.clear();
    fleet.pick();
    assert_eq!(fleet.tickets().len(), 3);
    assert_eq!(fleet.pooled(), 0);
}

#[test]
fn the_sender_of_probes_is_woken_if_nothing_else_would_wake_it() {
    let mut fleet = Fleet::new(&Prequal::new(), 100);
    let woken = Arc::new(AtomicU32::new(0));
    let count = woken.clone();
    let probing = fleet.picker.probing().unwrap();
    probing.wake_with(move || _ = count.fetch_add(1, SeqCst));
    fleet.probe(|_| (0.0, 1));

    fleet.pick();
    assert_eq!(woken.load(SeqCst), 1);
    fleet.pick();
    assert_eq!(woken.load(SeqCst), 1, "they are owed already");
    let under_way = fleet.tickets();
    fleet.pick();
    assert_eq!(woken.load(SeqCst), 1, "the next answer will wake it");
    (0..5).for_each(|_| _ = fleet.pick());
    assert_eq!(woken.load(SeqCst), 2, "many are owed while an answer does not come");
    drop(under_way);
}

#[test]
fn a_change_of_the_set_keeps_what_was_learnt_and_late_answers_are_ignored() {
    let policy = Prequal::new();
    let mut fleet = Fleet::new(&policy, 10);
    fleet.probe(|_| (1.0, 10));
    assert_eq!(fleet.pooled(), 10);
    let late = {
        fleet.pick();
        fleet.tickets()
    };

    // The first one leaves, another one joins.
    fleet.nodes.remove(0);
    fleet.nodes.push(node(99));
    fleet.picker = policy.build(&fleet.nodes, Some(&*fleet.picker));
    let before = fleet.pooled();
    assert!((8..=9).contains(&before), "{before} of nine that stayed, one was removed");
    late.into_iter()
        .for_each(|ticket| ticket.record_answer(ServerLoad::new(0.0, Duration::ZERO), fleet.now));
    assert_eq!(fleet.pooled(), before);

    for _ in 0..100 {
        let picked = fleet.pick();
        assert!(picked < 10);
        fleet.probe(|_| (1.0, 10));
    }
}

#[test]
fn an_old_picker_neither_panics_nor_uses_what_a_newer_one_knows() {
    let policy = Prequal::new();
    let mut fleet = Fleet::new(&policy, 2);
    let many: Vec<_> = (1..=100).map(node).collect();
    let newer = policy.build(&many, Some(&*fleet.picker));
    let mut tickets = Vec::new();
    let probing = newer.probing().unwrap();
    probing.due(&many, &mut fleet.rng, fleet.now, &mut |ticket| tickets.push(ticket));
    tickets
        .into_iter()
        .for_each(|ticket| ticket.record_answer(ServerLoad::new(0.0, Duration::ZERO), fleet.now));
    for _ in 0..100 {
        assert!(fleet.pick() < 2);
    }
}

/// The share of a node that fails at once, and so is idle and quick.
fn share_of_a_fast_failing_node(nodes: u16, per_second: u32) -> f64 {
    let mut fleet = Fleet::new(&Prequal::new(), nodes);
    let load = |index| if index == 0 { (0.0, 0) } else { (5.0, 20) };
    fleet.probe(load);
    let requests = per_second * 10;
    let mut failed = 0;
    for _ in 0..requests {
        fleet.now = fleet.now + Duration::from_secs(1) / per_second;
        let picked = fleet.pick();
        failed += u32::from(picked == 0);
        fleet.end(picked, if picked == 0 { Outcome::Failure } else { Outcome::Success });
        fleet.probe(load);
    }
    f64::from(failed) / f64::from(requests)
}

#[test]
fn a_node_that_fails_fast_gets_less_than_its_fair_share() {
    for (nodes, per_second, max) in
        [(5, 1_000, 0.03), (5, 100, 0.08), (20, 1_000, 0.02), (100, 1_000, 0.01)]
    {
        let share = share_of_a_fast_failing_node(nodes, per_second);
        assert!(share < max, "{share} of {nodes} nodes at {per_second} a second");
    }
}

#[test]
fn without_probes_a_node_that_fails_fast_is_avoided_too() {
    let mut fleet = Fleet::new(&Prequal::new(), 5);
    fleet.nodes[1..].iter().for_each(|node| (0..5).for_each(|_| node.enter()));
    let mut failed = 0;
    for _ in 0..1_000 {
        let picked = fleet.pick();
        failed += u32::from(picked == 0);
        fleet.end(picked, if picked == 0 { Outcome::Failure } else { Outcome::Success });
    }
    assert!(failed < 50, "{failed} of 1,000");
}

#[test]
fn a_failed_probe_removes_earlier_answers_of_its_node() {
    let mut fleet = Fleet::new(&Prequal::new(), 3);
    fleet.probe(|_| (1.0, 10));
    assert_eq!(fleet.pooled(), 3);
    fleet.pick();
    let tickets = fleet.tickets();
    let before = fleet.pooled();
    tickets.into_iter().for_each(|ticket| ticket.record_failure(fleet.now));
    assert_eq!((before, fleet.pooled()), (2, 0));
}

#[test]
fn nonsense_answers_and_clocks_neither_panic_nor_draw_traffic() {
    let mut fleet = Fleet::new(&Prequal::new(), 4);
    let nonsense = [f64::NAN, f64::INFINITY, -1.0, 1e300];
    let latencies = [Duration::ZERO, Duration::MAX, Duration::from_nanos(1)];
    for round in 0..500 {
        fleet.pick();
        let now = Timestamp::from_nanos([0, 1 << 50, u64::MAX, 7][round % 4]);
        for (number, ticket) in fleet.tickets().into_iter().enumerate() {
            let in_flight = nonsense[(round + number) % 4];
            ticket.record_answer(ServerLoad::new(in_flight, latencies[round % 3]), now);
        }
    }
    let mut fleet = Fleet::new(&Prequal::new(), 2);
    fleet.probe(|index| (if index == 0 { f64::NAN } else { 3.0 }, 10));
    assert_eq!(fleet.pick(), 1);
}

#[test]
fn a_custom_score_may_choose() {
    let by_port = |node: &Node, _: ServerLoad| -f64::from(node.address().port().unwrap());
    let mut fleet = Fleet::new(&Prequal::new().scored(by_port), 8);
    fleet.probe(|_| (1.0, 10));
    assert_eq!(fleet.pick(), 7);
}

#[test]
fn a_report_on_a_response_counts_like_an_answer_to_a_probe() {
    let policy = Prequal::new().probe_rate(0.0);
    let mut fleet = Fleet::new(&policy, 10);
    let report = |fleet: &Fleet, index: usize, in_flight: f64, millis| {
        let load = Some(ServerLoad::new(in_flight, Duration::from_millis(millis)));
        let report = LoadReport { server_load: load, ..LoadReport::default() };
        fleet.nodes[index].report_load(&report, fleet.now);
    };
    (0..10).for_each(|index| report(&fleet, index, 9.0 - index as f64, 10));
    report(&fleet, 3, 1.0, 2);
    assert_eq!((fleet.pooled(), fleet.pick()), (10, 3));

    fleet.nodes.remove(0);
    fleet.picker = policy.build(&fleet.nodes, Some(&*fleet.picker));
    report(&fleet, 7, 1.0, 1);
    assert_eq!(fleet.pick(), 7, "where it is now");
}

#[test]
fn failures_are_forgotten_with_time_even_without_probes() {
    let mut fleet = Fleet::new(&Prequal::new(), 2);
    fleet.now = Timestamp::default();
    (0..20).for_each(|_| fleet.end(0, Outcome::Failure));
    let share = |fleet: &mut Fleet| (0..1_000).filter(|_| fleet.pick() == 0).count();
    assert!(share(&mut fleet) < 10);
    fleet.picker.tend(Timestamp::default() + Duration::from_secs(200));
    assert!((400..600).contains(&share(&mut fleet)));
}

#[test]
fn reports_on_responses_are_drawn_by_the_seed_of_each_client() {
    let draw = |seed| {
        let mut fleet = Fleet::new(&Prequal::new(), 3);
        fleet.rng = Rng::with_seed(seed);
        fleet.pick();
        let probing = fleet.picker.probing().expect("it probes");
        probing.state.rng().below(1 << 30)
    };
    assert_ne!(draw(1), draw(2));
    assert_eq!(draw(1), draw(1));
}
