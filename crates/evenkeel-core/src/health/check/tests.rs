use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    time::Duration,
};

use super::*;
use crate::node::Gate;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const START: Timestamp = Timestamp::from_nanos(1 << 60);

fn address(n: usize) -> Address {
    std::net::SocketAddr::from(([10, 0, (n >> 8) as u8, n as u8], 80)).into()
}

/// Endpoints that answer as a test says, with their own clock.
struct World {
    checks: Checks,
    now: Timestamp,
    nodes: Vec<Arc<Node>>,
    under_way: BinaryHeap<Reverse<(Timestamp, u64)>>,
    tickets: BTreeMap<u64, (Ticket, ProbeResult)>,
    /// When each probe was made, and of which endpoint.
    probes: Vec<(Duration, Address)>,
    changes: Vec<(Duration, Address, Standing)>,
    ended_ejections: Vec<Address>,
}

impl World {
    fn new(nodes: usize, seed: u64, set: impl FnOnce(&mut CheckRules)) -> Self {
        let mut rules = CheckRules::default();
        set(&mut rules);
        let mut world = Self {
            checks: Checks::new(rules, Rng::with_seed(seed)),
            now: START,
            nodes: Vec::new(),
            under_way: BinaryHeap::new(),
            tickets: BTreeMap::new(),
            probes: Vec::new(),
            changes: Vec::new(),
            ended_ejections: Vec::new(),
        };
        (0..nodes).for_each(|n| world.join(n));
        world
    }

    fn join(&mut self, n: usize) {
        let node = Arc::new(Node::new(address(n).into()));
        self.checks.join(&node, self.now);
        self.nodes.push(node);
    }

    fn elapsed(&self) -> Duration {
        self.now.since(START)
    }

    /// Runs for `time`. `answer` says what a probe that begins now finds, and after what time.
    fn run(
        &mut self,
        time: Duration,
        mut answer: impl FnMut(&Address, Duration) -> (ProbeResult, Duration),
    ) {
        let end = self.now + time;
        loop {
            let next = match self.checks.next(self.now) {
                Next::Probe(ticket) => {
                    let address = ticket.node().address().clone();
                    let (verdict, took) = answer(&address, self.elapsed());
                    let number = ticket.number;
                    self.probes.push((self.elapsed(), address));
                    self.tickets.insert(number, (ticket, verdict));
                    self.under_way.push(Reverse((self.now + took, number)));
                    continue;
                }
                Next::At(at) => {
                    assert!(self.now < at, "it wants to be asked again at once");
                    Some(at)
                }
                Next::Nothing => None,
            };
            let ends = self.under_way.peek().map(|next| next.0.0);
            let Some(at) = [next, ends].into_iter().flatten().min().filter(|at| *at <= end) else {
                self.now = end;
                return;
            };
            self.now = at;
            while let Some(&Reverse((at, number))) = self.under_way.peek()
                && at <= self.now
            {
                self.under_way.pop();
                let (ticket, verdict) = self.tickets.remove(&number).expect("each ends once");
                let address = ticket.node().address().clone();
                let effect = self.checks.finish(ticket, verdict, self.now);
                self.changed(&address, effect);
            }
        }
    }

    fn changed(&mut self, address: &Address, effect: Effect) {
        self.changes.extend(effect.change.map(|to| (self.elapsed(), address.clone(), to)));
        self.ended_ejections.extend(effect.ends_ejection.then(|| address.clone()));
    }

    fn is_open(&self, n: usize) -> bool {
        self.nodes[n].is_open()
    }

    /// The times between the probes of the first endpoint.
    fn gaps(&self) -> Vec<u64> {
        self.probes.windows(2).map(|pair| (pair[1].0 - pair[0].0).as_millis() as u64).collect()
    }
}

fn passes(_: &Address, _: Duration) -> (ProbeResult, Duration) {
    (ProbeResult::Passed, ms(1))
}

fn fails(_: &Address, _: Duration) -> (ProbeResult, Duration) {
    (ProbeResult::Failed, ms(1))
}

/// One endpoint that gives these verdicts in this order, without jitter.
fn told(verdicts: &[ProbeResult], set: impl FnOnce(&mut CheckRules)) -> World {
    let mut world = World::new(1, 1, |rules| {
        rules.jitter_percent = 0;
        set(rules);
    });
    for &verdict in verdicts {
        let before = world.probes.len();
        while world.probes.len() == before {
            world.run(ms(10), |_, _| (verdict, ms(1)));
        }
    }
    world.run(ms(5), passes);
    world
}

use ProbeResult::{Denied as D, Failed as F, Passed as P};

#[test]
fn the_first_result_decides_alone() {
    assert!(told(&[], |_| {}).is_open(0));
    assert!(told(&[P], |_| {}).is_open(0));
    assert!(!told(&[F], |_| {}).is_open(0));
    assert!(!told(&[D], |_| {}).is_open(0));
}

#[test]
fn the_first_pass_is_enough_however_many_failures_came_before() {
    let world = told(&[F, F, F, F, P], |_| {});
    assert!(world.is_open(0));
    assert_eq!(world.gaps(), [501, 501, 2_001, 2_001], "a few times it is looked at soon");
    assert!(!told(&[F, P, F, F, F, P], |_| {}).is_open(0));
}

#[test]
fn three_failures_in_a_row_close_the_gate_and_two_successes_open_it() {
    assert!(told(&[P, F, F], |_| {}).is_open(0));
    assert!(!told(&[P, F, F, F], |_| {}).is_open(0));
    assert!(told(&[P, F, F, P, F, F], |_| {}).is_open(0), "a pass starts the row over");
    assert!(!told(&[P, F, F, F, P], |_| {}).is_open(0));
    assert!(told(&[P, F, F, F, P, P], |_| {}).is_open(0));
    assert!(!told(&[P, F, F, F, P, F, P], |_| {}).is_open(0), "a failure starts the row over");
}

#[test]
fn one_denial_closes_the_gate_at_once() {
    assert!(!told(&[P, D], |_| {}).is_open(0));
    assert!(!told(&[P, D, P, D, P], |_| {}).is_open(0));
    assert!(told(&[P, D, P, P], |_| {}).is_open(0));
}

#[test]
fn a_gate_that_is_closed_at_first_opens_with_the_first_pass() {
    let closed = |rules: &mut CheckRules| rules.is_closed_at_first = true;
    let world = World::new(1, 1, closed);
    assert!(world.nodes[0].is_closed_by(Gate::Unchecked));
    let passed = told(&[P], closed);
    assert!(passed.is_open(0));
    assert_eq!(passed.changes, [(ms(1), address(0), Standing::Up)]);
    let failed = told(&[F], closed);
    assert!(!failed.is_open(0));
    assert_eq!(failed.changes, [], "it was closed before");
}

#[test]
fn an_endpoint_that_is_about_to_change_state_is_probed_sooner() {
    let world = told(&[P, F, F, F, F, P, P, P], |_| {});
    assert_eq!(world.gaps(), [2_001, 501, 501, 2_001, 2_001, 501, 2_001]);
    let world = told(&[P, D, D, P], |rules| rules.interval_down = Some(ms(5_000)));
    assert_eq!(world.gaps(), [2_001, 5_001, 5_001]);
}

#[test]
fn jitter_shortens_each_wait_and_never_lengthens_it() {
    let mut world = World::new(1, 7, |rules| rules.jitter_percent = 25);
    world.run(Duration::from_secs(4_000), passes);
    let gaps = world.gaps();
    assert!((1_500..1_510).contains(gaps.iter().min().unwrap()));
    assert!((1_990..=2_001).contains(gaps.iter().max().unwrap()));
    let mean = gaps.iter().sum::<u64>() as f64 / gaps.len() as f64;
    assert!((mean - 1_751.0).abs() < 10.0, "{mean}");
}

#[test]
fn an_endpoint_that_dies_or_recovers_is_closed_or_opened_within_the_promised_time() {
    let rules = CheckRules::default();
    let closed_after = rules.interval + rules.timeout + (rules.interval_edge + rules.timeout) * 2;
    let opened_after = rules.interval + rules.timeout + rules.interval_edge + ms(2);
    let mut worst = Duration::ZERO;
    for seed in 0..500 {
        let mut rng = Rng::with_seed(seed);
        let dies = ms(5_000 + rng.below_u64(10_000));
        let recovers = dies + ms(10_000 + rng.below_u64(10_000));
        let mut world = World::new(20, seed, |_| {});
        world.run(Duration::from_secs(60), |at, now| {
            let is_dead = *at == address(7) && (dies..recovers).contains(&now);
            if is_dead { (ProbeResult::Failed, ms(1_000)) } else { (ProbeResult::Passed, ms(1)) }
        });

        let [closed, opened] = &*world.changes else { panic!("{seed}: {:?}", world.changes) };
        assert_eq!((&closed.1, closed.2), (&address(7), Standing::Down));
        assert_eq!((&opened.1, opened.2), (&address(7), Standing::Up));
        assert!(closed.0 - dies <= closed_after, "{seed}: {:?}", closed.0 - dies);
        assert!(opened.0 - recovers <= opened_after, "{seed}: {:?}", opened.0 - recovers);
        worst = worst.max(closed.0 - dies);
    }
    assert!(closed_after - ms(300) < worst, "the bound is tight: {worst:?}");
}

#[test]
fn ten_thousand_endpoints_are_probed_at_a_steady_pace() {
    let mut world = World::new(10_000, 3, |_| {});
    world.run(Duration::from_secs(60), passes);

    let mut second = std::collections::VecDeque::new();
    let mut instant = (Duration::ZERO, 0);
    for (at, _) in &world.probes {
        second.push_back(*at);
        while second[0] + ms(1_000) <= *at {
            second.pop_front();
        }
        assert!(second.len() <= 506, "{} in the second before {at:?}", second.len());
        instant = if instant.0 == *at { (*at, instant.1 + 1) } else { (*at, 1) };
        assert!(instant.1 <= 6, "{} at {at:?}", instant.1);
    }
    let mut last: BTreeMap<Address, Duration> = BTreeMap::new();
    for (at, address) in &world.probes {
        let before = last.insert(address.clone(), *at).unwrap_or_default();
        assert!(*at - before <= ms(22_500), "{address} waited from {before:?} to {at:?}");
    }
    assert_eq!(last.len(), 10_000);
    assert!((29_500..30_010).contains(&world.probes.len()), "{}", world.probes.len());
}

#[test]
fn at_the_limit_of_probes_endpoints_in_doubt_and_the_others_take_turns() {
    let mut world = World::new(1_000, 3, |rules| rules.probes_per_second = 100);
    world.run(Duration::from_secs(20), passes);
    let died = world.elapsed();

    // Half of them die: each has to be probed three times.
    world.run(Duration::from_secs(50), |at, _| {
        let is_dead = (0..500).any(|n| *at == address(n));
        if is_dead { (ProbeResult::Failed, ms(1)) } else { (ProbeResult::Passed, ms(1)) }
    });

    let closed = world.changes.iter().map(|(at, ..)| *at - died).collect::<Vec<_>>();
    assert_eq!(closed.len(), 500);
    assert!(closed[0] < ms(2_000), "{:?}", closed[0]);
    let alive = |(at, address): &&(Duration, Address)| died <= *at && address_is_alive(address);
    let mut gap = (died, Duration::ZERO);
    for (at, _) in world.probes.iter().filter(alive) {
        gap = (*at, gap.1.max(*at - gap.0));
    }
    assert!(gap.1 < ms(10_000), "no endpoint starves: {:?}", gap.1);
}

fn address_is_alive(other: &Address) -> bool {
    (500..1_000).any(|n| *other == address(n))
}

#[test]
fn the_state_of_an_endpoint_outlives_its_leaving_and_coming_back() {
    let mut world = told(&[P, F, F, F], |_| {});
    world.nodes.clear();
    world.run(Duration::from_secs(20), fails);
    assert!(matches!(world.checks.next(world.now), Next::Nothing), "no endpoint is left");

    world.join(0);

    assert!(!world.is_open(0));
    let before = world.probes.len();
    world.run(ms(5), passes);
    assert_eq!(world.probes.len(), before + 1, "it is probed when it comes back");
    assert!(!world.is_open(0));
    world.run(ms(600), passes);
    assert!(world.is_open(0));
}

#[test]
fn the_state_of_absent_endpoints_is_bounded_in_age_and_number() {
    let mut world = told(&[P, F, F, F], |_| {});
    world.nodes.clear();
    world.run(Duration::from_secs(310), fails);
    world.join(0);
    assert!(world.is_open(0));

    let mut world = World::new(300, 1, |rules| rules.max_remembered = 100);
    world.run(Duration::from_secs(3), |_, _| (ProbeResult::Denied, ms(1)));
    for _ in 0..5 {
        world.nodes.clear();
        world.run(Duration::from_secs(3), fails);
        assert!(world.checks.list().len() <= 100);
        (0..300).for_each(|n| world.join(n));
        assert_eq!(world.nodes.iter().filter(|node| !node.is_open()).count(), 100);
        world.run(Duration::from_secs(3), |_, _| (ProbeResult::Denied, ms(1)));
    }
}

#[test]
fn state_does_not_pile_up_if_the_set_always_changes() {
    let mut world = World::new(0, 1, |rules| rules.max_remembered = 100);
    for n in 0..20_000 {
        world.nodes.clear();
        world.join(n);
        assert!(world.checks.list().len() < 400, "{n}");
    }
}

#[test]
fn a_retired_node_is_not_probed_even_if_it_is_kept() {
    let mut world = World::new(2, 1, |_| {});
    world.run(ms(100), passes);
    world.nodes[0].close(Gate::Retired);
    let before = world.probes.len();

    world.run(Duration::from_secs(20), passes);

    assert!(world.probes[before..].iter().all(|(_, other)| *other == address(1)));
}

#[test]
fn two_nodes_of_one_address_are_one_endpoint() {
    let mut world = World::new(1, 1, |_| {});
    world.join(0);
    world.checks.join(&world.nodes[0].clone(), world.now);
    world.run(ms(10), fails);
    assert_eq!(world.probes.len(), 1);
    assert!(!world.is_open(0));
    assert!(!world.is_open(1));
}

#[test]
fn what_an_endpoint_reports_of_itself_counts_at_once_and_outranks_older_probes() {
    let mut world = told(&[P], |_| {});
    world.run(ms(1_980), passes);
    world.run(ms(20), |_, _| (ProbeResult::Passed, ms(500)));
    assert_eq!(world.under_way.len(), 1);

    let effect = world.checks.report(&address(0), false, world.now);
    assert_eq!(effect.change, Some(Standing::Down));
    assert!(!world.is_open(0));
    world.run(ms(550), passes);
    assert_eq!(world.checks.list(), [(address(0), Standing::Down)]);

    assert_eq!(world.checks.report(&address(0), true, world.now).change, Some(Standing::Up));
    assert!(world.is_open(0));
    assert_eq!(world.checks.report(&address(0), true, world.now).change, None);
    assert_eq!(world.checks.report(&address(9), false, world.now), Effect::default());
}

#[test]
fn an_endpoint_under_suspicion_is_probed_at_once() {
    let mut world = told(&[P], |_| {});
    world.run(ms(300), passes);
    assert_eq!(world.probes.len(), 1);
    world.checks.suspect(&address(0), world.now);
    world.run(ms(1), fails);
    assert_eq!(world.probes.len(), 2);
    assert!(world.is_open(0), "a suspicion closes nothing");
}

#[test]
fn rise_passes_in_a_row_end_an_ejection() {
    let mut world = told(&[P, P], |_| {});
    world.nodes[0].close(Gate::Ejected);
    world.run(ms(2_100), passes);
    assert_eq!(world.ended_ejections, []);
    world.run(ms(2_100), fails);
    world.run(ms(501), passes);
    assert_eq!(world.ended_ejections, []);
    world.run(ms(2_100), passes);
    assert_eq!(world.ended_ejections, [address(0)]);

    let mut world = told(&[P, P], |rules| rules.ends_ejections = false);
    world.nodes[0].close(Gate::Ejected);
    world.run(ms(20_000), passes);
    assert_eq!(world.ended_ejections, []);
}

#[test]
fn endpoints_without_traffic_are_probed_rarely_until_the_first_request() {
    let mut world = World::new(50, 1, |rules| rules.interval_idle = Some(ms(60_000)));
    world.run(ms(50_000), passes);
    assert_eq!(world.probes.len(), 50, "the first probe does not wait");

    assert!(world.checks.record_request(), "the task that drives the checks has to wake");
    assert!(!world.checks.record_request());
    world.run(ms(2_000), passes);
    assert!((100..105).contains(&world.probes.len()), "{}", world.probes.len());
    let latest = world.probes[50..].iter().map(|(at, _)| *at).max().unwrap();
    let earliest = world.probes[50..].iter().map(|(at, _)| *at).min().unwrap();
    assert!(ms(1_500) < latest - earliest, "they are spread");

    // It goes on for a minute without requests, then it is idle again.
    world.run(ms(62_000), passes);
    let before = world.probes.len();
    assert!(50 * 30 < before, "{before}");
    world.run(ms(54_000), passes);
    assert!((before + 1..=before + 75).contains(&world.probes.len()), "{}", world.probes.len());
}

#[test]
fn an_endpoint_that_is_about_to_change_state_is_probed_soon_even_if_idle() {
    let mut world = World::new(1, 1, |rules| rules.interval_idle = Some(ms(60_000)));
    world.run(ms(30_000), passes);
    world.run(ms(32_000), fails);
    assert!(!world.is_open(0));
}

#[test]
fn lost_probes_are_made_again_after_a_restart() {
    let mut world = World::new(3, 1, |_| {});
    let lost: Vec<_> = (0..3).map(|_| world.checks.next(START)).collect();
    world.run(ms(9_000), passes);
    assert_eq!(world.probes.len(), 0);

    world.checks.restart(world.now);
    world.run(ms(10), passes);

    assert_eq!(world.probes.len(), 3);
    for next in lost {
        let Next::Probe(ticket) = next else { panic!("there were three") };
        assert_eq!(world.checks.finish(ticket, ProbeResult::Denied, world.now), Effect::default());
    }
    assert!(world.is_open(0));
}

/// What the rules mean, as plainly as possible: a look at the whole history.
fn model(history: &[ProbeResult], rules: &CheckRules) -> bool {
    let Some((first, rest)) = history.split_first() else { return true };
    let mut is_up = *first == P;
    let mut has_passed = is_up;
    let mut since = 0;
    for end in 1..=rest.len() {
        let row = &rest[since..end];
        let last = |n: u32, is: fn(&ProbeResult) -> bool| {
            n as usize <= row.len() && row[row.len() - n as usize..].iter().all(is)
        };
        let flips = if is_up {
            row.ends_with(&[D]) || last(rules.fall, |verdict| *verdict != P)
        } else {
            last(if has_passed { rules.rise } else { 1 }, |verdict| *verdict == P)
        };
        has_passed |= row.ends_with(&[P]);
        if flips {
            is_up = !is_up;
            since = end;
        }
    }
    is_up
}

#[test]
fn any_results_of_probes_give_the_states_of_a_plain_model() {
    for seed in 0..300 {
        let mut rng = Rng::with_seed(seed);
        let (fall, rise) = (1 + rng.below(4) as u32, 1 + rng.below(4) as u32);
        let mut world = World::new(8, seed, |rules| {
            (rules.fall, rules.rise) = (fall, rise);
            rules.probes_per_second = 1 + seed as u32 % 40;
        });
        let mut histories: BTreeMap<Address, Vec<ProbeResult>> = BTreeMap::new();
        let likely_to_pass = rng.unit();
        for _ in 0..40 {
            world.run(ms(1 + rng.below_u64(3_000)), |address, _| {
                let verdict = match rng.unit() {
                    draw if draw < likely_to_pass => P,
                    draw if draw < 0.98 => F,
                    _ => D,
                };
                histories.entry(address.clone()).or_default().push(verdict);
                (verdict, Duration::ZERO)
            });
            for (n, node) in world.nodes.iter().enumerate() {
                let history = histories.get(&address(n)).map_or(&[][..], |all| all);
                assert_eq!(node.is_open(), model(history, world.checks.rules()), "{seed} {n}");
            }
        }
    }
}

#[test]
fn rules_that_make_no_sense_are_refused() {
    let refused = |set: fn(&mut CheckRules)| {
        let mut rules = CheckRules::default();
        set(&mut rules);
        std::panic::catch_unwind(|| Checks::new(rules, Rng::with_seed(1))).is_err()
    };
    assert!(refused(|rules| rules.interval = Duration::ZERO));
    assert!(refused(|rules| rules.interval_edge = Duration::ZERO));
    assert!(refused(|rules| rules.timeout = Duration::ZERO));
    assert!(refused(|rules| rules.fall = 0));
    assert!(refused(|rules| rules.rise = 0));
    assert!(refused(|rules| rules.jitter_percent = 101));
    assert!(refused(|rules| rules.probes_per_second = 0));
    assert!(!refused(|_| {}));
}

#[test]
fn a_probe_that_could_not_be_made_changes_nothing_and_is_made_again() {
    let mut world = World::new(1, 1, |rules| rules.fall = 1);
    world.run(ms(10_000), |_, _| (ProbeResult::Passed, ms(1)));
    let abandoned = loop {
        match world.checks.next(world.now) {
            Next::Probe(ticket) => break ticket,
            Next::At(at) => world.now = at,
            Next::Nothing => panic!("it is due some time"),
        }
    };

    world.checks.abandon(abandoned, world.now);

    assert_eq!(world.checks.standing(&address(0)), Standing::Up);
    let before = world.probes.len();
    world.run(ms(10_000), |_, _| (ProbeResult::Passed, ms(1)));
    assert!(before < world.probes.len());
}
