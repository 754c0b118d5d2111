//! A request through the balancer allocates nothing, whatever the policy.
//!
//! A binary of its own, since its allocator counts.

use std::{
    convert::Infallible,
    future::{Future, Ready, ready},
    io::ErrorKind,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use allocation_counter::measure;
use evenkeel_core::{
    endpoint::Endpoint,
    load::ServerLoad,
    node::{Gate, Node},
    policy::{self, Policy, RoundRobin, Split, split},
    retry::{AnyRules, Budget},
};
use evenkeel_layers::{
    admission::{LoadShedLayer, ThrottleLayer},
    balance::BalanceLayer,
    concurrency,
    fail_fast::FailFastLayer,
    mirror::MirrorLayer,
    observe::ObserveLayer,
    per_endpoint::PerEndpoint,
    rate_limit::RateLimitLayer,
    retry::RetryLayer,
};
use tower::{Layer, Service, ServiceBuilder, limit::ConcurrencyLimitLayer};

const REQUESTS: u64 = 1_000;

#[derive(Clone)]
struct Echo;

impl Service<u64> for Echo {
    type Response = u64;
    type Error = Infallible;
    type Future = Ready<Result<u64, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u64) -> Self::Future {
        ready(Ok(request))
    }
}

/// Waits once, so that latency is measured.
#[derive(Clone)]
struct Slow;

impl Service<u64> for Slow {
    type Response = u64;
    type Error = Infallible;
    type Future = Late;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u64) -> Late {
        Late { request, has_waited: false }
    }
}

struct Late {
    request: u64,
    has_waited: bool,
}

impl Future for Late {
    type Output = Result<u64, Infallible>;

    fn poll(mut self: std::pin::Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        if std::mem::replace(&mut self.has_waited, true) {
            Poll::Ready(Ok(self.request))
        } else {
            Poll::Pending
        }
    }
}

fn endpoints() -> Vec<Endpoint> {
    (1..=10)
        .map(|index| Endpoint::new(std::net::SocketAddr::from(([10, 0, 0, index], 80))))
        .enumerate()
        .map(|(index, endpoint)| endpoint.weight(1 + index as u32 % 3))
        .collect()
}

/// How many allocations a number of requests through a warm stack makes.
async fn allocations<S>(mut stack: S) -> u64
where
    S: Service<u64, Response = u64>,
    S::Error: std::fmt::Debug,
{
    tower::ServiceExt::ready(&mut stack).await.expect("endpoints are known");
    let mut cx = Context::from_waker(Waker::noop());
    let mut request = |number| {
        assert!(stack.poll_ready(&mut cx).is_ready());
        let mut response = pin!(stack.call(number));
        for _ in 0..2 {
            if let Poll::Ready(answer) = response.as_mut().poll(&mut cx) {
                assert_eq!(answer.expect("an echo"), number);
                return;
            }
        }
        panic!("no answer");
    };
    (0..100).for_each(&mut request);
    measure(|| (0..REQUESTS).for_each(&mut request)).count_total
}

fn layer(name: &str) -> BalanceLayer {
    let policy = policy::by_name(name).expect("a built-in policy");
    BalanceLayer::with_policy(endpoints(), policy).seed(1)
}

#[tokio::test]
async fn the_counter_counts() {
    let allocations = measure(|| drop(std::hint::black_box(Box::new(1)))).count_total;
    assert_eq!(allocations, 1);
}

#[tokio::test]
async fn a_request_allocates_nothing_under_any_policy() {
    for name in policy::names() {
        let stack = layer(name).layer(|_: &Arc<Node>| Echo);
        assert_eq!(allocations(stack).await, 0, "{name}");
        let stack = layer(name).layer(|_: &Arc<Node>| Slow);
        assert_eq!(allocations(stack).await, 0, "{name}, waiting for the answer");
    }
}

#[tokio::test]
async fn tiers_zones_and_shares_allocate_nothing_while_nodes_are_ill_or_warm_up() {
    let placed = |(index, endpoint): (usize, Endpoint)| {
        let zone = if index % 2 == 0 { "here" } else { "there" };
        endpoint.zone(zone).priority(index as u32 % 3).metadata("track", zone)
    };
    let endpoints: Vec<_> = endpoints().into_iter().enumerate().map(placed).collect();
    let layers = [
        BalanceLayer::p2c(endpoints.clone()).tiers(),
        BalanceLayer::p2c(endpoints.clone()).tiers().fail_open(false),
        BalanceLayer::weighted_p2c(endpoints.clone()).zone("here"),
        BalanceLayer::round_robin(endpoints.clone()).zone("here").tiers(),
        BalanceLayer::p2c(endpoints.clone()).panic_threshold(100),
        BalanceLayer::least_loaded(endpoints.clone()).slow_start(Duration::from_secs(60)),
        BalanceLayer::with_policy(
            endpoints,
            Split::new(RoundRobin).subset("canary", 5, split::label("track", "there")),
        ),
    ];
    for layer in layers {
        let mut balance = layer.clone().seed(1).layer(|_: &Arc<Node>| Slow);
        tower::ServiceExt::<u64>::ready(&mut balance).await.expect("endpoints are known");
        for node in &balance.nodes()[..6] {
            node.close(Gate::Ejected);
            // Two of them are back and warm up.
            if node.weight() == 2 {
                node.open(Gate::Ejected);
            }
        }
        assert_eq!(allocations(balance).await, 0, "{layer:?}");
    }
}

#[tokio::test]
async fn bounds_on_the_load_allocate_nothing_either() {
    for policy in policy::BUILT_IN.iter().filter_map(|policy| policy.bounded(1.25)) {
        let name = policy.name();
        let layer = BalanceLayer::with_policy(endpoints(), policy).seed(1);
        assert_eq!(allocations(layer.layer(|_: &Arc<Node>| Slow)).await, 0, "{name}");
    }
}

#[tokio::test]
async fn a_mirror_allocates_nothing_for_what_it_does_not_copy() {
    let stack = MirrorLayer::new(Echo, 0.0).layer(Slow);
    assert_eq!(allocations(stack).await, 0);
}

#[tokio::test]
async fn a_request_that_goes_by_probes_allocates_nothing() {
    let probe = |node: Arc<Node>| async move {
        let port = node.address().port().unwrap_or_default();
        let load = ServerLoad::new(port.into(), std::time::Duration::from_millis(1));
        Ok::<_, std::io::Error>(load)
    };
    let layer = BalanceLayer::prequal(endpoints(), probe).seed(1);
    let mut stack = layer.layer(|_: &Arc<Node>| Slow);
    tower::ServiceExt::<u64>::ready(&mut stack).await.expect("endpoints are known");
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    assert_eq!(allocations(stack).await, 0);
}

#[tokio::test]
async fn a_concurrency_limit_for_each_endpoint_allocates_nothing_either() {
    for name in policy::names() {
        let stack = ServiceBuilder::new()
            .layer(layer(name))
            .layer(PerEndpoint::new(ConcurrencyLimitLayer::new(64)))
            .service(|_: &Arc<Node>| Slow);
        assert_eq!(allocations(stack).await, 0, "{name}");
    }
}

#[tokio::test]
async fn a_rate_limit_that_lets_through_allocates_nothing() {
    let limit = || RateLimitLayer::per_second(1_000_000).burst(1_000_000);
    assert_eq!(allocations(limit().layer(Slow)).await, 0, "alone");
    let keyed = limit().keyed(|number: &u64| Some(number.to_be_bytes()), 512);
    assert_eq!(allocations(keyed.layer(Slow)).await, 0, "for each key");
    let waiting = limit().wait(std::time::Duration::from_secs(1));
    assert_eq!(allocations(waiting.layer(Slow)).await, 0, "where others might wait");
    let stack = layer("p2c").layer(limit().layer(|_: &Arc<Node>| Slow));
    assert_eq!(allocations(stack).await, 0, "for each endpoint");
}

#[tokio::test]
async fn limits_throttle_and_shedding_allocate_nothing_while_nothing_is_refused() {
    type Limit = concurrency::ConcurrencyLimitLayer;
    let limits = [
        ("fixed", Limit::fixed(64)),
        ("aimd", Limit::aimd()),
        ("gradient2", Limit::gradient2()),
        ("vegas", Limit::vegas().wait(10, std::time::Duration::from_secs(1))),
    ];
    for (name, limit) in limits {
        assert_eq!(allocations(limit.layer(Slow)).await, 0, "{name}, alone");
        let stack =
            ServiceBuilder::new().layer(layer("p2c")).layer(limit).service(|_: &Arc<Node>| Slow);
        assert_eq!(allocations(stack).await, 0, "{name}, below a balancer");
    }
    assert_eq!(allocations(ThrottleLayer::new().layer(Slow)).await, 0, "throttle");
    assert_eq!(allocations(LoadShedLayer::fixed(64).layer(Slow)).await, 0, "shedding");
    let fail_fast = FailFastLayer::new(std::time::Duration::from_secs(1));
    assert_eq!(allocations(fail_fast.layer(Slow)).await, 0, "fail fast");
}

/// A limit of one fills with each request: its gate closes and opens, and the balancer is told.
#[tokio::test]
async fn a_limit_that_fills_allocates_nothing_either() {
    let stack = ServiceBuilder::new()
        .layer(layer("p2c"))
        .layer(concurrency::ConcurrencyLimitLayer::fixed(1))
        .service(|_: &Arc<Node>| Slow);
    assert_eq!(allocations(stack).await, 0);
}

#[tokio::test]
async fn observation_allocates_nothing_without_a_listener() {
    for name in policy::names() {
        let stack = ServiceBuilder::new()
            .layer(ObserveLayer::new())
            .layer(layer(name))
            .layer(ObserveLayer::new())
            .service(|_: &Arc<Node>| Slow);
        assert_eq!(allocations(stack).await, 0, "{name}");
    }
}

/// Fails every other time, at once.
#[derive(Clone)]
struct Flaky(Arc<AtomicU64>);

impl Service<u64> for Flaky {
    type Response = u64;
    type Error = std::io::Error;
    type Future = Ready<Result<u64, std::io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), std::io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u64) -> Self::Future {
        let is_good = !self.0.fetch_add(1, Relaxed).is_multiple_of(2);
        ready(if is_good { Ok(request) } else { Err(ErrorKind::ConnectionRefused.into()) })
    }
}

#[tokio::test]
async fn a_retry_without_a_listener_allocates_only_the_box_of_the_error() {
    let stack = ServiceBuilder::new()
        .layer(RetryLayer::new(Budget::default()).rules(AnyRules::idempotent()))
        .layer(layer("round_robin"))
        .layer(ObserveLayer::new())
        .service({
            let calls = Arc::default();
            move |_: &Arc<Node>| Flaky(Arc::clone(&calls))
        });
    assert_eq!(allocations(stack).await, REQUESTS);
}
