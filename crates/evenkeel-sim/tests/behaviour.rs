//! What runs do: the same seed gives the same run, and fleets behave as expected.

use evenkeel_core::policy;
use evenkeel_sim::{
    policies,
    report::{PhaseReport, Report},
    run::{Job, run_all},
    scenario::{Call, Hedge, Outlier, Positive, Retry, Scenario, Share, SubsetBy, Time},
};

fn run(scenario: &Scenario, policy: &str) -> Report {
    run_all(&[Job::new(scenario.clone(), policy)], 1, true).remove(0)
}

fn phase(scenario: &Scenario, policy: &str) -> PhaseReport {
    run(scenario, policy).phase().clone()
}

fn scenario(load: &str, servers: &str) -> Scenario {
    let text =
        format!("name = 'a test'\n[load]\n{load}\n[work]\nmean = '10ms'\n[[servers]]\n{servers}");
    Scenario::parse("test", &text).expect("it makes sense")
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    // Every part that draws random numbers: zones, jitter, ejection, retries, hedges, breakers,
    // antagonists.
    let texts = [
        include_str!("../scenarios/zones.toml"),
        include_str!("../scenarios/flapping.toml"),
        include_str!("../scenarios/tail.toml"),
        include_str!("../scenarios/antagonists.toml"),
        include_str!("../scenarios/cold_caches.toml"),
    ];
    for text in texts {
        let mut scenario = Scenario::parse("same", text).unwrap();
        scenario.load.calls = Some(3_000);
        let bytes = |seed: u64, threads: usize| {
            let scenario = Scenario { seed, ..scenario.clone() };
            let policies = ["p2c", "peak_ewma", "client_side_weighted_round_robin", "prequal"];
            let jobs = policies.map(|policy| Job::new(scenario.clone(), policy));
            serde_json::to_string(&run_all(&jobs, threads, true)).unwrap()
        };
        let first = bytes(7, 2);
        assert!(first == bytes(7, 1), "{}: two runs differ", scenario.name);
        assert!(first != bytes(8, 1), "{}: the seed changes nothing", scenario.name);
    }
}

#[test]
fn every_call_ends_and_is_counted_once_with_every_policy() {
    for policy in policy::names() {
        let phase = phase(&scenario("utilization = 0.5\ncalls = 5_000", "count = 7"), policy);
        assert_eq!(phase.calls, 5_000, "{policy}");
        assert_eq!(phase.attempts, 5_000, "{policy}");
        assert_eq!((phase.errors, phase.wasted), (0, 0), "{policy}");
    }
}

#[test]
fn a_client_keeps_to_its_zone_as_far_as_the_zone_can_carry_it() {
    let mut zones = Scenario::built_in("zones").unwrap();
    zones.load.calls = Some(30_000);
    let crossing = |policy: &str| {
        let phase = phase(&zones, policy);
        phase.crossing as f64 / phase.attempts as f64
    };
    // A third of the servers for half of the clients: a third of their attempts have to cross.
    assert!((0.48..0.52).contains(&crossing("p2c")));
    assert!((0.15..0.18).contains(&crossing("zone_aware")));
    assert_eq!(crossing("prefer_zone"), 0.0);
}

#[test]
fn subsets_give_each_client_as_many_servers_and_some_give_each_server_as_many_clients() {
    let mut subsets = Scenario::built_in("subsets").unwrap();
    (subsets.load.lasts, subsets.load.warm_up) = (Some(Time::millis(3_000)), Time::millis(0));
    let connections = |rule: SubsetBy| {
        let mut scenario = subsets.clone();
        scenario.clients.subset_by = rule;
        let report = run(&scenario, "round_robin");
        (report.connections_mean.round(), report.connections_max)
    };
    let (mean, most) = connections(SubsetBy::Random);
    assert!(mean == 100.0 && 115 < most, "{mean}, {most}");
    assert_eq!(connections(SubsetBy::Rocksteadier), (100.0, 100));
    assert!(connections(SubsetBy::Aperture).1 <= 107, "the bound of the documentation");
}

const FAILING: &str = "count = 1\ncores = 100\nfaults = [{ kind = 'fails', after = '100us' }]\n\
                       [[servers]]\ncount = 4\ncores = 100";

#[test]
fn an_endpoint_that_fails_fast_draws_no_traffic_where_failures_count() {
    let scenario = scenario("concurrency = 64\nlasts = '5s'", FAILING);
    for policy in ["peak_ewma", "prequal"] {
        let share = phase(&scenario, policy).group_share(0);
        assert!(share < 0.2, "{policy}: {share}, the fair share is 0.2");
    }
    for policy in ["tower_p2c", "tower_peak_ewma"] {
        let share = phase(&scenario, policy).group_share(0);
        assert!((share - 0.395).abs() < 0.02, "{policy}: {share}, elsewhere 0.395 was measured");
    }
}

#[test]
fn with_ejection_a_failing_server_gets_at_most_a_hundredth_after_a_second() {
    let mut scenario = scenario("concurrency = 64\nlasts = '2500ms'", FAILING);
    scenario.outlier = Some(Outlier::default());
    for policy in policies::balancing() {
        let later: Vec<_> = run(&scenario, policy).series.into_iter().skip(1).collect();
        let failing: u32 = later.iter().map(|bucket| bucket.attempts[0]).sum();
        let all: u32 = later.iter().flat_map(|bucket| &bucket.attempts).sum();
        assert!(1_000 < all, "{policy}");
        assert!(f64::from(failing) < 0.01 * f64::from(all), "{policy}: {failing} of {all}");
    }
}

#[test]
fn an_ejected_server_returns_when_it_is_well() {
    let servers = "count = 1\nfaults = [{ kind = 'fails', lasts = '2s' }]\n[[servers]]\ncount = 4";
    let mut scenario = scenario("rate = 100\nlasts = '20s'", servers);
    let min_ejection = Some(Time::millis(3_000));
    scenario.outlier = Some(Outlier { min_ejection, ..Outlier::default() });

    let report = run(&scenario, "round_robin");

    let at = |second: usize| report.series[second].attempts[0];
    assert!(at(2) <= 1, "it is ejected");
    assert!(15 < at(15), "it has its share again: {}", at(15));
}

#[test]
fn failed_calls_are_tried_elsewhere_within_the_budget() {
    let servers = "count = 1\nfaults = [{ kind = 'refuses' }]\n[[servers]]\ncount = 9";
    let mut scenario = scenario("rate = 200\ncalls = 4_000", servers);
    let bare = phase(&scenario, "round_robin");
    scenario.retry =
        Some(Retry { attempts: 3, budget: evenkeel_sim::scenario::Factor::new(20.0), floor: 10 });
    let retried = phase(&scenario, "round_robin");

    assert_eq!(bare.errors, 400);
    assert_eq!(retried.errors, 0);
    assert_eq!(retried.attempts, retried.calls + retried.wasted);
}

#[test]
fn a_retry_storm_is_bounded_by_the_budget() {
    let mut scenario =
        scenario("rate = 1_000\ncalls = 20_000", "count = 3\nfaults = [{ kind = 'fails' }]");
    scenario.retry =
        Some(Retry { attempts: 8, budget: evenkeel_sim::scenario::Factor::new(20.0), floor: 0 });
    let phase = phase(&scenario, "p2c");

    assert_eq!(phase.errors, phase.calls);
    let factor = phase.attempts as f64 / phase.calls as f64;
    assert!((1.15..=1.2).contains(&factor), "{factor} attempts a call");
}

#[test]
fn a_call_to_a_server_that_hangs_ends_at_its_deadline() {
    let mut scenario = scenario("rate = 10\ncalls = 100", "count = 1");
    scenario.call = Call { deadline: Some(Time::millis(200)), attempt_timeout: None };
    scenario.servers[0].faults = hanging();
    let phase = phase(&scenario, "random");

    assert_eq!((phase.errors, phase.timeouts), (100, 100));
    assert!((phase.p50 - 200.0).abs() < 1.0, "{}", phase.p50);
}

fn hanging() -> Vec<evenkeel_sim::scenario::Fault> {
    let text = "count = 1\nfaults = [{ kind = 'hangs' }]\n[call]\ndeadline = '1s'";
    scenario("rate = 1\ncalls = 1", text).servers[0].faults.clone()
}

#[test]
fn hedges_cut_the_tail_for_a_few_attempts_more() {
    let mut scenario = scenario("utilization = 0.3\ncalls = 30_000", "count = 10\ncores = 4");
    scenario.servers.push(scenario.servers[0].clone());
    scenario.servers[1].pace = Positive::new(0.05);
    scenario.servers[1].count = 1;
    let bare = phase(&scenario, "round_robin");
    scenario.hedge = Some(Hedge {
        percentile: Some(Positive::new(95.0)),
        after: None,
        budget: evenkeel_sim::scenario::Factor::new(10.0),
    });
    let hedged = phase(&scenario, "round_robin");

    assert!(hedged.p99 < 0.5 * bare.p99, "{} {}", hedged.p99, bare.p99);
    let more = hedged.attempts as f64 / hedged.calls as f64;
    assert!(1.01 < more && more < 1.12, "{more} attempts a call");
}

#[test]
fn breakers_open_and_are_tried_again() {
    let servers =
        "count = 1\nfaults = [{ kind = 'fails', at = '5s', lasts = '5s' }]\n[[servers]]\ncount = 4";
    let mut scenario = scenario("rate = 200\nlasts = '30s'", servers);
    scenario.breaker = Some(evenkeel_sim::scenario::Breaker::default());

    let report = run(&scenario, "round_robin");

    let at = |second: usize| report.series[second].attempts[0];
    assert!(30 < at(2), "closed");
    assert!(at(7) < 5, "open but for a trial: {}", at(7));
    assert!(30 < at(25), "closed again: {}", at(25));
}

#[test]
fn servers_join_and_leave_at_the_configured_times() {
    let servers = "count = 4\n[[servers]]\ncount = 1\njoins = '3s'\nleaves = '6s'";
    let report = run(&scenario("rate = 300\nlasts = '9s'", servers), "p2c");

    let of_newcomer: Vec<_> = report.series.iter().map(|bucket| bucket.attempts[1]).collect();
    assert!(of_newcomer[..3].iter().chain(&of_newcomer[6..]).all(|attempts| *attempts == 0));
    assert!(of_newcomer[3..6].iter().all(|attempts| 30 < *attempts), "{of_newcomer:?}");
}

#[test]
fn messages_between_zones_take_longer() {
    let text = "count = 1\nzone = 'a'\n[network]\ndelay = '1ms'\nbetween_zones = '20ms'\n\
                [clients]\nzones = ['ZONE']";
    let p50 = |zone: &str| {
        let mut near = scenario("rate = 5\ncalls = 400", &text.replace("ZONE", zone));
        near.work.law = evenkeel_sim::scenario::Law::Fixed;
        phase(&near, "random").p50
    };
    assert!((p50("a") - 12.0).abs() < 0.1, "{}", p50("a"));
    assert!((p50("b") - 50.0).abs() < 0.1, "{}", p50("b"));
}

#[test]
fn a_tenth_of_the_failures_is_a_tenth_of_the_errors() {
    let mut scenario =
        scenario("rate = 100\ncalls = 20_000", "count = 2\nfaults = [{ kind = 'fails' }]");
    scenario.servers[0].faults[0].share = Share::new(0.1);
    let errors = phase(&scenario, "random").error_share();
    assert!((errors - 0.1).abs() < 0.01, "{errors}");
}

#[test]
fn steps_of_a_ramp_are_counted_apart() {
    let load = "steps = [{ name = 'low', utilization = 0.1, lasts = '20s' }, \
                { name = 'high', utilization = 0.9, lasts = '20s', settles = '5s' }]";
    let report = run(&scenario(load, "count = 3"), "p2c");

    let [low, high] = &report.phases[..] else { panic!("two steps") };
    assert_eq!((low.name.as_str(), high.name.as_str()), ("low", "high"));
    assert!(low.mean < high.mean);
    assert!((high.seconds - 15.0).abs() < 0.1, "{}", high.seconds);
}
