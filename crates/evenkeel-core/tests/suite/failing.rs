//! An endpoint that fails at once draws no more traffic, under any policy and without ejection.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use evenkeel_core::{
    attempt::{Attempt, Holder},
    endpoint::{Address, Endpoint},
    node::{Gate, Listener, Node},
    outcome::Outcome,
    policy::{BUILT_IN, Basis, BuiltIn, PickContext, Picker, Policy, by_name, laws::Spread},
    rng::Rng,
    time::Timestamp,
};

struct Deaf;

impl Listener for Deaf {
    fn opened(&self, _: &Node) {}
    fn closed(&self, _: &Node) {}
    fn unreachable(&self, _: &Node) {}
}

struct Held {
    node: Arc<Node>,
    clock: Arc<AtomicU64>,
}

impl Holder for Held {
    fn node(&self) -> &Arc<Node> {
        &self.node
    }
    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.clock.load(Relaxed))
    }
    fn recently(&self) -> Timestamp {
        self.now()
    }
}

/// How long a healthy endpoint takes for a call, and how long a failing one takes.
const WELL: Duration = Duration::from_millis(20);
const FAILING: Duration = Duration::from_micros(100);

/// A client that keeps this many calls under way.
struct Fleet {
    nodes: Vec<Arc<Node>>,
    picker: Box<dyn Picker>,
    rng: Rng,
    clock: Arc<AtomicU64>,
    /// When calls end, in the order in which they began.
    ends: BinaryHeap<Reverse<(u64, u64)>>,
    under_way: Vec<(u64, Outcome, Attempt<Held>)>,
    calls: u64,
    failing: usize,
    fails_percent: usize,
    /// How failing endpoints fail: the request is not processed, as with a refused stream.
    turns_away: bool,
}

impl Fleet {
    /// The first `failing` of `nodes` always fail.
    fn new(policy: &dyn Policy, nodes: usize, failing: usize, seed: u64) -> Self {
        let nodes: Vec<_> = (0..nodes)
            .map(|index| {
                let address = Address::Name { host: format!("node-{index}").into(), port: 80 };
                let decay = Some(Duration::from_secs(10));
                let node = Node::joining(Endpoint::new(address), Arc::new(Deaf), decay);
                node.open(Gate::Joining);
                Arc::new(node)
            })
            .collect();
        let picker = policy.build(&nodes, None);
        let (ends, under_way, clock) = (BinaryHeap::new(), Vec::new(), AtomicU64::new(1 << 50));
        let (rng, clock) = (Rng::with_seed(seed), Arc::new(clock));
        let (calls, fails_percent, turns_away) = (0, 100, false);
        Self {
            nodes,
            picker,
            rng,
            clock,
            ends,
            under_way,
            calls,
            failing,
            fails_percent,
            turns_away,
        }
    }

    /// Makes `calls` calls, `at_once` at a time. Returns how many went to each node.
    fn run(&mut self, calls: u64, at_once: usize) -> Vec<u64> {
        let mut picked = vec![0; self.nodes.len()];
        for _ in 0..calls {
            while at_once <= self.under_way.len() {
                self.end();
            }
            picked[self.begin()] += 1;
        }
        picked
    }

    fn begin(&mut self) -> usize {
        let now = Timestamp::from_nanos(self.clock.load(Relaxed));
        let mut cx = PickContext { now, ..PickContext::new(&mut self.rng) };
        let index = self.picker.pick(&self.nodes, &mut cx).expect("all are open");
        let held = Held { node: self.nodes[index].clone(), clock: self.clock.clone() };
        let mut attempt = Attempt::new(Arc::new(held));
        attempt.start_clock();
        let fails = index < self.failing && self.rng.below(100) < self.fails_percent;
        let takes = if fails { FAILING } else { WELL.mul_f64(0.5 + self.rng.unit()) };
        self.calls += 1;
        self.ends.push(Reverse((now.as_nanos() + takes.as_nanos() as u64, self.calls)));
        let outcome = match (fails, self.turns_away) {
            (false, _) => Outcome::Success,
            (true, false) => Outcome::Failure,
            (true, true) => Outcome::Ignored,
        };
        self.under_way.push((self.calls, outcome, attempt));
        index
    }

    fn end(&mut self) {
        let Reverse((at, call)) = self.ends.pop().expect("one is under way");
        self.clock.store(at, Relaxed);
        let index = self.under_way.iter().position(|(number, ..)| *number == call).expect("begun");
        let (_, outcome, attempt) = self.under_way.swap_remove(index);
        if outcome == Outcome::Ignored {
            attempt.turned_away();
        }
        attempt.finish(outcome);
    }
}

/// The policies that may send more than the fair share to a node as long as it is open.
fn is_stubborn(policy: &BuiltIn) -> bool {
    policy.hashes() || policy.spread == Spread::Not
}

/// The policies that compare nodes by one of these.
fn comparing(bases: &[Basis]) -> impl Iterator<Item = &'static BuiltIn> {
    BUILT_IN.iter().filter(|policy| bases.contains(&policy.basis))
}

/// What the failing nodes get, in multiples of a fair share.
fn drawn(policy: &BuiltIn, nodes: usize, failing: usize, at_once: usize, seed: u64) -> f64 {
    drawn_by(Fleet::new(&*policy.make(), nodes, failing, seed), at_once)
}

fn drawn_by(mut fleet: Fleet, at_once: usize) -> f64 {
    let (nodes, failing) = (fleet.nodes.len(), fleet.failing);
    fleet.run(5_000, at_once);
    let picked = fleet.run(50_000, at_once);
    let share = picked[..failing].iter().sum::<u64>() as f64 / 50_000.0;
    share * nodes as f64 / failing as f64
}

#[test]
fn no_policy_gives_endpoints_that_fail_at_once_more_than_their_fair_share() {
    for policy in BUILT_IN.iter().filter(|policy| !is_stubborn(policy)) {
        for (nodes, failing) in [(2, 1), (3, 1), (5, 1), (20, 2)] {
            for at_once in [1, 4, 64] {
                let drawn = drawn(policy, nodes, failing, at_once, 1);
                // Policies that draw at random are off by chance.
                assert!(drawn < 1.05, "{}, {failing} of {nodes}, {at_once}: {drawn}", policy.name);
            }
        }
    }
}

#[test]
fn no_policy_gives_an_endpoint_that_turns_all_away_more_than_its_fair_share() {
    for policy in BUILT_IN.iter().filter(|policy| !is_stubborn(policy)) {
        for at_once in [1, 4, 64] {
            let mut fleet = Fleet::new(&*policy.make(), 5, 1, 7);
            fleet.turns_away = true;
            let drawn = drawn_by(fleet, at_once);
            assert!(drawn < 1.05, "{}, {at_once} at once: {drawn}", policy.name);
        }
    }
}

#[test]
fn an_endpoint_that_turns_all_away_is_tried_now_and_then_and_regains_its_share() {
    for policy in comparing(&[Basis::InFlight, Basis::Latency, Basis::Probes]) {
        let name = policy.name;
        for at_once in [1, 4, 64] {
            let mut fleet = Fleet::new(&*policy.make(), 5, 1, 8);
            fleet.turns_away = true;
            let tried = fleet.run(20_000, at_once)[0];
            assert!((50..4_000).contains(&tried), "{name}, {at_once} at once: {tried}");

            fleet.failing = 0;
            fleet.run(2_000, at_once);

            let picked = fleet.run(5_000, at_once)[0];
            assert!((700..1_300).contains(&picked), "{name}, {at_once} at once: {picked}");
        }
    }
}

#[test]
fn policies_that_compare_load_give_failing_endpoints_a_fraction_of_their_share() {
    for policy in comparing(&[Basis::InFlight]) {
        let name = policy.name;
        for (nodes, failing) in [(2, 1), (5, 1), (20, 2)] {
            for at_once in [1, 4, 64] {
                let drawn = drawn(policy, nodes, failing, at_once, 2);
                assert!(
                    (0.02..0.3).contains(&drawn),
                    "{name}, {failing} of {nodes}, {at_once}: {drawn}"
                );
            }
        }
    }
}

#[test]
fn an_endpoint_that_fails_half_of_its_calls_gets_less_than_its_share() {
    for policy in comparing(&[Basis::InFlight, Basis::Latency]) {
        let name = policy.name;
        let mut fleet = Fleet::new(&*policy.make(), 5, 1, 3);
        fleet.fails_percent = 50;
        let picked = fleet.run(50_000, 64);
        assert!(picked[0] < 10_000, "{name}: {picked:?}");
    }
}

#[test]
fn an_endpoint_that_recovers_has_its_share_back_within_some_hundred_calls() {
    for policy in comparing(&[Basis::InFlight]) {
        let name = policy.name;
        for at_once in [1, 4, 64] {
            let mut fleet = Fleet::new(&*policy.make(), 5, 1, 4);
            fleet.run(5_000, at_once);

            fleet.failing = 0;
            fleet.run(800, at_once);

            let picked = fleet.run(5_000, at_once);
            assert!((850..1_150).contains(&picked[0]), "{name}, {at_once}: {picked:?}");
        }
    }
}

#[test]
fn if_all_endpoints_fail_all_get_the_same_share() {
    for policy in comparing(&[Basis::InFlight]) {
        let name = policy.name;
        let mut fleet = Fleet::new(&*policy.make(), 5, 5, 5);
        let picked = fleet.run(50_000, 64);
        assert!(picked.iter().all(|calls| (9_000..11_000).contains(calls)), "{name}: {picked:?}");
    }
}

#[test]
fn an_ejected_endpoint_comes_back_without_a_penalty() {
    let mut fleet = Fleet::new(&*by_name("p2c").unwrap(), 2, 1, 6);
    fleet.run(1_000, 4);
    assert_ne!(fleet.nodes[0].penalty(), 0);

    fleet.nodes[0].close(Gate::Ejected);
    fleet.nodes[0].open(Gate::Ejected);
    assert_eq!(fleet.nodes[0].penalty(), 0);
}
