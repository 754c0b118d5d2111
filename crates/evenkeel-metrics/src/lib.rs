//! The metrics of evenkeel. Every name is in the table below, and no other crate of it knows one.
//!
//! With the feature `metrics` they go to the recorder of the [`metrics`](https://github.com/metrics-rs/metrics) facade
//! that the program has installed: Prometheus, OpenTelemetry, StatsD. Without it each function here is
//! empty. Install the recorder first and build the stack afterwards: what counts per endpoint takes hold
//! of its series when the endpoint joins.
//!
//! ```
//! # #[cfg(feature = "metrics")] {
//! let recorder = metrics_util::debugging::DebuggingRecorder::new();
//! let snapshotter = recorder.snapshotter();
//! recorder.install().expect("the first recorder of this program");
//! evenkeel_metrics::describe();
//!
//! // What `RetryLayer` does in a stack that was built within `named("orders", ..)`.
//! let client = evenkeel_metrics::named("orders", evenkeel_metrics::Client::current);
//! evenkeel_metrics::retried(&client, "timeout");
//!
//! let (key, unit, ..) = snapshotter.snapshot().into_vec().remove(0);
//! assert_eq!(key.key().to_string(), "Key(evenkeel.retries, [client = orders, error.type = timeout])");
//! assert_eq!(unit, Some(metrics::Unit::Count));
//! # }
//! ```
//!
//! Names and labels are OpenTelemetry's where it has them (`server.address`, `server.port`,
//! `error.type`); an exporter for Prometheus makes underscores of the dots. Durations are in seconds.
//! All labels but the endpoint's and the client's are words of a fixed list.
//!
//! A program that has more than one client gives each a name, once, where it builds its stack: [`named`]. All
//! that its layers count has the label `client` then, besides those of the table. What discoveries, a drain and a
//! shared quota count is for the whole process: several clients may share them.
//!
#![doc = include_str!("metrics.md")]
//!
//! *endpoint* stands for `server.address` and `server.port` where there is one. `outcome` is `success`, `failure`, `throttled` or `ignored`; a failure has an
//! `error.type`: `server`, `gateway` (502, 503, 504), or `local` (no answer). `gate` is `draining`,
//! `broken`, `ejected`, `breaker`, `unhealthy`, `limit`, `rate_limit` or `unchecked`.
//!
//! # What stays of an endpoint that left
//! Its gauges fall to zero. Its counters and histograms stay as they are: the facade cannot take a series
//! back. Exporters can, after an idle time (`idle_timeout` of the Prometheus exporter), and
//! `ObserveLayer::endpoints_max` bounds how many endpoints get series of their own.
//!
//! # What it costs
//! An attempt updates one counter, one histogram and one gauge twice, over handles that were made when the
//! endpoint joined. The rest are rare events, and look their series up. Nothing is allocated for them but the
//! labels of a client that has a name, and for an endpoint's gate only when it closes for the first time.

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

/// Whether this was built with metrics.
pub const IS_ON: bool = cfg!(feature = "metrics");

/// Counts one event of a client; a label's value is one of a list, so that its series needs no allocation unless
/// the client has a name.
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

/// Another attempt is made after one that ended with `error_type`.
#[inline]
pub fn retried(client: &Client, error_type: &str) {
    count!(client, "evenkeel.retries", 1, "error.type", error_type,
        ["unsent" "timeout" "throttled" "failed"]);
}

/// A call failed, and no other attempt is made for `reason`.
#[inline]
pub fn not_retried(client: &Client, reason: &str) {
    count!(client, "evenkeel.retry.refusals", 1, "reason", reason,
        ["exhausted" "no_budget" "too_late" "not_repeatable" "forbidden"]);
}

/// A second attempt was sent.
#[inline]
pub fn hedged(client: &Client) {
    count!(client, "evenkeel.hedges", 1);
}

/// It was time for a second attempt, and none is made for `reason`.
#[inline]
pub fn not_hedged(client: &Client, reason: &str) {
    count!(client, "evenkeel.hedge.refusals", 1, "reason", reason,
        ["no_budget" "too_late" "not_repeatable" "not_ready"]);
}

/// A call with a second attempt under way was answered by the second one or not, and an attempt was
/// cancelled or not.
#[inline]
pub fn hedge_ended(client: &Client, has_won: bool, is_cancelled: bool) {
    if has_won {
        count!(client, "evenkeel.hedge.wins", 1);
    }
    if is_cancelled {
        count!(client, "evenkeel.hedge.cancellations", 1);
    }
}

/// A circuit breaker went to `state`.
#[inline]
pub fn breaker_changed(client: &Client, state: &str) {
    count!(client, "evenkeel.breaker.transitions", 1, "state", state,
        ["closed" "open" "half_open" "held_open" "held_closed"]);
}

/// A circuit breaker that stands alone refused a call.
#[inline]
pub fn breaker_refused(client: &Client) {
    count!(client, "evenkeel.breaker.refusals", 1);
}

/// An endpoint was ejected for `cause`.
#[inline]
pub fn ejected(client: &Client, cause: &str) {
    count!(client, "evenkeel.outlier.ejections", 1, "cause", cause,
        ["consecutive_errors" "consecutive_gateway_errors" "consecutive_local_errors" "success_rate"
         "failure_percentage" "latency" "probation"]);
}

/// An ejection is over.
#[inline]
pub fn returned(client: &Client) {
    count!(client, "evenkeel.outlier.returns", 1);
}

/// The set of a balancer was published, with so many endpoints more or less than before.
#[inline]
pub fn published(client: &Client, difference: isize) {
    count!(client, "evenkeel.balance.snapshots", 1);
    endpoints_changed(client, difference);
}

/// The sets of all balancers together have so many endpoints more or less.
#[inline]
pub fn endpoints_changed(client: &Client, difference: isize) {
    #[cfg(feature = "metrics")]
    {
        let labels: Vec<_> = client.label().into_iter().collect();
        ::metrics::gauge!("evenkeel.balance.endpoints", labels).increment(difference as f64);
    }
    #[cfg(not(feature = "metrics"))]
    let _ = (client, difference);
}

/// A source of endpoints failed, once more perhaps.
#[inline]
pub fn source_failed() {
    count!(&Client::default(), "evenkeel.discovery.failures", 1);
}

/// A source of endpoints fails from now on, until what this returns is dropped.
#[inline]
pub fn source_failing() -> Held {
    #[cfg(feature = "metrics")]
    return Held::new(::metrics::gauge!("evenkeel.discovery.failing"));
    #[cfg(not(feature = "metrics"))]
    Held(())
}

/// Discovery failed.
#[inline]
pub fn discovery_failed(client: &Client) {
    count!(client, "evenkeel.balance.discovery_errors", 1);
}

/// Nobody is open, and somebody waits.
#[inline]
pub fn balancer_waits(client: &Client) {
    count!(client, "evenkeel.balance.waits", 1);
}

/// Another endpoint is looked for, for `reason`.
#[inline]
pub fn repicked(client: &Client, reason: &str) {
    count!(client, "evenkeel.balance.repicks", 1, "reason", reason, ["not_ready" "failed"]);
}

/// A request goes to an endpoint that only its health closes.
#[inline]
pub fn failed_open(client: &Client) {
    count!(client, "evenkeel.balance.fail_open", 1);
}

/// A balancer refused a request with `error_type`.
#[inline]
pub fn balancer_refused(client: &Client, error_type: &str) {
    count!(client, "evenkeel.balance.refusals", 1, "error.type", error_type,
        ["no_endpoints" "all_endpoints_closed" "all_endpoints_excluded"
         "no_endpoint_picked"]);
}

/// A call was not over at its deadline.
#[inline]
pub fn deadline_exceeded(client: &Client) {
    count!(client, "evenkeel.deadline.exceeded", 1);
}

/// A probe of an endpoint's load ended.
#[inline]
pub fn load_probed(client: &Client, is_answered: bool) {
    let outcome = if is_answered { "success" } else { "failure" };
    count!(client, "evenkeel.balance.load_probes", 1, "outcome", outcome, ["success" "failure"]);
}

/// An active health check ended.
#[inline]
pub fn health_checked(client: &Client, has_passed: bool) {
    let outcome = if has_passed { "success" } else { "failure" };
    count!(client, "evenkeel.health.checks", 1, "outcome", outcome, ["success" "failure"]);
}

/// Active health checks changed their mind about an endpoint.
#[inline]
pub fn health_changed(client: &Client, is_healthy: bool) {
    let state = if is_healthy { "healthy" } else { "unhealthy" };
    count!(client, "evenkeel.health.transitions", 1, "state", state, ["healthy" "unhealthy"]);
}

/// A concurrency limit was reached, and a request refused.
#[inline]
pub fn limit_reached(client: &Client) {
    count!(client, "evenkeel.limit.refusals", 1);
}

/// A rate limit refused a request; `scope` is `service`, `key` or `endpoint`.
#[inline]
pub fn rate_limited(client: &Client, scope: &str) {
    count!(client, "evenkeel.rate_limit.refusals", 1, "scope", scope, ["service" "key" "endpoint"]);
}

/// A server refused a request because of its queue.
#[inline]
pub fn shed(client: &Client) {
    count!(client, "evenkeel.admission.shed", 1);
}

/// A client refused a request that the server would have refused.
#[inline]
pub fn throttled(client: &Client) {
    count!(client, "evenkeel.admission.throttled", 1);
}

/// A request was refused while nothing could be reached.
#[inline]
pub fn failed_fast(client: &Client) {
    count!(client, "evenkeel.fail_fast.refusals", 1);
}

/// A call whose copy was to be mirrored: what became of the copy.
#[inline]
pub fn mirrored(client: &Client, outcome: &str) {
    count!(client, "evenkeel.mirror.copies", 1, "outcome", outcome,
        ["success" "failure" "timeout" "full" "incomplete"]);
}

/// The shared quota could not be asked, and the request was allowed or refused.
#[inline]
pub fn quota_failed(is_allowed: bool) {
    let action = if is_allowed { "allowed" } else { "refused" };
    count!(&Client::default(), "evenkeel.quota.failures", 1, "action", action, ["allowed" "refused"]);
}

/// A graceful stop did not wait for so many requests.
#[inline]
pub fn drain_cut(requests: u64) {
    count!(&Client::default(), "evenkeel.drain.cut", requests);
}

/// Tells the recorder the unit and the meaning of each metric, from the table above. Call it once, after
/// the recorder was installed.
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

/// Name, kind, labels and meaning of each metric: the table above is their only list.
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
    fn a_recorder_is_told_unit_and_meaning() {
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
        // All gates but that of joining, which is not shown, and that of leaving.
        assert_eq!(values_of("evenkeel.endpoint.closings").count(), Gate::ALL.len() - 2);
        for value in values_of("evenkeel.endpoint.closed") {
            assert_eq!(*value, DebugValue::Gauge(0.0.into()));
        }
    }
}
