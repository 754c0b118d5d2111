//! What happens in layers that limit, refuse and check: once for each kind of event.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use evenkeel_core::{
    BoxError,
    health::check::Probe,
    limit::Aimd,
    node::{Access, Gate, Node},
    quota::Rate,
};
use evenkeel_layers::{
    active_health::ActiveHealthLayer,
    admission::{LoadShedLayer, ThrottleLayer},
    balance::BalanceLayer,
    concurrency::ConcurrencyLimitLayer,
    fail_fast::FailFastLayer,
    mirror::MirrorLayer,
    rate_limit::RateLimitLayer,
};
use futures_util::FutureExt;
use tokio::time::sleep;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

use super::probe::{Channel, World, ready};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[derive(Clone, Default)]
struct Doctor(Arc<AtomicBool>);

impl Probe for Doctor {
    async fn probe(&self, _: &Arc<Node>) -> Result<(), BoxError> {
        if self.0.load(SeqCst) { Err("connection refused".into()) } else { Ok(()) }
    }
}

/// An endpoint becomes unhealthy and recovers: three checks fail, two pass.
pub(crate) async fn an_endpoint_is_ill_for_a_while() {
    let (world, channel, doctor) = (World::default(), Channel::of(&["a"]), Doctor::default());
    let checks = ActiveHealthLayer::new(doctor.clone()).interval(ms(1_000)).fall(3).rise(2).seed(1);
    let mut client = BalanceLayer::round_robin(channel).layer(checks.layer(world.connector()));
    ready(&mut client).await.unwrap();
    sleep(ms(10)).await;
    let node = world.host("a").node();

    for is_ill in [true, false] {
        doctor.0.store(is_ill, SeqCst);
        while node.is_closed_by(Gate::Unhealthy) != is_ill {
            sleep(ms(10)).await;
        }
    }
}

/// A second call reaches a limit of one. A failed call lowers a limit that learns.
pub(crate) async fn a_limit_is_reached_and_another_one_learns() {
    let busy = service_fn(|(): ()| pending::<Result<(), BoxError>>());
    let mut limited = ConcurrencyLimitLayer::fixed(1).layer(busy);
    let _under_way = limited.ready().await.unwrap().call(());
    limited.oneshot(()).await.unwrap_err();

    let failing = service_fn(|(): ()| async { Err::<(), BoxError>("no".into()) });
    let aimd = || Aimd::new().bounds(20, 10, 200);
    ConcurrencyLimitLayer::adaptive(aimd).layer(failing).oneshot(()).await.unwrap_err();
}

/// A quota for all is exceeded at once, another one after a wait, then a key's and an endpoint's.
pub(crate) async fn rates_are_exceeded() {
    let service = || service_fn(|_: &'static str| async { Ok::<_, BoxError>(()) });
    let limit = || RateLimitLayer::new(Rate::per_second(10).burst(1));

    let at_once = limit().layer(service());
    at_once.clone().oneshot("a").await.unwrap();
    at_once.oneshot("a").await.unwrap_err();
    let patient = limit().wait(ms(100)).seed(1).layer(service());
    patient.clone().oneshot("a").await.unwrap();
    let (one, other) = tokio::join!(patient.clone().oneshot("a"), patient.oneshot("a"));
    assert_ne!(one.is_ok(), other.is_ok(), "there is room for one of them");
    let keyed = limit().keyed(|key: &&'static str| Some(*key), 8).layer(service());
    keyed.clone().oneshot("a").await.unwrap();
    keyed.clone().oneshot("b").await.unwrap();
    keyed.oneshot("b").await.unwrap_err();

    let (world, channel) = (World::default(), Channel::of(&["a"]));
    let mut client = ServiceBuilder::new()
        .layer(BalanceLayer::round_robin(channel))
        .layer(limit())
        .service(world.connector());
    ready(&mut client).await.unwrap().call(1).await.unwrap();
    // As if another request had picked it before its gate closed.
    world.host("a").node().follow(Gate::RateLimit, || Access::Guarded);
    ready(&mut client).await.unwrap().call(1).await.unwrap();
}

/// A client stops calling a server that refuses, and a server with a full queue refuses. Returns
/// how many calls the client did not send.
pub(crate) async fn too_much_is_asked_for() -> u32 {
    let overloaded = service_fn(|(): ()| async { Err::<(), BoxError>("overloaded".into()) });
    let mut client = ThrottleLayer::new().seed(1).layer(overloaded);
    let mut throttled = 0;
    for _ in 0..10 {
        let error = client.ready().await.unwrap().call(()).await.unwrap_err();
        throttled += u32::from(error.to_string() != "overloaded");
    }

    let busy = service_fn(|(): ()| pending::<Result<(), BoxError>>());
    let mut server = LoadShedLayer::fixed(1).max_queue(1).seed(1).layer(busy);
    let _under_way = server.ready().await.unwrap().call(());
    let mut waits = Box::pin(server.clone().oneshot(()));
    assert!(waits.as_mut().now_or_never().is_none());
    server.oneshot(()).await.unwrap_err();
    throttled
}

/// No endpoint can be reached: the first caller waits, the second one does not.
pub(crate) async fn no_endpoint_is_ready() {
    let (mock, mut handle) = tower_test::mock::pair::<(), ()>();
    handle.allow(0);
    let service = FailFastLayer::new(ms(100)).layer(mock);

    service.clone().oneshot(()).await.unwrap_err();
    service.oneshot(()).await.unwrap_err();
}

/// One copy succeeds, one fails, one hangs, and for one there is no room.
pub(crate) async fn calls_are_mirrored() {
    let mirror = service_fn(|n: u32| async move {
        match n {
            0 => Ok(()),
            1 => Err(BoxError::from("no")),
            _ => pending().await,
        }
    });
    let service = service_fn(|n: u32| async move { Ok::<_, BoxError>(n) });
    let mut mirrored =
        MirrorLayer::new(mirror, 100.0).max_in_flight(1).timeout(ms(100)).layer(service);
    for n in 0..4 {
        mirrored.ready().await.unwrap().call(n).await.unwrap();
        sleep(ms(10)).await;
    }
    sleep(ms(200)).await;
}
