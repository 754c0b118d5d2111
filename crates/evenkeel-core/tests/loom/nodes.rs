//! Every interleaving of a few threads, tried by a model checker.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p evenkeel-core --test loom --release`

use std::{sync::Arc, time::Duration};

use evenkeel_core::{
    attempt::{Attempt, Holder},
    endpoint::{Address, Endpoint},
    health::{
        breaker::{Breaker, BreakerAdmission, BreakerRules},
        check::{CheckRules, Checks, Next, ProbeResult, Standing},
    },
    load::{LoadEstimate, LoadReport, PeakEwma, ServerLoad},
    node::{Gate, Listener, Node},
    outcome::Outcome,
    policy::{ClientSideWeighted, P2c, PickContext, Picker, Policy, Prequal, RoundRobin},
    rng::Rng,
    snapshot::Publisher,
    time::Timestamp,
};
use loom::{
    sync::atomic::{
        AtomicIsize, AtomicUsize,
        Ordering::{Relaxed, SeqCst},
    },
    thread,
};

/// Counts open nodes, and how often it was called.
struct OpenNodes {
    open: AtomicIsize,
    opened: AtomicUsize,
    closed: AtomicUsize,
}

impl OpenNodes {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            open: AtomicIsize::new(0),
            opened: AtomicUsize::new(0),
            closed: AtomicUsize::new(0),
        })
    }
}

impl Listener for OpenNodes {
    fn opened(&self, _: &Node) {
        self.open.fetch_add(1, SeqCst);
        self.opened.fetch_add(1, SeqCst);
    }

    fn closed(&self, _: &Node) {
        self.open.fetch_sub(1, SeqCst);
        self.closed.fetch_add(1, SeqCst);
    }

    fn unreachable(&self, _: &Node) {}
}

struct Held(Arc<Node>);

impl Holder for Held {
    fn node(&self) -> &Arc<Node> {
        &self.0
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(1 << 50)
    }

    fn recently(&self) -> Timestamp {
        Timestamp::from_nanos(1 << 50)
    }
}

fn endpoint(port: u16) -> Endpoint {
    Endpoint::new(Address::from(std::net::SocketAddr::from(([10, 0, 0, 1], port))))
}

fn nodes(count: u16) -> Vec<Arc<Node>> {
    (1..=count).map(|port| Arc::new(Node::new(endpoint(port)))).collect()
}

#[test]
fn a_reader_never_goes_back_and_never_misses_the_last_value() {
    loom::model(|| {
        let publisher = Arc::new(Publisher::new(0));
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let publisher = publisher.clone();
                let mut reader = publisher.reader();
                thread::spawn(move || {
                    let first = **reader.read(&publisher);
                    let second = **reader.read(&publisher);
                    assert!(first <= second, "{second} after {first}");
                    reader
                })
            })
            .collect();

        publisher.publish(1);
        publisher.publish(2);

        for reader in readers {
            let mut reader = reader.join().unwrap();
            assert_eq!(**reader.read(&publisher), 2);
        }
    });
}

#[test]
fn what_was_written_before_a_publication_is_seen_after_it() {
    loom::model(|| {
        let publisher = Arc::new(Publisher::new(0));
        let written = Arc::new(AtomicUsize::new(0));
        let reader = {
            let (publisher, written) = (publisher.clone(), written.clone());
            let mut reader = publisher.reader();
            thread::spawn(move || {
                if **reader.read(&publisher) == 1 {
                    assert_eq!(written.load(Relaxed), 1);
                }
            })
        };

        written.store(1, Relaxed);
        publisher.publish(1);

        reader.join().unwrap();
    });
}

#[test]
fn requests_in_flight_are_counted_exactly() {
    loom::model(|| {
        let node = Arc::new(Node::new(endpoint(1)));
        let threads: Vec<_> = (0..2)
            .map(|index| {
                let held = Arc::new(Held(node.clone()));
                thread::spawn(move || {
                    let attempt = Attempt::new(held.clone());
                    assert!((1..=2).contains(&held.0.in_flight()));
                    if index == 0 { attempt.finish(Outcome::Success) } else { drop(attempt) }
                })
            })
            .collect();

        for thread in threads {
            thread.join().unwrap();
        }

        assert_eq!(node.in_flight(), 0);
    });
}

#[test]
fn open_nodes_are_counted_exactly_when_threads_open_and_close_them_at_once() {
    loom::model(|| {
        let open = OpenNodes::new();
        let node = Arc::new(Node::joining(endpoint(1), open.clone(), None));
        node.open(Gate::Joining);
        let threads = [Gate::Ejected, Gate::Breaker].map(|gate| {
            let node = node.clone();
            thread::spawn(move || {
                assert!(node.close(gate));
                assert!(node.open(gate));
            })
        });

        for thread in threads {
            thread.join().unwrap();
        }

        assert!(node.is_open());
        assert_eq!(open.open.load(SeqCst), 1);
        assert_eq!(open.opened.load(SeqCst), open.closed.load(SeqCst) + 1);
    });
}

#[test]
fn a_transition_is_reported_once_however_many_threads_cause_it() {
    loom::model(|| {
        let open = OpenNodes::new();
        let node = Arc::new(Node::joining(endpoint(1), open.clone(), None));
        node.open(Gate::Joining);
        let threads = [Gate::Ejected, Gate::Breaker, Gate::Ejected].map(|gate| {
            let node = node.clone();
            thread::spawn(move || node.close(gate))
        });

        let news = threads.map(|thread| thread.join().unwrap()).into_iter().filter(|new| *new);

        assert_eq!(news.count(), 2, "the same gate twice is news once");
        assert_eq!((open.closed.load(SeqCst), open.open.load(SeqCst)), (1, 0));
    });
}

#[test]
fn a_weight_that_changes_while_gates_do_leaves_the_count_exact() {
    loom::model(|| {
        let open = OpenNodes::new();
        let node = Arc::new(Node::joining(endpoint(1), open.clone(), None));
        node.open(Gate::Joining);
        let other = node.clone();
        let weights = thread::spawn(move || {
            other.update(endpoint(1).weight(0));
            other.update(endpoint(1).weight(5));
        });

        node.close(Gate::Ejected);
        node.open(Gate::Ejected);
        weights.join().unwrap();

        assert!(node.is_open());
        assert_eq!((open.open.load(SeqCst), node.weight()), (1, 5));
    });
}

#[test]
fn a_pick_that_begins_after_a_node_closed_never_takes_it() {
    for policy in [&P2c as &'static dyn Policy, &RoundRobin] {
        loom::model(move || {
            let nodes = nodes(2);
            let picker: Arc<dyn evenkeel_core::policy::Picker> = policy.build(&nodes, None).into();
            let has_closed = Arc::new(AtomicUsize::new(0));
            let picks = {
                let (nodes, picker) = (nodes.clone(), picker.clone());
                let has_closed = has_closed.clone();
                thread::spawn(move || {
                    let mut rng = Rng::with_seed(1);
                    let after = has_closed.load(SeqCst) == 1;
                    let picked = picker.pick(&nodes, &mut PickContext::new(&mut rng));
                    assert!(picked.is_some(), "the other is open");
                    assert!(!after || picked == Some(1), "it was closed before");
                })
            };

            nodes[0].close(Gate::Ejected);
            has_closed.store(1, SeqCst);

            picks.join().unwrap();
        });
    }
}

#[test]
fn no_observation_of_latency_is_lost() {
    loom::model(|| {
        let latency = Arc::new(PeakEwma::new(Some(Duration::from_secs(10))));
        let now = Timestamp::from_nanos(1 << 50);
        let millis = Duration::from_millis;
        latency.record(Outcome::Success, millis(10), now);
        let threads = [Outcome::Failure, Outcome::Failure].map(|outcome| {
            let latency = latency.clone();
            thread::spawn(move || latency.record(outcome, Duration::from_micros(1), now))
        });

        for thread in threads {
            thread.join().unwrap();
        }

        assert_eq!(latency.estimate().unwrap().as_millis(), 40, "doubled twice");
    });
}

#[test]
fn a_peak_is_never_undercut_by_what_is_measured_at_the_same_time() {
    loom::model(|| {
        let latency = Arc::new(PeakEwma::new(Some(Duration::from_secs(10))));
        let now = Timestamp::from_nanos(1 << 50);
        let threads = [500, 5].map(|millis| {
            let latency = latency.clone();
            thread::spawn(move || {
                latency.record(Outcome::Success, Duration::from_millis(millis), now);
            })
        });

        for thread in threads {
            thread.join().unwrap();
        }

        assert_eq!(latency.estimate().unwrap().as_millis(), 500);
    });
}

#[test]
fn no_turn_is_taken_twice() {
    loom::model(|| {
        let nodes = nodes(4);
        let picker: Arc<dyn evenkeel_core::policy::Picker> = RoundRobin.build(&nodes, None).into();
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let (nodes, picker) = (nodes.clone(), picker.clone());
                thread::spawn(move || {
                    let mut rng = Rng::with_seed(1);
                    let mut pick = || picker.pick(&nodes, &mut PickContext::new(&mut rng));
                    [pick().unwrap(), pick().unwrap()]
                })
            })
            .collect();

        let mut picks: Vec<usize> =
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();

        picks.sort_unstable();
        assert_eq!(picks, [0, 1, 2, 3]);
    });
}

/// Two failures race to open it, and then two calls race for the one trial and its gate.
#[test]
fn one_thread_opens_a_breaker_and_one_call_tries_it() {
    loom::model(|| {
        let mut rules = BreakerRules::default();
        rules.consecutive_failures = Some(2);
        rules.failure_rate = None;
        let breaker = Arc::new(Breaker::new(rules, Rng::with_seed(1)));
        let opens = Arc::new(AtomicUsize::new(0));
        let fail = {
            let (breaker, opens) = (breaker.clone(), opens.clone());
            move || {
                let now = || Timestamp::from_nanos(1);
                if breaker.record(Outcome::Failure, Duration::ZERO, now) {
                    opens.fetch_add(1, SeqCst);
                }
            }
        };
        let other = thread::spawn(fail.clone());
        fail();
        other.join().unwrap();
        assert_eq!(opens.load(SeqCst), 1);

        let node = Arc::new(Node::new("10.0.0.1:80".parse().unwrap()));
        let later = Timestamp::from_nanos(1) + Duration::from_secs(1);
        let trials = Arc::new(AtomicUsize::new(0));
        let try_it = {
            let (breaker, trials, node) = (breaker.clone(), trials.clone(), node.clone());
            move || {
                if let BreakerAdmission::Trial(trial) = breaker.admit(later) {
                    trials.fetch_add(1, SeqCst);
                    node.follow(Gate::Breaker, || breaker.access());
                    breaker.finish_trial(trial, Outcome::Success, Duration::ZERO, later);
                }
                node.follow(Gate::Breaker, || breaker.access());
            }
        };
        let other = thread::spawn(try_it.clone());
        try_it();
        other.join().unwrap();
        assert_eq!(trials.load(SeqCst), 1);
        assert!(node.is_open(), "the gate follows the breaker in the end");
    });
}

/// A probe passes while the endpoint reports that it is unhealthy.
#[test]
fn in_the_end_the_gate_agrees_with_the_known_state_of_its_endpoint() {
    loom::model(|| {
        let now = Timestamp::from_nanos(1 << 50);
        let mut rules = CheckRules::default();
        rules.is_closed_at_first = true;
        let checks = Arc::new(Checks::new(rules, Rng::with_seed(1)));
        let node = nodes(1).remove(0);
        checks.join(&node, now);
        let Next::Probe(ticket) = checks.next(now) else { panic!("it was never probed") };
        let other = {
            let (checks, node) = (checks.clone(), node.clone());
            thread::spawn(move || _ = checks.report(node.address(), false, now))
        };

        checks.finish(ticket, ProbeResult::Passed, now);
        other.join().unwrap();

        assert_eq!(checks.standing(node.address()), Standing::Down, "what it says is newer");
        assert!(!node.is_open(), "by one gate or the other");
    });
}

/// A request ends while the checks decide that none has ended for long.
#[test]
fn a_request_that_ends_an_idle_time_wakes_the_prober_or_is_seen_by_it() {
    loom::model(|| {
        let start = Timestamp::from_nanos(1 << 50);
        let mut rules = CheckRules::default();
        rules.interval_idle = Some(Duration::from_secs(60));
        let checks = Arc::new(Checks::new(rules, Rng::with_seed(1)));
        checks.join(&nodes(1).remove(0), start);
        assert!(checks.record_request(), "it was idle at first");
        _ = checks.next(start);
        let other = {
            let checks = checks.clone();
            thread::spawn(move || checks.record_request())
        };

        // A minute later the request and the look race: whichever comes first, the request is not
        // lost.
        _ = checks.next(start + Duration::from_secs(60));
        let has_to_wake = other.join().unwrap();

        let is_noted = !checks.record_request();
        assert!(has_to_wake || is_noted);
    });
}

/// A request asks for a probe while the only one under way gets its answer.
#[test]
fn a_request_for_a_probe_is_seen_by_the_prober_or_wakes_it() {
    loom::model(|| {
        let now = Timestamp::from_nanos(1 << 50);
        let nodes = nodes(1);
        let picker: Arc<dyn Picker> = Prequal::new().probe_rate(1.0).build(&nodes, None).into();
        let woken = Arc::new(AtomicUsize::new(0));
        let probing = picker.probing().unwrap();
        let count = woken.clone();
        probing.wake_with(move || _ = count.fetch_add(1, SeqCst));
        let mut under_way = None;
        let mut rng = Rng::with_seed(1);
        probing.due(&nodes, &mut rng, now, &mut |ticket| under_way = Some(ticket));
        let other = {
            let (picker, nodes) = (picker.clone(), nodes.clone());
            thread::spawn(move || {
                let mut rng = Rng::with_seed(2);
                assert_eq!(picker.pick(&nodes, &mut PickContext::new(&mut rng)), Some(0));
            })
        };

        under_way.unwrap().record_answer(ServerLoad::new(1.0, Duration::from_millis(1)), now);
        let mut seen = 0;
        probing.due(&nodes, &mut rng, now, &mut |_| seen += 1);
        other.join().unwrap();

        assert_ne!(seen + woken.load(SeqCst), 0, "neither seen nor told");
    });
}

/// Two requests choose from the same pool, and one of them may find the node taken.
#[test]
fn a_pool_that_another_thread_uses_stops_no_request() {
    loom::model(|| {
        let now = Timestamp::from_nanos(1 << 50);
        let nodes = nodes(2);
        let picker: Arc<dyn Picker> = Prequal::new().build(&nodes, None).into();
        let mut rng = Rng::with_seed(1);
        let mut tickets = Vec::new();
        let probing = picker.probing().unwrap();
        probing.due(&nodes, &mut rng, now, &mut |ticket| tickets.push(ticket));
        for ticket in tickets {
            ticket.record_answer(ServerLoad::new(1.0, Duration::from_millis(1)), now);
        }
        let pick = move || {
            let mut rng = Rng::with_seed(2);
            picker.pick(&nodes, &mut PickContext::new(&mut rng)).expect("both are open");
        };
        let other = thread::spawn(pick.clone());
        pick();
        other.join().unwrap();
    });
}

/// A node reports while weights take effect.
#[test]
fn a_report_counts_as_a_whole_or_not_yet() {
    loom::model(|| {
        let now = Timestamp::from_nanos(1 << 50);
        let nodes = nodes(2);
        let policy = ClientSideWeighted::new().blackout(Duration::ZERO);
        let picker: Arc<dyn Picker> = policy.build(&nodes, None).into();
        let report =
            LoadReport { requests_per_second: 10.0, cpu_utilization: 0.5, ..LoadReport::default() };
        nodes[0].report_load(&report, now);
        let other = {
            let (node, report) = (nodes[1].clone(), report.clone());
            thread::spawn(move || node.report_load(&report, now))
        };
        picker.tend(now);
        other.join().unwrap();

        let mut rng = Rng::with_seed(1);
        let picks: Vec<_> =
            (0..4).map(|_| picker.pick(&nodes, &mut PickContext::new(&mut rng))).collect();
        let first = picks.iter().filter(|&&picked| picked == Some(0)).count();
        assert_eq!(first, 2, "both reported the same, or one of them nothing: {picks:?}");
    });
}

#[test]
fn a_servers_requests_in_flight_are_counted_exactly() {
    loom::model(|| {
        let now = Timestamp::from_nanos(1 << 50);
        let estimate = Arc::new(LoadEstimate::new());
        let threads: Vec<_> = (0..2)
            .map(|index| {
                let estimate = estimate.clone();
                thread::spawn(move || {
                    let arrival = estimate.enter();
                    if index == 0 {
                        arrival.record_success(Duration::from_millis(3), now);
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());

        // Reading the latency takes some thousand words, more than can be tried in every order.
        assert_eq!(estimate.in_flight(), 0);
    });
}
