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
        evenkeel_metrics::retried(&client, "timeout");
        evenkeel_metrics::retried(&client, "a word of no list");
        evenkeel_metrics::not_retried(&client, "exhausted");
        evenkeel_metrics::hedged(&client);
        evenkeel_metrics::not_hedged(&client, "no_budget");
        evenkeel_metrics::hedge_ended(&client, true, true);
        evenkeel_metrics::breaker_changed(&client, "open");
        evenkeel_metrics::ejected(&client, "latency");
        evenkeel_metrics::published(&client, 3);
        evenkeel_metrics::balancer_refused(&client, "no_endpoints");
        evenkeel_metrics::rate_limited(&client, "key");
        evenkeel_metrics::quota_failed(true);
        evenkeel_metrics::drain_cut(3);
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
        series.ended(&failure);
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
