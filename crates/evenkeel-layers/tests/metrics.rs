//! The series that a recorder of metrics gets.

// clippy knows test functions, but not the functions that they share; the clock is the paused one.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]
#![cfg(feature = "metrics")]

#[allow(dead_code, reason = "shared with the tests of the balancer, which need more of it")]
#[path = "suite/balance/probe.rs"]
mod probe;
#[path = "suite/balance/scenes.rs"]
mod scenes;

use std::{collections::BTreeMap, time::Duration};

use evenkeel_core::{
    BoxError,
    node::Gate,
    retry::{AnyRules, Budget},
};
use evenkeel_layers::{
    balance::BalanceLayer, breaker::CircuitBreakerLayer, deadline::DeadlineLayer,
    hedge::HedgeLayer, observe::ObserveLayer, outlier::OutlierLayer, per_endpoint::PerEndpoint,
    retry::RetryLayer,
};
use evenkeel_metrics::named;
use metrics::LocalRecorderGuard;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use tokio::time::sleep;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

use self::probe::{Answer, Channel, Readiness, World, ready, tick};

/// What was recorded since the recorder was installed on this thread. A snapshot of the facade's
/// debugging recorder removes what it reads, so it is summed up here.
struct Recorded {
    snapshotter: Snapshotter,
    totals: BTreeMap<String, f64>,
    _guard: LocalRecorderGuard<'static>,
}

impl Recorded {
    fn new() -> Self {
        let recorder: &'static DebuggingRecorder = Box::leak(Box::default());
        Self {
            snapshotter: recorder.snapshotter(),
            totals: BTreeMap::new(),
            _guard: metrics::set_default_local_recorder(recorder),
        }
    }

    /// All series with a value other than zero, as `name{label="value"} value`. A histogram's value
    /// is its count.
    fn read(&mut self) -> BTreeMap<String, f64> {
        for (key, _, _, value) in self.snapshotter.snapshot().into_vec() {
            let labels: Vec<_> = key
                .key()
                .labels()
                .map(|label| format!("{}={}", label.key(), label.value()))
                .collect();
            let name = key.key().name().strip_prefix("evenkeel.").expect("ours");
            let name = format!("{name}{{{}}}", labels.join(","));
            *self.totals.entry(name).or_default() += match value {
                DebugValue::Counter(count) => count as f64,
                DebugValue::Gauge(value) => value.into_inner(),
                DebugValue::Histogram(values) => values.len() as f64,
            };
        }
        self.totals.retain(|_, value| *value != 0.0);
        self.totals.clone()
    }

    /// The same, for names with this prefix.
    fn of(&mut self, prefix: &str) -> Vec<(String, f64)> {
        self.read().into_iter().filter(|(name, _)| name.starts_with(prefix)).collect()
    }
}

fn series<const N: usize>(expected: [(&str, f64); N]) -> Vec<(String, f64)> {
    expected.map(|(name, value)| (name.to_owned(), value)).into()
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[tokio::test(start_paused = true)]
async fn retries_and_an_ejection_are_counted_and_an_endpoint_that_leaves_closes_nothing() {
    let mut recorded = Recorded::new();
    let (world, channel) = (World::default(), Channel::of(&["a", "b"]));
    let outlier = OutlierLayer::new();
    let mut client = ServiceBuilder::new()
        .layer(RetryLayer::new(Budget::default()).rules(AnyRules::idempotent()))
        .layer(crate::probe::from_the_first(channel.clone()))
        .layer(outlier)
        .layer(ObserveLayer::new())
        .service(world.connector());
    world.host("a").answers(Answer::Error);

    for _ in 0..20 {
        ready(&mut client).await.unwrap().call(1).await.unwrap();
    }

    let a = "server.address=a,server.port=80";
    let b = "server.address=b,server.port=80";
    assert_eq!(
        recorded.read().into_iter().collect::<Vec<_>>(),
        series([
            (&format!("attempt.duration{{{a}}}"), 5.0),
            (&format!("attempt.duration{{{b}}}"), 20.0),
            (&format!("attempts{{{a},outcome=failure,error.type=server}}"), 5.0),
            (&format!("attempts{{{b},outcome=success}}"), 20.0),
            ("balance.endpoints{}", 2.0),
            ("balance.snapshots{}", 1.0),
            ("balance.waits{}", 1.0),
            (&format!("endpoint.closed{{{a},gate=ejected}}"), 1.0),
            (&format!("endpoint.closings{{{a},gate=ejected}}"), 1.0),
            ("outlier.ejections{cause=consecutive_errors}", 1.0),
            ("retries{error.type=failed}", 5.0),
        ])
    );

    channel.remove("a");
    tick().await;

    // The host of this test keeps the node alive: what counts is that it was told to go.
    assert!(world.host("a").node().is_closed_by(Gate::Retired));
    assert_eq!(recorded.of("endpoint.closed{"), []);
    assert_eq!(recorded.of("balance.endpoints"), series([("balance.endpoints{}", 1.0)]));
    drop(client);
    tick().await;
    assert_eq!(recorded.of("balance.endpoints"), []);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_ends_unretried_says_why() {
    let mut recorded = Recorded::new();
    let failing = || service_fn(|_: u32| async { Err::<(), BoxError>("no".into()) });
    let retry = RetryLayer::new(Budget::default()).rules(AnyRules::new());

    let idempotent = retry.clone().rules(AnyRules::idempotent());
    let broke = RetryLayer::new(Budget::share(0.0).floor_per_second(0));
    let slow = service_fn(|_: u32| std::future::pending::<Result<(), BoxError>>());
    let timeout = idempotent.clone().attempt_timeout(ms(5)).max_attempts(2);
    let call = |layer: RetryLayer<AnyRules>| {
        ServiceBuilder::new().layer(layer).service(failing()).oneshot(1)
    };
    call(retry).await.unwrap_err();
    call(broke.rules(AnyRules::idempotent())).await.unwrap_err();
    call(idempotent).await.unwrap_err();
    ServiceBuilder::new().layer(timeout).service(slow).oneshot(1).await.unwrap_err();

    let expected = series([
        ("retries{error.type=failed}", 2.0),
        ("retries{error.type=timeout}", 1.0),
        ("retry.refusals{reason=exhausted}", 2.0),
        ("retry.refusals{reason=no_budget}", 1.0),
        ("retry.refusals{reason=not_repeatable}", 1.0),
    ]);
    assert_eq!(recorded.of("ret"), expected);
}

#[tokio::test(start_paused = true)]
async fn hedges_are_counted_and_nothing_stays_active() {
    let mut recorded = Recorded::new();
    let (world, channel) = (World::default(), Channel::of(&["a", "b"]));
    let hedge = |budget| HedgeLayer::after(ms(10), budget).rules(AnyRules::idempotent());
    let below = ServiceBuilder::new()
        .layer(crate::probe::from_the_first(channel))
        .layer(ObserveLayer::new().client("greeter"))
        .service(world.connector());
    world.host("a").answers(Answer::Held);
    let broke = Budget::share(0.0).floor_per_second(0);

    let mut client = ServiceBuilder::new().layer(hedge(Budget::default())).service(below.clone());
    let mut call = tokio_test::task::spawn(ready(&mut client).await.unwrap().call(1));
    assert!(call.poll().is_pending());
    let active = "attempt.active{server.address=a,server.port=80,client=greeter}";
    assert_eq!(recorded.of("attempt.active"), series([(active, 1.0)]));
    sleep(ms(10)).await;
    call.await.unwrap();
    let mut unpaid = ServiceBuilder::new().layer(hedge(broke)).service(below);
    let mut call = tokio_test::task::spawn(ready(&mut unpaid).await.unwrap().call(1));
    assert!(call.poll().is_pending());
    sleep(ms(10)).await;
    assert!(call.poll().is_pending());
    drop(call);

    let expected = series([
        ("hedge.cancellations{}", 1.0),
        ("hedge.refusals{reason=no_budget}", 1.0),
        ("hedge.wins{}", 1.0),
        ("hedges{}", 1.0),
    ]);
    assert_eq!(recorded.of("hedge"), expected);
    assert_eq!(recorded.of("attempt.active"), []);
    let b = "server.address=b,server.port=80,client=greeter,outcome=success";
    assert_eq!(recorded.of("attempts"), series([(&format!("attempts{{{b}}}"), 1.0)]));
}

#[tokio::test(start_paused = true)]
async fn a_breaker_alone_and_the_calls_above_it_are_counted() {
    let mut recorded = Recorded::new();
    let mut client = ServiceBuilder::new()
        .layer(ObserveLayer::new().client("greeter"))
        .layer(CircuitBreakerLayer::new())
        .service(service_fn(|is_good: bool| async move {
            sleep(ms(3)).await;
            if is_good { Ok(()) } else { Err::<(), BoxError>("no".into()) }
        }));

    for _ in 0..6 {
        client.ready().await.unwrap().call(false).await.unwrap_err();
    }
    sleep(Duration::from_secs(2)).await;
    client.ready().await.unwrap().call(true).await.unwrap();

    let expected = series([
        ("breaker.refusals{}", 1.0),
        ("breaker.transitions{state=closed}", 1.0),
        ("breaker.transitions{state=half_open}", 1.0),
        ("breaker.transitions{state=open}", 1.0),
        ("call.duration{client=greeter}", 7.0),
        ("calls{client=greeter,outcome=failure,error.type=server}", 6.0),
        ("calls{client=greeter,outcome=success}", 1.0),
    ]);
    assert_eq!(recorded.read().into_iter().collect::<Vec<_>>(), expected);
}

#[tokio::test(start_paused = true)]
async fn attempts_that_end_after_the_breaker_opened_are_counted_all_the_same() {
    let mut recorded = Recorded::new();
    let (world, channel) = (World::default(), Channel::of(&["a"]));
    let mut client = ServiceBuilder::new()
        .layer(crate::probe::from_the_first(channel).fail_open(false))
        .layer(CircuitBreakerLayer::new())
        .layer(ObserveLayer::new())
        .service(world.connector());
    ready(&mut client).await.unwrap();
    world.host("a").answers(Answer::Held);
    let late = tokio::spawn(client.call(1));
    tick().await;
    world.host("a").answers(Answer::Error);

    for _ in 0..5 {
        ready(&mut client).await.unwrap().call(1).await.unwrap_err();
    }
    world.host("a").release();
    late.await.unwrap().unwrap();

    let a = "server.address=a,server.port=80";
    let expected = series([
        (&format!("attempts{{{a},outcome=failure,error.type=server}}"), 5.0),
        (&format!("attempts{{{a},outcome=success}}"), 1.0),
    ]);
    assert_eq!(recorded.of("attempts"), expected);
    let closed = format!("endpoint.closed{{{a},gate=breaker}}");
    assert_eq!(recorded.of("endpoint.closed{"), series([(&closed, 1.0)]));
}

#[tokio::test(start_paused = true)]
async fn requests_refused_and_endpoints_passed_over_by_a_balancer_are_counted() {
    let mut recorded = Recorded::new();
    let (world, channel) = (World::default(), Channel::of(&[]));
    let layer = crate::probe::from_the_first(channel.clone()).max_wait(ms(20));
    let mut client = world.balance(&layer);
    ready(&mut client).await.map(drop).unwrap_err();
    channel.fail();
    tick().await;
    let deadline = DeadlineLayer::new(ms(5));
    let mut hurried = ServiceBuilder::new()
        .layer(deadline)
        .service(service_fn(|_: u32| std::future::pending::<Result<(), BoxError>>()));
    ready(&mut hurried).await.unwrap().call(1).await.unwrap_err();

    for name in ["a", "b"] {
        channel.insert(probe::endpoint(name));
    }
    tick().await;
    world.host("a").is(Readiness::NotReady);
    ready(&mut client).await.unwrap().call(1).await.unwrap();
    for name in ["a", "b"] {
        world.host(name).node().close(Gate::Unhealthy);
    }
    world.host("a").is(Readiness::Ready);
    ready(&mut client).await.unwrap().call(1).await.unwrap();

    let expected = series([
        ("balance.discovery_errors{}", 1.0),
        ("balance.endpoints{}", 2.0),
        ("balance.fail_open{}", 1.0),
        ("balance.refusals{error.type=no_endpoints}", 1.0),
        ("balance.repicks{reason=not_ready}", 1.0),
        ("balance.snapshots{}", 1.0),
        ("balance.waits{}", 1.0),
        ("deadline.exceeded{}", 1.0),
    ]);
    assert_eq!(recorded.read().into_iter().collect::<Vec<_>>(), expected);
}

#[tokio::test(start_paused = true)]
async fn endpoints_beyond_the_bound_share_their_series() {
    let mut recorded = Recorded::new();
    let (world, channel) = (World::default(), Channel::of(&["a", "b", "c"]));
    let mut client = ServiceBuilder::new()
        .layer(crate::probe::from_the_first(channel))
        .layer(ObserveLayer::new().max_endpoints(1))
        .service(world.connector());

    for _ in 0..6 {
        ready(&mut client).await.unwrap().call(1).await.unwrap();
    }

    let expected = series([
        ("attempts{server.address=_OTHER,outcome=success}", 4.0),
        ("attempts{server.address=a,server.port=80,outcome=success}", 2.0),
    ]);
    assert_eq!(recorded.of("attempts"), expected);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_made_again_goes_on_with_the_same_series() {
    let mut recorded = Recorded::new();
    let (world, channel) = (World::default(), Channel::of(&["a"]));
    let mut client = ServiceBuilder::new()
        .layer(crate::probe::from_the_first(channel))
        .layer(ObserveLayer::new())
        .service(world.connector());
    ready(&mut client).await.unwrap().call(1).await.unwrap();

    world.host("a").is(Readiness::Broken);
    _ = ready(&mut client).await.unwrap().call(1).await;
    world.host("a").is(Readiness::Ready);
    sleep(Duration::from_secs(1)).await;
    ready(&mut client).await.unwrap().call(1).await.unwrap();

    assert!(1 < world.host("a").connects());
    let name = "attempts{server.address=a,server.port=80,outcome=success}";
    assert_eq!(recorded.of("attempts").iter().filter(|(found, _)| found == name).count(), 1);
    let observers = world.host("a").node().observers().count();
    assert_eq!(observers, 1, "observed once");
    let broken = "endpoint.closings{server.address=a,server.port=80,gate=broken}";
    assert!(recorded.of("endpoint.closings").iter().any(|(found, _)| found == broken));
    assert_eq!(recorded.of("endpoint.closed{"), [], "and open again");
}

#[tokio::test(start_paused = true)]
async fn health_checks_and_the_transitions_that_they_cause_are_counted() {
    let mut recorded = Recorded::new();

    scenes::an_endpoint_is_ill_for_a_while().await;

    let expected = series([
        ("health.checks{outcome=failure}", 3.0),
        ("health.checks{outcome=success}", 3.0),
        ("health.transitions{state=healthy}", 1.0),
        ("health.transitions{state=unhealthy}", 1.0),
    ]);
    assert_eq!(recorded.of("health."), expected);
}

#[tokio::test(start_paused = true)]
async fn what_a_concurrency_limit_refuses_is_counted() {
    let mut recorded = Recorded::new();

    scenes::a_limit_is_reached_and_another_one_learns().await;

    let expected = series([("limit.refusals{}", 1.0)]);
    assert_eq!(recorded.read().into_iter().collect::<Vec<_>>(), expected);
}

#[tokio::test(start_paused = true)]
async fn refusals_of_rate_limits_are_counted_by_the_scope_of_the_quota() {
    let mut recorded = Recorded::new();

    scenes::rates_are_exceeded().await;

    let expected = series([
        ("rate_limit.refusals{scope=endpoint}", 1.0),
        ("rate_limit.refusals{scope=key}", 1.0),
        ("rate_limit.refusals{scope=service}", 2.0),
    ]);
    assert_eq!(recorded.of("rate_limit."), expected);
}

#[tokio::test(start_paused = true)]
async fn requests_that_a_client_does_not_send_or_a_server_sheds_are_counted() {
    let mut recorded = Recorded::new();

    let throttled = scenes::too_much_is_asked_for().await;

    assert!(0 < throttled);
    let expected =
        series([("admission.shed{}", 1.0), ("admission.throttled{}", f64::from(throttled))]);
    assert_eq!(recorded.read().into_iter().collect::<Vec<_>>(), expected);
}

#[tokio::test(start_paused = true)]
async fn calls_that_fail_at_once_are_counted() {
    let mut recorded = Recorded::new();

    scenes::no_endpoint_is_ready().await;

    let expected = series([("fail_fast.refusals{}", 2.0)]);
    assert_eq!(recorded.read().into_iter().collect::<Vec<_>>(), expected);
}

#[tokio::test(start_paused = true)]
async fn copies_for_a_mirror_are_counted_by_what_became_of_them() {
    let mut recorded = Recorded::new();

    scenes::calls_are_mirrored().await;

    let expected = series([
        ("mirror.copies{outcome=failure}", 1.0),
        ("mirror.copies{outcome=full}", 1.0),
        ("mirror.copies{outcome=success}", 1.0),
        ("mirror.copies{outcome=timeout}", 1.0),
    ]);
    assert_eq!(recorded.read().into_iter().collect::<Vec<_>>(), expected);
}

#[tokio::test(start_paused = true)]
async fn every_series_of_a_stack_that_was_named_has_the_name() {
    let mut recorded = Recorded::new();
    let (world, channel) = (World::default(), Channel::of(&["a", "b"]));
    let idempotent = AnyRules::idempotent();
    let mut client = named("orders", || {
        ServiceBuilder::new()
            .layer(DeadlineLayer::new(ms(100)))
            .layer(ObserveLayer::new())
            .layer(RetryLayer::new(Budget::default()).rules(idempotent).max_attempts(2))
            .layer(HedgeLayer::after(ms(10), Budget::default()).rules(idempotent))
            .layer(BalanceLayer::round_robin(channel))
            .layer(OutlierLayer::new())
            .layer(CircuitBreakerLayer::new().consecutive_failures(5))
            .layer(ObserveLayer::new())
            // What is made for an endpoint later, by a layer that does not know about endpoints.
            .layer(PerEndpoint::new(ObserveLayer::new()))
            .service(world.connector())
    });
    let carts = named("carts", || {
        BalanceLayer::round_robin(Channel::of(&["c"])).layer(World::default().connector())
    });
    ready(&mut carts.clone()).await.unwrap();

    world.host("a").answers(Answer::Error);
    for _ in 0..12 {
        _ = ready(&mut client).await.unwrap().call(1).await;
    }
    world.host("b").answers(Answer::Held);
    _ = ready(&mut client).await.unwrap().call(1).await;

    let mut series = recorded.read();
    assert_eq!(series.remove("balance.endpoints{client=carts}"), Some(1.0));
    assert_eq!(series.get("balance.endpoints{client=orders}"), Some(&2.0));
    series.retain(|name, _| !name.contains("{client=carts"));
    for kind in [
        "attempts{",
        "balance.snapshots{",
        "breaker.transitions{",
        "calls{",
        "deadline.exceeded{",
        "endpoint.closings{",
        "hedges{",
        "outlier.ejections{",
        "retries{",
    ] {
        assert!(series.keys().any(|name| name.starts_with(kind)), "{kind}: {series:?}");
    }
    let nameless: Vec<_> = series.keys().filter(|name| !name.contains("client=orders")).collect();
    assert!(nameless.is_empty(), "{nameless:?}");
}
