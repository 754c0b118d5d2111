//! The metrics of evenkeel. All names are in the table below; no other crate of evenkeel contains
//! one.
//!
//! With the feature `metrics`, they go to the recorder of the
//! [`metrics`](https://github.com/metrics-rs/metrics) facade that the program has installed:
//! Prometheus, OpenTelemetry, StatsD. Without the feature, each function here is empty. Install the
//! recorder first and build the stack afterwards: layers look up the series of an endpoint when it
//! joins.
//!
//! ```
//! # #[cfg(feature = "metrics")] {
//! let recorder = metrics_util::debugging::DebuggingRecorder::new();
//! let snapshotter = recorder.snapshotter();
//! recorder.install().expect("the first recorder of this program");
//! evenkeel::metrics::describe();
//!
//! // What `RetryLayer` does in a stack that was built within `named("orders", ..)`.
//! let client = evenkeel::metrics::named("orders", evenkeel::metrics::Client::current);
//! evenkeel::metrics::count_retry(&client, "timeout");
//!
//! let (key, unit, ..) = snapshotter.snapshot().into_vec().remove(0);
//! assert_eq!(key.key().to_string(), "Key(evenkeel.retries, [client = orders, error.type = timeout])");
//! assert_eq!(unit, Some(metrics::Unit::Count));
//! # }
//! ```
//!
//! Names and labels follow OpenTelemetry's conventions where those exist (`server.address`,
//! `server.port`, `error.type`). An exporter for Prometheus replaces dots with underscores.
//! Durations are in seconds. All labels except those of the endpoint and the client have a fixed
//! set of values.
//!
//! If a program has more than one client, it names each where it builds the stack: see [`named`].
//! All metrics of that stack then have the label `client`, in addition to the labels of the table.
//! The metrics of discoveries, of draining and of a shared quota cover the whole process, because
//! several clients may share these.
//!

#![cfg_attr(docsrs, feature(doc_cfg))]
#![doc = include_str!("metrics.md")]
//!
//! *endpoint* stands for the labels `server.address` and `server.port`, if the endpoint is known.
//! `outcome` is `success`, `failure`, `throttled` or `ignored`. A failure has an `error.type`:
//! `server`, `gateway` (502, 503, 504), or `local` (no answer). `gate` is `draining`, `broken`,
//! `ejected`, `breaker`, `unhealthy`, `limit`, `rate_limit` or `unchecked`.
//!
//! # What remains of an endpoint that has left
//! Its gauges fall to zero. Its counters and histograms keep their values, because the facade
//! cannot remove a series. Exporters can remove it after an idle time (`idle_timeout` of the
//! Prometheus exporter), and `ObserveLayer::max_endpoints` limits how many endpoints get their own
//! series.
//!
//! # What it costs
//! An attempt updates one counter, one histogram and one gauge twice. Their handles are made when
//! the endpoint joins. All other metrics are rare events that look their series up. They allocate
//! only the labels of a named client, and an endpoint's gate allocates only when it closes for the
//! first time.

mod client;
#[cfg(feature = "metrics")]
mod series;
#[cfg(not(feature = "metrics"))]
mod silent;

pub use self::client::{Client, named};
#[cfg(feature = "metrics")]
pub use self::series::{Held, Series};
#[cfg(not(feature = "metrics"))]
pub use self::silent::{Held, Series};

/// Whether this crate was built with metrics.
pub const IS_ON: bool = cfg!(feature = "metrics");

/// Counts one event of a client. A label has one of a list of values, so that its series needs no
/// allocation unless the client has a name.
#[cfg(feature = "metrics")]
macro_rules! count {
    ($client:expr, $name:tt, $number:expr) => {
        match $client.label() {
            None => ::metrics::counter!($name).increment($number),
            Some(client) => ::metrics::counter!($name, vec![client]).increment($number),
        }
    };
    ($client:expr, $name:tt, $number:expr, $label:tt, $value:expr, [$($word:tt)*]) => {
        match $client.label() {
            None => match $value {
                $($word => ::metrics::counter!($name, $label => $word).increment($number),)*
                _ => ::metrics::counter!($name, $label => "_OTHER").increment($number),
            },
            Some(client) => {
                let word = match $value {
                    $($word => $word,)*
                    _ => "_OTHER",
                };
                let labels = vec![client, ::metrics::Label::from_static_parts($label, word)];
                ::metrics::counter!($name, labels).increment($number);
            }
        }
    };
}

#[cfg(not(feature = "metrics"))]
macro_rules! count {
    ($client:expr, $name:tt, $number:expr $(, $label:tt, $value:expr, [$($word:tt)*])?) => {{
        let _ = ($client, $number);
        $(let _ = $value;)?
    }};
}

/// Counts a retry after an attempt that ended with `error_type`.
#[inline]
pub fn count_retry(client: &Client, error_type: &str) {
    count!(client, "evenkeel.retries", 1, "error.type", error_type,
        ["unsent" "timeout" "throttled" "failed"]);
}

/// Counts a failed call that is not retried, for `reason`.
#[inline]
pub fn count_retry_refusal(client: &Client, reason: &str) {
    count!(client, "evenkeel.retry.refusals", 1, "reason", reason,
        ["exhausted" "no_budget" "too_late" "not_repeatable" "forbidden"]);
}

/// Counts a second attempt that was sent.
#[inline]
pub fn count_hedge(client: &Client) {
    count!(client, "evenkeel.hedges", 1);
}

/// Counts a second attempt that was due but not made, for `reason`.
#[inline]
pub fn count_hedge_refusal(client: &Client, reason: &str) {
    count!(client, "evenkeel.hedge.refusals", 1, "reason", reason,
        ["no_budget" "too_late" "not_repeatable" "not_ready"]);
}

/// Counts the end of a hedged call: whether the second attempt answered it, and whether an attempt
/// was cancelled.
#[inline]
pub fn count_hedge_end(client: &Client, has_won: bool, is_cancelled: bool) {
    if has_won {
        count!(client, "evenkeel.hedge.wins", 1);
    }
    if is_cancelled {
        count!(client, "evenkeel.hedge.cancellations", 1);
    }
}

/// Counts a circuit breaker that went to `state`.
#[inline]
pub fn count_breaker_transition(client: &Client, state: &str) {
    count!(client, "evenkeel.breaker.transitions", 1, "state", state,
        ["closed" "open" "half_open" "held_open" "held_closed"]);
}

/// Counts a call that a circuit breaker outside a balancer refused.
#[inline]
pub fn count_breaker_refusal(client: &Client) {
    count!(client, "evenkeel.breaker.refusals", 1);
}

/// Counts an ejection of an endpoint for `cause`.
#[inline]
pub fn count_ejection(client: &Client, cause: &str) {
    count!(client, "evenkeel.outlier.ejections", 1, "cause", cause,
        ["consecutive_errors" "consecutive_gateway_errors" "consecutive_local_errors" "success_rate"
         "failure_percentage" "latency" "probation"]);
}

/// Counts an ejection that ended.
#[inline]
pub fn count_return(client: &Client) {
    count!(client, "evenkeel.outlier.returns", 1);
}

/// Counts a published set of a balancer, which has `difference` endpoints more or fewer than
/// before.
#[inline]
pub fn count_snapshot(client: &Client, difference: isize) {
    count!(client, "evenkeel.balance.snapshots", 1);
    add_endpoints(client, difference);
}

/// Adds `difference` to the number of endpoints in the sets of all balancers.
#[inline]
pub fn add_endpoints(client: &Client, difference: isize) {
    #[cfg(feature = "metrics")]
    {
        let labels: Vec<_> = client.label().into_iter().collect();
        ::metrics::gauge!("evenkeel.balance.endpoints", labels).increment(difference as f64);
    }
    #[cfg(not(feature = "metrics"))]
    let _ = (client, difference);
}

/// Counts a failure of a source of endpoints, also if it failed before.
#[inline]
pub fn count_source_failure() {
    count!(&Client::default(), "evenkeel.discovery.failures", 1);
}

/// Marks a source of endpoints as failing, until the returned value is dropped.
#[inline]
pub fn mark_source_failing() -> Held {
    #[cfg(feature = "metrics")]
    return Held::new(::metrics::gauge!("evenkeel.discovery.failing"));
    #[cfg(not(feature = "metrics"))]
    Held(())
}

/// Counts a failure of a discovery.
#[inline]
pub fn count_discovery_failure(client: &Client) {
    count!(client, "evenkeel.balance.discovery_errors", 1);
}

/// Counts the start of a wait, because no endpoint is open.
#[inline]
pub fn count_balancer_wait(client: &Client) {
    count!(client, "evenkeel.balance.waits", 1);
}

/// Counts another pick for the same request, for `reason`.
#[inline]
pub fn count_repick(client: &Client, reason: &str) {
    count!(client, "evenkeel.balance.repicks", 1, "reason", reason, ["not_ready" "failed"]);
}

/// Counts a request to an endpoint that only its health closes.
#[inline]
pub fn count_fail_open(client: &Client) {
    count!(client, "evenkeel.balance.fail_open", 1);
}

/// Counts a request that a balancer refused with `error_type`.
#[inline]
pub fn count_balancer_refusal(client: &Client, error_type: &str) {
    count!(client, "evenkeel.balance.refusals", 1, "error.type", error_type,
        ["no_endpoints" "all_endpoints_closed" "all_endpoints_excluded"
         "no_endpoint_picked"]);
}

/// Counts a call that exceeded its deadline.
#[inline]
pub fn count_deadline_exceeded(client: &Client) {
    count!(client, "evenkeel.deadline.exceeded", 1);
}

/// Counts a probe of an endpoint's load.
#[inline]
pub fn count_load_probe(client: &Client, is_answered: bool) {
    let outcome = if is_answered { "success" } else { "failure" };
    count!(client, "evenkeel.balance.load_probes", 1, "outcome", outcome, ["success" "failure"]);
}

/// Counts an active health check.
#[inline]
pub fn count_health_check(client: &Client, has_passed: bool) {
    let outcome = if has_passed { "success" } else { "failure" };
    count!(client, "evenkeel.health.checks", 1, "outcome", outcome, ["success" "failure"]);
}

/// Counts a change of an endpoint's state by active health checks.
#[inline]
pub fn count_health_transition(client: &Client, is_healthy: bool) {
    let state = if is_healthy { "healthy" } else { "unhealthy" };
    count!(client, "evenkeel.health.transitions", 1, "state", state, ["healthy" "unhealthy"]);
}

/// Counts a request that a concurrency limit refused.
#[inline]
pub fn count_limit_refusal(client: &Client) {
    count!(client, "evenkeel.limit.refusals", 1);
}

/// Counts a request that a rate limit refused. `scope` is `service`, `key` or `endpoint`.
#[inline]
pub fn count_rate_limit_refusal(client: &Client, scope: &str) {
    count!(client, "evenkeel.rate_limit.refusals", 1, "scope", scope, ["service" "key" "endpoint"]);
}

/// Counts a request that a server refused because of its queue.
#[inline]
pub fn count_shed(client: &Client) {
    count!(client, "evenkeel.admission.shed", 1);
}

/// Counts a request that a client refused because the server would have refused it.
#[inline]
pub fn count_throttle(client: &Client) {
    count!(client, "evenkeel.admission.throttled", 1);
}

/// Counts a request that was refused while no endpoint could be reached.
#[inline]
pub fn count_fail_fast_refusal(client: &Client) {
    count!(client, "evenkeel.fail_fast.refusals", 1);
}

/// Counts a call that was to be mirrored, by the outcome of its copy.
#[inline]
pub fn count_mirror_copy(client: &Client, outcome: &str) {
    count!(client, "evenkeel.mirror.copies", 1, "outcome", outcome,
        ["success" "failure" "timeout" "full" "incomplete"]);
}

/// Counts a request for which the shared quota could not be asked. It was allowed or refused.
#[inline]
pub fn count_quota_failure(is_allowed: bool) {
    let action = if is_allowed { "allowed" } else { "refused" };
    count!(&Client::default(), "evenkeel.quota.failures", 1, "action", action, ["allowed" "refused"]);
}

/// Counts the requests that a graceful stop cut off.
#[inline]
pub fn count_drain_cut(requests: u64) {
    count!(&Client::default(), "evenkeel.drain.cut", requests);
}

/// Describes each metric to the recorder, with its unit and its meaning from the table above. Call
/// it once, after installing the recorder.
#[cfg(feature = "metrics")]
pub fn describe() {
    use ::metrics::Unit;
    for [name, kind, _, when] in table() {
        match kind.split(',').next() {
            Some("counter") => ::metrics::describe_counter!(name, Unit::Count, when),
            Some("gauge") => ::metrics::describe_gauge!(name, Unit::Count, when),
            _ => ::metrics::describe_histogram!(name, Unit::Seconds, when),
        }
    }
}

/// The name, kind, labels and meaning of each metric. The table above is their only list.
#[cfg(feature = "metrics")]
fn table() -> impl Iterator<Item = [&'static str; 4]> {
    include_str!("metrics.md").lines().filter_map(|line| {
        let cells: Vec<_> = line.trim_matches(['|', ' ']).split(" | ").collect();
        let [name, kind, labels, when] = cells[..] else { return None };
        let name = name.trim_matches('`');
        name.starts_with("evenkeel.").then_some([name, kind, labels, when])
    })
}

#[cfg(all(test, feature = "metrics"))]
mod tests {
    use std::collections::BTreeSet;

    use evenkeel_core::node::Gate;
    use metrics_util::debugging::DebugValue;

    use super::*;

    fn names_in(text: &str) -> BTreeSet<&str> {
        let words = text.split('"');
        words
            .filter(|word| word.starts_with("evenkeel.") && "evenkeel.".len() < word.len())
            .collect()
    }

    #[test]
    fn the_table_has_every_name_and_no_other() {
        let (sources, _) = include_str!("lib.rs").split_once("#[cfg(all(test").unwrap();
        let named = &names_in(sources) | &names_in(include_str!("series.rs"));
        let rows: Vec<_> = table().collect();

        assert_eq!(rows.iter().map(|[name, ..]| *name).collect::<BTreeSet<_>>(), named);
        assert_eq!(rows.len(), named.len(), "each once");
        for [name, kind, ..] in rows {
            assert!(["counter", "gauge", "histogram, s"].contains(&kind), "{name}: {kind}");
        }
    }

    #[test]
    fn a_recorder_gets_the_unit_and_meaning_of_a_metric() {
        let recorder = metrics_util::debugging::DebuggingRecorder::new();

        ::metrics::with_local_recorder(&recorder, || {
            describe();
            drop(Series::of_client(&Client::default()));
        });

        let described = recorder.snapshotter().snapshot().into_vec();
        let (_, unit, meaning, _) = described
            .iter()
            .find(|(key, ..)| key.key().name() == "evenkeel.call.duration")
            .unwrap();
        assert_eq!(*unit, Some(::metrics::Unit::Seconds));
        assert!(!meaning.as_ref().unwrap().is_empty());
    }

    #[test]
    fn an_endpoint_that_leaves_closes_no_gate() {
        let recorder = metrics_util::debugging::DebuggingRecorder::new();
        let address = "10.0.0.1:80".parse().unwrap();

        ::metrics::with_local_recorder(&recorder, || {
            let series = Series::of_endpoint(Some(&address), &Client::default());
            let gates = Gate::ALL.into_iter().filter(|gate| *gate != Gate::Retired);
            gates.for_each(|gate| series.follow(gate, || true));
            series.follow(Gate::Retired, || true);
        });

        let recorded = recorder.snapshotter().snapshot().into_vec();
        let values_of = |name| {
            let of_name = recorded.iter().filter(move |(key, ..)| key.key().name() == name);
            of_name.map(|(.., value)| value)
        };
        // All gates except the gate of joining, which is not shown, and the gate of leaving.
        assert_eq!(values_of("evenkeel.endpoint.closings").count(), Gate::ALL.len() - 2);
        for value in values_of("evenkeel.endpoint.closed") {
            assert_eq!(*value, DebugValue::Gauge(0.0.into()));
        }
    }
}
