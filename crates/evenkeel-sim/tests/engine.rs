//! Checks the engine against queueing theory.
//!
//! Each figure is the mean of independent runs with their own seeds. A test asserts that the
//! formula lies within the 99.9 % confidence interval of that mean (Student's t), and that the
//! interval is narrow enough to mean something.

use evenkeel_sim::{
    run::{Job, run_all, threads},
    scenario::{Discipline, Positive, Scenario},
};

/// The number of independent runs for each figure.
const RUNS: u64 = 10;

/// The 99.95 % quantile of Student's t with 9 degrees of freedom.
const T: f64 = 4.781;

/// The supermarket model's mean time in system for d = 1 and 2 (Mitzenmacher 2001): the sum over i from 1
/// of λ^((dⁱ-d)/(d-1)).
const SUPERMARKET: [(f64, f64, f64); 5] = [
    (0.5, 2.0, 1.2657),
    (0.7, 3.3333, 1.6145),
    (0.8, 5.0, 1.9474),
    (0.9, 10.0, 2.6141),
    (0.95, 20.0, 3.3830),
];

/// Work is exponential with a mean of one millisecond, so times in the system are in multiples of
/// the mean work.
fn scenario(servers: u32, cores: f64, queue: Discipline, load: f64, calls: u64) -> Scenario {
    let text = format!(
        "name = 'engine'\n[load]\nutilization = {load}\ncalls = {calls}\nwarm_up = '200ms'\n\
         [work]\nmean = '1ms'\n[[servers]]\ncount = {servers}"
    );
    let mut scenario = Scenario::parse("engine", &text).expect("a scenario");
    scenario.servers[0].cores = Positive::new(cores);
    scenario.servers[0].queue = queue;
    scenario
}

/// The mean time over independent runs, and half the width of its confidence interval.
fn mean(scenario: &Scenario, policy: &str) -> (f64, f64) {
    let jobs: Vec<_> =
        (1..=RUNS).map(|seed| Job::new(Scenario { seed, ..scenario.clone() }, policy)).collect();
    let means: Vec<f64> =
        run_all(&jobs, threads(), true).iter().map(|report| report.phase().mean).collect();
    let mean = means.iter().sum::<f64>() / RUNS as f64;
    let squares: f64 = means.iter().map(|each| (each - mean).powi(2)).sum();
    let error = (squares / (RUNS - 1) as f64 / RUNS as f64).sqrt();
    (mean, T * error)
}

/// `bias` is how far the model itself may be off, as a share: it is exact only for infinitely many
/// servers.
fn assert_is(what: &str, (mean, half_width): (f64, f64), expected: f64, bias: f64, max_width: f64) {
    let text = format!("{what}: {mean:.4} ± {half_width:.4}, expected {expected:.4}");
    println!("{text}");
    assert!((mean - expected).abs() <= half_width + bias * expected, "{text}");
    assert!(half_width <= max_width * expected, "too uncertain: {text}");
}

/// The mean time in an M/M/n system with a central queue, in multiples of the mean work (Erlang's C
/// formula).
fn erlang(servers: u32, load: f64) -> f64 {
    let n = f64::from(servers);
    let offered = n * load;
    // Erlang's B by its recursion, then C from B.
    let b = (1..=servers).fold(1.0, |b, k| offered * b / (f64::from(k) + offered * b));
    let waits = b / (1.0 - load * (1.0 - b));
    1.0 + waits / (n * (1.0 - load))
}

#[test]
fn one_server_is_an_m_m_1_queue_whether_it_queues_or_shares() {
    for load in [0.5, 0.8] {
        for queue in [Discipline::Fifo, Discipline::ProcessorSharing] {
            // A hundred servers, each with its own queue: random splitting keeps arrivals Poisson.
            let scenario = scenario(100, 1.0, queue, load, 100_000);
            let what = format!("M/M/1 at {load}, {queue:?}");
            assert_is(&what, mean(&scenario, "random"), 1.0 / (1.0 - load), 0.0, 0.06);
        }
    }
}

#[test]
fn a_server_of_n_cores_is_an_m_m_n_queue() {
    for (cores, load) in [(2, 0.8), (10, 0.9)] {
        let scenario = scenario(1, f64::from(cores), Discipline::Fifo, load, 500_000);
        let what = format!("M/M/{cores} at {load}");
        assert_is(&what, mean(&scenario, "random"), erlang(cores, load), 0.0, 0.06);
    }
}

#[test]
fn least_loaded_lies_between_a_central_queue_and_two_choices() {
    let scenario = scenario(20, 1.0, Discipline::Fifo, 0.9, 100_000);
    let (least, least_width) = mean(&scenario, "least_loaded");
    let (two, two_width) = mean(&scenario, "p2c");

    assert!(erlang(20, 0.9) < least + least_width, "better than a central queue: {least}");
    assert!(least + least_width < two - two_width, "{least} is not better than {two}");
}

#[test]
fn p2c_takes_the_times_of_the_supermarket_model() {
    for (load, _, expected) in SUPERMARKET {
        let scenario = scenario(500, 1.0, Discipline::Fifo, load, 200_000);
        // Five hundred servers and two distinct choices: less than a hundredth off the limit.
        assert_is(&format!("p2c at {load}"), mean(&scenario, "p2c"), expected, 0.01, 0.05);
    }
}

#[test]
fn random_takes_the_times_of_the_supermarket_model_with_one_choice() {
    for (load, expected, _) in &SUPERMARKET[..3] {
        let scenario = scenario(500, 1.0, Discipline::Fifo, *load, 200_000);
        assert_is(&format!("random at {load}"), mean(&scenario, "random"), *expected, 0.0, 0.06);
    }
}

#[test]
fn the_formulas_agree_where_they_must() {
    assert!((erlang(1, 0.8) - 5.0).abs() < 1e-12);
    for (load, one, two) in SUPERMARKET {
        let sum = |d: f64| -> f64 {
            (1..60)
                .map(|i| {
                    let exponent =
                        if d == 1.0 { f64::from(i - 1) } else { (d.powi(i) - d) / (d - 1.0) };
                    load.powf(exponent)
                })
                .sum()
        };
        assert!((sum(2.0) - two).abs() < 1e-4, "{load}: {}", sum(2.0));
        assert!((1.0 / (1.0 - load) - one).abs() < 1e-4);
    }
}
