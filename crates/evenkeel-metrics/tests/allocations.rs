//! If no recorder is installed, an event costs no allocation.
//!
//! This test has a binary of its own, because it replaces the global allocator.

use std::time::Duration;

use allocation_counter::measure;
use evenkeel_core::{
    node::Gate,
    observe::{Fault, Report},
    outcome::Outcome,
};
use evenkeel_metrics::{Client, Series};

#[test]
fn events_allocate_nothing_without_a_recorder() {
    let client = Client::default();

    let allocations = measure(|| {
        evenkeel_metrics::count_retry(&client, "timeout");
        evenkeel_metrics::count_retry(&client, "a word of no list");
        evenkeel_metrics::count_retry_refusal(&client, "exhausted");
        evenkeel_metrics::count_hedge(&client);
        evenkeel_metrics::count_hedge_refusal(&client, "no_budget");
        evenkeel_metrics::count_hedge_end(&client, true, true);
        evenkeel_metrics::count_breaker_transition(&client, "open");
        evenkeel_metrics::count_ejection(&client, "latency");
        evenkeel_metrics::count_snapshot(&client, 3);
        evenkeel_metrics::count_balancer_refusal(&client, "no_endpoints");
        evenkeel_metrics::count_rate_limit_refusal(&client, "key");
        evenkeel_metrics::count_quota_failure(true);
        evenkeel_metrics::count_drain_cut(3);
    });

    assert_eq!(allocations.count_total, 0);
}

#[test]
fn an_attempt_allocates_nothing_and_a_gate_only_the_first_time() {
    let client = evenkeel_metrics::named("greeter", Client::current);
    let series = Series::of_endpoint(Some(&"10.0.0.1:80".parse().unwrap()), &client);
    let failure = Report::new(Outcome::Failure, Duration::from_millis(3)).fault(Fault::Local);

    let attempt = || {
        let active = series.begin();
        series.end(&failure);
        drop(active);
    };
    let turn = || {
        series.follow(Gate::Limit, || true);
        series.follow(Gate::Limit, || false);
    };
    turn();

    assert_eq!(measure(attempt).count_total, 0);
    assert_eq!(measure(turn).count_total, 0);
}
