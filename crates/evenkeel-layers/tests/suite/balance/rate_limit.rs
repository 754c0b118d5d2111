//! A rate limit below a balancer: one for each endpoint, which closes and opens its gate.

use std::{sync::Arc, time::Duration};

use evenkeel_core::{
    attempt::Attempt,
    connect::Connect,
    node::{Gate, Node},
    outcome::Outcome,
    quota::Rate,
    traffic::{Hints, Traffic},
};
use evenkeel_layers::{
    balance::BalanceLayer, breaker::CircuitBreakerLayer, rate_limit::RateLimitLayer,
};
use tokio::time::{Instant, sleep};
use tower::{Layer, Service, ServiceBuilder};

use crate::balance::probe::{Answer, Channel, Connector, Probe, World, ready, tick};

#[allow(clippy::disallowed_methods)]
fn now() -> Instant {
    Instant::now()
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_whose_limit_is_used_up_gets_nothing_and_another_takes_it() {
    let world = World::default();
    let channel = Channel::of(&["a", "b"]);
    let mut client = ServiceBuilder::new()
        .layer(BalanceLayer::pick_first(channel))
        .layer(RateLimitLayer::new(Rate::per_second(1).burst(3)))
        .service(world.connector());

    let mut answers = Vec::new();
    for _ in 0..6 {
        answers.push(ready(&mut client.clone()).await.unwrap().call(1).await.unwrap());
    }

    assert_eq!(answers, ["a:80", "a:80", "a:80", "b:80", "b:80", "b:80"]);
    assert!(world.host("a").node().is_closed_by(Gate::RateLimit));
    sleep(Duration::from_millis(1_001)).await;
    tick().await;
    assert!(world.host("a").node().is_open(), "without any request");
    assert_eq!(ready(&mut client).await.unwrap().call(1).await.unwrap(), "a:80");
    world.assert_contract_kept();
}

#[tokio::test(start_paused = true)]
async fn where_all_are_used_up_requests_wait_for_their_turn() {
    let world = World::default();
    let channel = Channel::of(&["a", "b"]);
    let mut client = ServiceBuilder::new()
        .layer(crate::balance::probe::from_the_first(channel).max_wait(Duration::from_secs(60)))
        .layer(RateLimitLayer::new(Rate::per_second(10).burst(1)))
        .service(world.connector());
    let begun = now();

    for _ in 0..42 {
        ready(&mut client).await.unwrap().call(1).await.unwrap();
    }

    // Two at once, then twenty a second.
    let took = begun.elapsed().as_millis();
    assert!((2_000..2_200).contains(&took), "{took} ms");
    assert_eq!((world.host("a").calls(), world.host("b").calls()), (21, 21));
    world.assert_contract_kept();
}

#[tokio::test(start_paused = true)]
async fn a_crowd_at_the_same_moment_gets_no_more_than_there_is() {
    let world = World::default();
    let channel = Channel::of(&["a", "b"]);
    let mut client = ServiceBuilder::new()
        .layer(BalanceLayer::p2c(channel).max_wait(Duration::from_millis(5)))
        .layer(RateLimitLayer::new(Rate::per_second(1).burst(10)))
        .service(world.connector());
    ready(&mut client).await.unwrap();

    // All are picked before any is sent.
    let calls: Vec<_> = (0..100).map(|_| client.call(1)).collect();
    let mut passed = 0;
    for call in calls {
        passed += usize::from(call.await.is_ok());
    }

    assert_eq!(passed, 20);
    assert_eq!((world.host("a").calls(), world.host("b").calls()), (10, 10));
    assert_eq!(world.host("a").node().in_flight(), 0);
    world.assert_contract_kept();
}

#[tokio::test(start_paused = true)]
async fn what_is_under_way_when_the_limit_closes_still_counts_for_others() {
    let world = World::default();
    let channel = Channel::of(&["a"]);
    let breaker = CircuitBreakerLayer::new().consecutive_failures(2);
    let breakers = breaker.breakers();
    let mut client = ServiceBuilder::new()
        .layer(crate::balance::probe::from_the_first(channel))
        .layer(breaker)
        .layer(RateLimitLayer::new(Rate::per_second(1).burst(2)))
        .service(world.connector());
    world.host("a").answers(Answer::Error);

    for _ in 0..2 {
        ready(&mut client).await.unwrap().call(1).await.unwrap_err();
    }

    assert!(world.host("a").node().is_closed_by(Gate::RateLimit));
    assert!(world.host("a").node().is_closed_by(Gate::Breaker), "{breakers:?}");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_made_again_keeps_its_limit() {
    let world = World::default();
    let limit = RateLimitLayer::new(Rate::per_second(1).burst(2)).layer(world.connector());
    let node = Arc::new(Node::new(crate::balance::probe::endpoint("a")));

    for _ in 0..3 {
        drop(limit.connect(&node));
    }

    assert_eq!(node.observers().count(), 1);
}

/// Says of every answer that the endpoint throttles for this long.
#[derive(Clone, Copy)]
struct Throttles(Duration);

impl<R, E> Traffic<u32, R, E> for Throttles {
    type Response = R;

    fn hints<'a>(&self, _: &'a u32) -> Hints<'a> {
        Hints::default()
    }

    fn finish(&self, attempt: Attempt, result: Result<R, E>) -> Result<R, E> {
        attempt.finish(Outcome::Throttled(Some(self.0)));
        result
    }
}

struct Throttling(Connector, Throttles);

impl Connect for Throttling {
    type Service = Probe;
    type Traffic = Throttles;

    fn connect(&self, node: &Arc<Node>) -> Probe {
        self.0.connect(node)
    }

    fn traffic(&self) -> Throttles {
        self.1
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_throttles_has_the_rest_it_asks_for_up_to_the_bound() {
    let world = World::default();
    let throttles = Throttles(Duration::from_secs(10));
    let limit = RateLimitLayer::per_second(1_000).heed_throttling(Duration::from_secs(2));
    let mut client = ServiceBuilder::new()
        .layer(crate::balance::probe::from_the_first(Channel::of(&["a"])))
        .layer(limit)
        .service(Throttling(world.connector(), throttles));

    ready(&mut client).await.unwrap().call(1).await.unwrap();

    let node = world.host("a").node();
    assert!(node.is_closed_by(Gate::RateLimit));
    sleep(Duration::from_millis(1_999)).await;
    assert!(!node.is_open());
    sleep(Duration::from_millis(2)).await;
    tick().await;
    assert!(node.is_open());
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_asks_for_a_rest_without_end_has_it() {
    let world = World::default();
    let limit = RateLimitLayer::per_second(1_000).heed_throttling(Duration::MAX);
    let mut client = ServiceBuilder::new()
        .layer(crate::balance::probe::from_the_first(Channel::of(&["a"])))
        .layer(limit)
        .service(Throttling(world.connector(), Throttles(Duration::MAX)));

    ready(&mut client).await.unwrap().call(1).await.unwrap();

    sleep(Duration::from_secs(86_400)).await;
    assert!(world.host("a").node().is_closed_by(Gate::RateLimit));
}
