//! An endpoint that takes requests and never answers, with callers that give up above the balancer.

use std::{future::pending, sync::Arc, time::Duration};

use evenkeel_core::{
    BoxError,
    connect::Connect,
    endpoint::Endpoint,
    health::breaker::State,
    limit::Aimd,
    load::ServerLoad,
    node::Node,
    policy::{self, Basis, BuiltIn},
    retry::{AnyRules, Budget},
};
use evenkeel_layers::{
    active_health::ActiveHealthLayer, balance::BalanceLayer, breaker::CircuitBreakerLayer,
    concurrency::ConcurrencyLimitLayer, deadline::DeadlineLayer, outlier::OutlierLayer,
    retry::RetryLayer,
};
use futures_util::future::join_all;
use tokio::time::sleep;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn, timeout::TimeoutLayer};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn endpoints(count: u16) -> Vec<Endpoint> {
    (0..count).map(|number| format!("10.0.0.1:{}", 80 + number).parse().unwrap()).collect()
}

/// Whether this is the first endpoint, which never answers.
fn hangs(node: &Node) -> bool {
    node.address().to_string() == "10.0.0.1:80"
}

/// The first endpoint never answers. The others answer after ten milliseconds.
fn connect() -> impl Connect<
    Service = impl Service<u32, Response = u32, Error = BoxError, Future: Send> + Clone + Send + Sync,
    Traffic = evenkeel_core::traffic::AnyTraffic,
> + Send
+ Sync
+ 'static {
    |node: &Arc<Node>| {
        let hangs = hangs(node);
        service_fn(move |n: u32| async move {
            if hangs {
                pending::<()>().await;
            }
            sleep(ms(10)).await;
            Ok::<_, BoxError>(n)
        })
    }
}

/// How many of this many calls fail, one after another.
async fn lost<S>(client: S, calls: u32) -> u32
where
    S: Service<u32, Response = u32> + Clone,
    S::Error: Into<BoxError>,
{
    let mut lost = 0;
    for n in 0..calls {
        lost += u32::from(client.clone().oneshot(n).await.is_err());
    }
    lost
}

/// The same, but each endpoint is asked before each request. The first says that it is idle.
fn asked_first() -> BalanceLayer {
    let probe =
        |_: Arc<Node>| async { Ok::<_, BoxError>(ServerLoad::new(0.0, Duration::from_millis(10))) };
    BalanceLayer::ask_first(endpoints(5), probe)
}

/// Policies that read latency: from answers, or from probes where there are any.
fn by_latency(answers_probes: bool) -> Vec<(&'static str, BalanceLayer)> {
    let probe = move |node: Arc<Node>| {
        let is_silent = hangs(&node) && !answers_probes;
        async move {
            if is_silent {
                pending::<()>().await;
            }
            Ok::<_, BoxError>(ServerLoad::new(0.0, if is_silent { ms(0) } else { ms(10) }))
        }
    };
    vec![
        ("peak_ewma", BalanceLayer::peak_ewma(endpoints(2))),
        ("prequal", BalanceLayer::prequal(endpoints(2), probe)),
        ("prequal without probes", BalanceLayer::with_policy(endpoints(2), policy::Prequal::new())),
    ]
}

#[tokio::test(start_paused = true)]
async fn policies_by_latency_lose_three_calls_of_four_hundred_however_callers_give_up() {
    for seed in 0..5 {
        for answers_probes in [false, true] {
            for (name, layer) in by_latency(answers_probes) {
                let client = layer.seed(seed).layer(connect());
                let patient = TimeoutLayer::new(ms(100)).layer(client);
                let lost = lost(patient, 400).await;
                assert!(lost <= 3, "{name}, a timeout of tower, seed {seed}: {lost}");
            }
            for (name, layer) in by_latency(answers_probes) {
                let client = DeadlineLayer::new(ms(100)).layer(layer.seed(seed).layer(connect()));
                let lost = lost(client, 400).await;
                assert!(lost <= 3, "{name}, a deadline, seed {seed}: {lost}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn policies_by_load_soon_prefer_the_endpoint_that_answers() {
    let by_load = |policy: &&BuiltIn| policy.basis == Basis::InFlight;
    for policy in policy::BUILT_IN.iter().filter(by_load) {
        let name = policy.name;
        let client =
            BalanceLayer::with_policy(endpoints(2), policy.make()).seed(1).layer(connect());
        let lost = lost(TimeoutLayer::new(ms(100)).layer(client), 400).await;
        assert!(lost <= 400 / 8, "{name}: {lost}");
    }
    let client = asked_first().seed(1).layer(connect());
    let lost = lost(TimeoutLayer::new(ms(100)).layer(client), 400).await;
    assert!(lost <= 400 / 8, "asked first: {lost}");
}

#[tokio::test(start_paused = true)]
async fn the_attempt_timeout_of_a_retry_ejects_an_endpoint_that_never_answers() {
    let outlier = OutlierLayer::new().consecutive_local_errors(3).seed(1);
    let ejected = outlier.ejected();
    let client = ServiceBuilder::new()
        .layer(
            RetryLayer::new(Budget::share(100.0))
                .rules(AnyRules::idempotent())
                .attempt_timeout(ms(100)),
        )
        .layer(BalanceLayer::round_robin(endpoints(5)))
        .layer(outlier)
        .service(connect());

    assert_eq!(lost(client, 15).await, 0, "the second attempt goes elsewhere");

    let cause = evenkeel_core::health::outlier::Cause::ConsecutiveLocalErrors;
    assert_eq!(ejected.list(), [(endpoints(1)[0].address.clone(), cause)]);
}

#[tokio::test(start_paused = true)]
async fn breakers_open_and_limits_sink_when_a_deadline_passes_and_not_when_callers_go_away() {
    for (is_deadline, state) in [(true, State::Open), (false, State::Closed)] {
        let breaker = CircuitBreakerLayer::new().consecutive_failures(3);
        let breakers = breaker.breakers();
        let limit = ConcurrencyLimitLayer::adaptive(|| Aimd::new().bounds(20, 10, 200));
        let limits = limit.limits();
        let client = ServiceBuilder::new()
            .layer(BalanceLayer::round_robin(endpoints(1)).fail_open(false))
            .layer(breaker)
            .layer(limit)
            .service(connect());
        let lost = if is_deadline {
            lost(DeadlineLayer::new(ms(100)).layer(client), 3).await
        } else {
            lost(TimeoutLayer::new(ms(100)).layer(client), 3).await
        };

        assert_eq!((lost, breakers.list()[0].state()), (3, state));
        let has_sunk = limits.list()[0].limit() < 20;
        assert_eq!(has_sunk, is_deadline, "{}", limits.list()[0].limit());
    }
}

/// The pipeline that the README recommends, over the first five endpoints.
fn recommended(
    name: &str,
    answers_checks: bool,
) -> impl Service<u32, Response = u32, Error = BoxError> + Clone {
    let check = move |node: Arc<Node>| {
        let is_silent = hangs(&node) && !answers_checks;
        async move {
            if is_silent {
                pending::<()>().await;
            }
            Ok::<_, BoxError>(())
        }
    };
    let policy = policy::by_name(name).unwrap();
    ServiceBuilder::new()
        .layer(DeadlineLayer::new(Duration::from_secs(2)))
        .layer(RetryLayer::new(Budget::share(20.0)).rules(AnyRules::idempotent()))
        .layer(BalanceLayer::with_policy(endpoints(5), policy).seed(1))
        .layer(OutlierLayer::new().consecutive_local_errors(1).seed(1))
        .layer(ActiveHealthLayer::new(check).seed(1))
        .layer(ConcurrencyLimitLayer::fixed(64))
        .service(connect())
}

#[tokio::test(start_paused = true)]
async fn the_recommended_pipeline_loses_one_call_in_a_hundred_at_most_with_every_policy() {
    for name in policy::names() {
        for answers_checks in [false, true] {
            let client = recommended(name, answers_checks);
            let lost = lost(client, 200).await;
            assert!(lost <= 2, "{name}, checks answered: {answers_checks}: {lost} of 200");

            let client = recommended(name, answers_checks);
            let callers = (0..8).map(|_| self::lost(client.clone(), 500));
            let lost: u32 = join_all(callers).await.into_iter().sum();
            assert!(lost <= 40, "{name}, checks answered: {answers_checks}: {lost} of 4,000");
        }
    }
}
