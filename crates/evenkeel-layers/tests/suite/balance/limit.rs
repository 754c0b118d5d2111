//! A concurrency limit below a balancer: one for each endpoint, which closes and opens its gate.

use std::time::Duration;

use evenkeel_core::{
    error::{AllEndpointsClosed, cause},
    limit::Aimd,
    node::Gate,
    traffic::AnyTraffic,
};
use evenkeel_layers::{
    balance::Balance,
    breaker::CircuitBreakerLayer,
    concurrency::{ConcurrencyLimit, ConcurrencyLimitLayer},
    outlier::OutlierLayer,
};
use tokio_test::{assert_pending, task::spawn};
use tower::{Layer, Service, ServiceBuilder};

use crate::balance::probe::{Answer, Channel, Connector, Readiness, World, ready, tick};

type Client = Balance<ConcurrencyLimit<Connector, AnyTraffic>>;

const HOSTS: [&str; 3] = ["a", "b", "c"];

fn client(world: &World, channel: &Channel, layer: &ConcurrencyLimitLayer) -> Client {
    for host in HOSTS {
        world.host(host).answers(Answer::Held);
    }
    crate::balance::probe::from_the_first(channel.clone()).layer(layer.layer(world.connector()))
}

fn in_flight(world: &World) -> [usize; 3] {
    HOSTS.map(|host| world.host(host).in_flight())
}

#[tokio::test(start_paused = true)]
async fn no_caller_sees_an_error_while_another_endpoint_has_room() {
    let world = World::default();
    let channel = Channel::of(&HOSTS);
    let mut client = client(&world, &channel, &ConcurrencyLimitLayer::fixed(4));
    world.host("a").answers(Answer::Held);
    ready(&mut client).await.unwrap();

    // All are made before any is polled: picks that turn out to be one too many go elsewhere.
    let mut calls: Vec<_> = (0..12).map(|_| spawn(client.call(1))).collect();
    for _ in 0..5 {
        for call in &mut calls {
            assert_pending!(call.poll());
        }
        tick().await;
    }
    assert_eq!(in_flight(&world), [4, 4, 4]);
    for host in HOSTS {
        assert!(world.host(host).node().is_closed_by(Gate::Limit));
    }

    for _ in 0..4 {
        world.host("b").release();
    }
    let mut answered = Vec::new();
    calls.retain_mut(|call| match call.poll() {
        std::task::Poll::Ready(answer) => {
            answered.push(answer.unwrap());
            false
        }
        std::task::Poll::Pending => true,
    });
    assert_eq!(answered, ["b:80"; 4]);
    assert!(world.host("b").node().is_open());

    let mut more: Vec<_> = Vec::new();
    for _ in 0..4 {
        let mut call = spawn(ready(&mut client).await.unwrap().call(1));
        assert_pending!(call.poll());
        more.push(call);
    }
    assert_eq!(in_flight(&world), [4, 4, 4]);
    world.assert_contract_kept();
}

#[tokio::test(start_paused = true)]
async fn where_all_are_full_callers_wait_and_are_refused_in_time() {
    let world = World::default();
    let channel = Channel::of(&HOSTS);
    let mut client = client(&world, &channel, &ConcurrencyLimitLayer::fixed(1));
    let mut calls = Vec::new();
    for _ in 0..3 {
        let mut call = spawn(ready(&mut client).await.unwrap().call(1));
        assert_pending!(call.poll());
        calls.push(call);
    }

    let mut clone = client.clone();
    let mut waiting = spawn(ready(&mut clone));
    assert_pending!(waiting.poll());
    let refused = ready(&mut client).await.unwrap_err();
    assert_eq!(cause::<AllEndpointsClosed>(refused.as_ref()).unwrap().endpoints, 3);
    drop(waiting);

    let mut clone = client.clone();
    let mut waiting = spawn(ready(&mut clone));
    assert_pending!(waiting.poll());
    drop(calls.pop());
    assert!(waiting.is_woken(), "one has room");
    assert!(waiting.poll().is_ready());
}

#[tokio::test(start_paused = true)]
async fn a_permit_comes_back_wherever_a_request_is_cancelled() {
    let world = World::default();
    let channel = Channel::of(&["a"]);
    let layer = ConcurrencyLimitLayer::fixed(1);
    let mut client = client(&world, &channel, &layer);
    let in_flight = || layer.limits().list()[0].in_flight();

    drop(ready(&mut client).await.unwrap().call(1));
    assert_eq!(in_flight(), 0, "picked, never polled");

    let mut polled = spawn(ready(&mut client).await.unwrap().call(1));
    assert_pending!(polled.poll());
    assert_eq!(in_flight(), 1);
    drop(polled);
    assert_eq!(in_flight(), 0, "with the endpoint");

    world.host("a").is(Readiness::NotReady);
    let mut selecting = spawn(ready(&mut client).await.unwrap().call(1));
    assert_pending!(selecting.poll());
    assert_eq!(in_flight(), 0, "not ready, no permit");
    drop(selecting);

    world.host("a").is(Readiness::Ready);
    assert!(world.host("a").node().is_open());
    assert_eq!(world.host("a").node().in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_full_is_still_heard_by_its_breaker() {
    let world = World::default();
    let channel = Channel::of(&["a", "b"]);
    let breaker = CircuitBreakerLayer::new().consecutive_failures(2);
    let mut client = ServiceBuilder::new()
        .layer(crate::balance::probe::from_the_first(channel.clone()))
        .layer(ConcurrencyLimitLayer::fixed(1))
        .layer(breaker)
        .service(world.connector());
    world.host("a").answers(Answer::Error);
    world.host("b").answers(Answer::Held);

    let mut held = Vec::new();
    for _ in 0..4 {
        if let Ok(client) = ready(&mut client).await {
            let mut call = spawn(client.call(1));
            if call.poll().is_pending() {
                held.push(call);
            }
        }
    }

    assert!(world.host("a").node().is_closed_by(Gate::Breaker), "its failures counted");
    assert!(world.host("b").node().is_closed_by(Gate::Limit));
}

#[tokio::test(start_paused = true)]
async fn full_endpoints_do_not_bring_an_ejected_one_back() {
    let world = World::default();
    let channel = Channel::of(&["a", "b"]);
    let mut client = ServiceBuilder::new()
        .layer(
            crate::balance::probe::from_the_first(channel.clone())
                .max_wait(Duration::from_millis(100)),
        )
        .layer(OutlierLayer::new())
        .layer(ConcurrencyLimitLayer::fixed(1))
        .service(world.connector());
    world.host("a").answers(Answer::Error);
    while ready(&mut client).await.is_ok() && world.host("a").node().is_open() {
        _ = client.call(1).await;
    }
    assert!(world.host("a").node().is_closed_by(Gate::Ejected));

    world.host("b").answers(Answer::Held);
    let mut held = spawn(ready(&mut client).await.unwrap().call(1));
    assert_pending!(held.poll());
    for _ in 0..10 {
        tick().await;
    }

    assert!(world.host("b").node().is_closed_by(Gate::Limit));
    assert!(world.host("a").node().is_closed_by(Gate::Ejected));
}

#[tokio::test(start_paused = true)]
async fn a_limit_survives_while_its_service_is_made_again() {
    let world = World::default();
    let channel = Channel::of(&["a"]);
    let layer = ConcurrencyLimitLayer::adaptive(|| Aimd::new().bounds(2, 1, 10));
    let mut client = client(&world, &channel, &layer);
    world.host("a").answers(Answer::Error);
    _ = ready(&mut client).await.unwrap().call(1).await;
    assert_eq!(layer.limits().list()[0].limit(), 1);

    world.host("a").is(Readiness::Broken);
    _ = ready(&mut client).await.unwrap().call(1).await;
    world.host("a").is(Readiness::Ready);
    world.host("a").answers(Answer::AtOnce);
    ready(&mut client).await.unwrap().call(1).await.unwrap();

    assert!(1 < world.host("a").connects());
    assert_eq!(layer.limits().list().len(), 1);
    assert!(layer.limits().list()[0].address().is_some());
}
