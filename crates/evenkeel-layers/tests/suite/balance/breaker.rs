//! A circuit breaker below a balancer: one for each endpoint, which closes and opens its gate.

use std::{sync::Arc, time::Duration};

use evenkeel_core::{
    BoxError,
    attempt::Attempt,
    connect::Connect,
    error::{AllEndpointsClosed, cause},
    health::breaker::{BreakerRules, State},
    node::{Gate, Node},
    outcome::Outcome,
    traffic::{Hints, Traffic},
};
use evenkeel_layers::{
    balance::Balance,
    breaker::{BreakerHandle, Breakers, CircuitBreaker, CircuitBreakerLayer},
};
use tokio::time::{Instant, advance, sleep};
use tower::{Layer, Service};

use crate::balance::probe::{Answer, Channel, Connector, Probe, World, ready, tick};

type Client = Balance<CircuitBreaker<Connector, evenkeel_core::traffic::AnyTraffic>>;

#[allow(clippy::disallowed_methods)]
fn now() -> Instant {
    Instant::now()
}

fn layer() -> CircuitBreakerLayer {
    let mut rules = BreakerRules::default();
    rules.consecutive_failures = Some(3);
    rules.failure_rate = None;
    rules.jitter = 0.0;
    CircuitBreakerLayer::new().rules(rules)
}

/// A client that refuses while all breakers are open.
fn client(world: &World, channel: &Channel, layer: &CircuitBreakerLayer) -> Client {
    let balance = crate::balance::probe::from_the_first(channel.clone()).fail_open(false);
    balance.layer(layer.layer(world.connector()))
}

fn breaker(breakers: &Breakers, name: &str) -> BreakerHandle {
    let address = crate::balance::probe::address(name);
    breakers.list().into_iter().find(|b| b.address() == Some(&address)).expect("known")
}

async fn call(client: &mut Client) -> Result<String, BoxError> {
    ready(client).await?.call(1).await
}

/// A client of `a`, which fails and has an open breaker, and `b`, which works.
async fn opened(world: &World, layer: &CircuitBreakerLayer) -> (Client, Channel) {
    let channel = Channel::of(&["a", "b"]);
    let mut client = client(world, &channel, layer);
    world.host("a").answers(Answer::Error);
    for _ in 0..6 {
        _ = call(&mut client).await;
    }
    assert!(world.host("a").node().is_closed_by(Gate::Breaker));
    (client, channel)
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_fails_three_times_is_not_used_by_any_clone() {
    let world = World::default();
    let (client, _channel) = opened(&world, &layer()).await;

    for _ in 0..20 {
        assert_eq!(call(&mut client.clone()).await.unwrap(), "b:80");
    }

    assert_eq!(world.host("a").calls(), 3);
    world.assert_contract_kept();
}

#[tokio::test(start_paused = true)]
async fn the_gate_opens_without_any_request_and_one_trial_closes_the_breaker() {
    let world = World::default();
    let layer = layer();
    let (mut client, _channel) = opened(&world, &layer).await;
    let breaker = breaker(&layer.breakers(), "a");
    let mut states = breaker.watch();
    world.host("a").answers(Answer::Held);

    sleep(Duration::from_millis(999)).await;
    assert!(!world.host("a").node().is_open());
    sleep(Duration::from_millis(1)).await;
    tick().await;
    assert!(world.host("a").node().is_open());
    assert_eq!(*states.borrow_and_update(), State::HalfOpen);

    let mut requests: Vec<_> = (0..10).map(|_| tokio_test::task::spawn(client.call(1))).collect();
    requests.retain_mut(|request| request.poll().is_pending());
    assert_eq!(world.host("a").calls(), 4, "one trial, and not one more");
    assert!(!world.host("a").node().is_open(), "no other call finds it open");

    world.host("a").release();
    for request in requests {
        request.await.unwrap();
    }
    assert!(world.host("a").node().is_open());
    assert_eq!(breaker.state(), State::Closed);
    world.host("a").answers(Answer::AtOnce);
    for _ in 0..10 {
        call(&mut client).await.unwrap();
    }
    assert_eq!(world.host("a").calls(), 9, "its share again");
    world.assert_contract_kept();
}

#[tokio::test(start_paused = true)]
async fn a_trial_that_fails_closes_the_gate_for_twice_as_long() {
    let world = World::default();
    let (mut client, _channel) = opened(&world, &layer()).await;
    sleep(Duration::from_secs(1)).await;
    tick().await;

    let failed = (call(&mut client).await.is_err(), call(&mut client).await.is_err());

    assert_ne!(failed.0, failed.1, "one of two went there");
    assert!(!world.host("a").node().is_open());
    sleep(Duration::from_millis(1_999)).await;
    assert!(!world.host("a").node().is_open());
    sleep(Duration::from_millis(1)).await;
    tick().await;
    assert!(world.host("a").node().is_open());
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_trial_leaves_its_place_to_another() {
    let world = World::default();
    let (mut client, _channel) = opened(&world, &layer()).await;
    world.host("a").answers(Answer::Held);
    sleep(Duration::from_secs(1)).await;
    tick().await;
    let mut requests: Vec<_> = (0..2).map(|_| tokio_test::task::spawn(client.call(1))).collect();
    let waiting = requests.iter_mut().position(|request| request.poll().is_pending()).unwrap();
    assert!(!world.host("a").node().is_open());

    drop(requests.remove(waiting));

    assert!(world.host("a").node().is_open());
    assert_eq!(world.host("a").node().in_flight(), 0);
    world.host("a").answers(Answer::AtOnce);
    for _ in 0..4 {
        call(&mut client).await.unwrap();
    }
    assert!(world.host("a").node().is_open());
    assert_eq!(world.host("a").calls(), 3 + 1 + 2);
}

/// Requests with answers that are late by design.
#[derive(Clone)]
struct LongPolls;

impl Traffic<u32, String, BoxError> for LongPolls {
    type Response = String;

    fn hints<'a>(&self, _: &'a u32) -> Hints<'a> {
        Hints { is_untimed: true, ..Hints::default() }
    }

    fn finish(
        &self,
        attempt: Attempt,
        result: Result<String, BoxError>,
    ) -> Result<String, BoxError> {
        attempt.finish(if result.is_ok() { Outcome::Success } else { Outcome::Failure });
        result
    }
}

struct Polled(World);

impl Connect for Polled {
    type Service = Probe;
    type Traffic = LongPolls;

    fn connect(&self, node: &Arc<Node>) -> Probe {
        self.0.connect(node)
    }

    fn traffic(&self) -> LongPolls {
        LongPolls
    }
}

#[tokio::test(start_paused = true)]
async fn long_polls_alone_can_open_and_close_a_half_open_breaker() {
    let world = World::default();
    let layer = layer();
    let balance = crate::balance::probe::from_the_first(Channel::of(&["a"])).fail_open(false);
    let mut client = balance.layer(layer.layer(Polled(world.clone())));
    world.host("a").answers(Answer::Error);
    for _ in 0..3 {
        ready(&mut client).await.unwrap().call(1).await.unwrap_err();
    }
    let breaker = breaker(&layer.breakers(), "a");
    assert_eq!(breaker.state(), State::Open);

    sleep(Duration::from_secs(1)).await;
    ready(&mut client).await.unwrap().call(1).await.unwrap_err();
    assert_eq!(breaker.state(), State::Open, "it failed again");

    sleep(Duration::from_secs(2)).await;
    tick().await;
    world.host("a").answers(Answer::Held);
    let mut polls: Vec<_> = (0..2).map(|_| tokio_test::task::spawn(client.call(1))).collect();
    assert!(polls.iter_mut().all(|poll| poll.poll().is_pending()));
    assert_eq!(world.host("a").calls(), 6, "one keeps no other out");
    sleep(Duration::from_secs(60)).await;
    assert_eq!(breaker.state(), State::HalfOpen, "they may take long");
    world.host("a").release();
    polls.remove(0).await.unwrap();
    assert_eq!(breaker.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn attempts_from_before_a_breaker_opened_do_not_count_after_it_closed() {
    let world = World::default();
    let layer = layer();
    let channel = Channel::of(&["a"]);
    let mut client = client(&world, &channel, &layer);
    ready(&mut client).await.unwrap();
    world.host("a").answers(Answer::Held);
    let mut late: Vec<_> = (0..5).map(|_| tokio_test::task::spawn(client.call(1))).collect();
    late.iter_mut().for_each(|request| assert!(request.poll().is_pending()));
    let breaker = breaker(&layer.breakers(), "a");
    let node = world.host("a").node();
    world.host("a").answers(Answer::Error);
    for _ in 0..3 {
        _ = call(&mut client).await;
    }
    assert_eq!(breaker.state(), State::Open);
    breaker.reset();
    assert!(node.is_open());

    for _ in 0..2 {
        _ = call(&mut client).await;
    }
    for request in late {
        world.host("a").release();
        request.await.unwrap();
    }
    assert_eq!(breaker.state(), State::Closed, "two failures since it closed");
    _ = call(&mut client).await;
    assert_eq!(breaker.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn nothing_spins_while_all_breakers_are_open_and_the_refusal_comes_in_time() {
    let world = World::default();
    let layer = layer().open_time(Duration::from_secs(60), Duration::from_secs(60));
    let channel = Channel::of(&["a"]);
    let mut client = client(&world, &channel, &layer);
    ready(&mut client).await.unwrap();
    world.host("a").answers(Answer::Error);
    for _ in 0..3 {
        _ = call(&mut client).await;
    }
    let polls = world.host("a").ready_polls();

    let mut waiting = tokio_test::task::spawn(ready(&mut client));
    assert!(waiting.poll().is_pending());
    advance(Duration::from_secs(2)).await;
    tick().await;
    assert!(!waiting.is_woken(), "no call is woken needlessly");
    let Err(error) = waiting.await else { panic!("no endpoint is open") };

    assert!(cause::<AllEndpointsClosed>(error.as_ref()).is_some());
    assert_eq!(world.host("a").ready_polls(), polls);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_gets_through_when_the_breaker_lets_a_trial_in() {
    let world = World::default();
    let channel = Channel::of(&["a"]);
    let mut client = client(&world, &channel, &layer());
    ready(&mut client).await.unwrap();
    world.host("a").answers(Answer::Error);
    for _ in 0..3 {
        _ = call(&mut client).await;
    }
    world.host("a").answers(Answer::AtOnce);

    assert_eq!(call(&mut client).await.unwrap(), "a:80");

    assert_eq!(world.host("a").calls(), 4);
}

#[tokio::test(start_paused = true)]
async fn requests_that_waited_together_share_the_one_trial_that_is_permitted() {
    let world = World::default();
    let channel = Channel::of(&["a"]);
    let mut client = client(&world, &channel, &layer());
    ready(&mut client).await.unwrap();
    world.host("a").answers(Answer::Error);
    for _ in 0..3 {
        _ = call(&mut client).await;
    }
    world.host("a").answers(Answer::Held);
    let requests: Vec<_> = (0..20).map(|_| tokio::spawn(client.call(1))).collect();
    sleep(Duration::from_millis(1_500)).await;
    assert_eq!(world.host("a").calls(), 4, "one of twenty");
    world.host("a").answers(Answer::AtOnce);

    world.host("a").release();

    for request in requests {
        assert_eq!(request.await.unwrap().unwrap(), "a:80");
    }
    assert_eq!(world.host("a").node().in_flight(), 0);
    world.assert_contract_kept();
}

#[tokio::test(start_paused = true)]
async fn a_breaker_and_its_timer_go_with_the_node() {
    let world = World::default();
    let layer = layer();
    let breakers = layer.breakers();
    let (client, channel) = opened(&world, &layer).await;
    let node = Arc::downgrade(&world.host("a").node());
    assert_eq!(breakers.list().len(), 2);

    channel.remove("a");
    drop((client, layer, channel));
    tick().await;
    drop(world);

    assert!(node.upgrade().is_none());
    assert!(breakers.list().is_empty());
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    tick().await;
    assert_eq!(tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_held_open_by_hand_gets_nothing_until_it_is_reset() {
    let world = World::default();
    let layer = layer();
    let channel = Channel::of(&["a", "b"]);
    let mut client = client(&world, &channel, &layer);
    ready(&mut client).await.unwrap();
    let breaker = breaker(&layer.breakers(), "a");

    breaker.hold_open();
    sleep(Duration::from_secs(1_000)).await;
    for _ in 0..10 {
        call(&mut client).await.unwrap();
    }
    assert_eq!(world.host("a").calls(), 0);
    breaker.reset();
    for _ in 0..10 {
        call(&mut client).await.unwrap();
    }

    assert_eq!(world.host("a").calls(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_made_again_keeps_its_breaker() {
    let world = World::default();
    let layer = layer();
    let channel = Channel::of(&["a"]);
    let mut client = client(&world, &channel, &layer);
    ready(&mut client).await.unwrap();
    world.host("a").answers(Answer::Error);
    for _ in 0..2 {
        _ = call(&mut client).await;
    }
    world.host("a").is(crate::balance::probe::Readiness::Broken);
    let mut request = tokio_test::task::spawn(client.call(1));
    _ = request.poll();
    world.host("a").is(crate::balance::probe::Readiness::Ready);
    drop(request);
    while world.host("a").connects() < 2 {
        tick().await;
    }

    _ = call(&mut client).await;

    assert_eq!(layer.breakers().list().len(), 1);
    assert_eq!(breaker(&layer.breakers(), "a").state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_allocated_on_the_way_through() {
    let world = World::default();
    let channel = Channel::of(&["a", "b"]);
    let plain = |channel: &Channel| crate::balance::probe::from_the_first(channel.clone());
    let connect = |_: &Arc<evenkeel_core::node::Node>| {
        tower::service_fn(|n: u32| std::future::ready(Ok::<_, BoxError>(n)))
    };
    let mut client = plain(&channel).layer(CircuitBreakerLayer::new().layer(connect));
    ready(&mut client).await.unwrap();
    for n in 0..500 {
        client.call(n).await.unwrap();
    }

    let allocated = allocation_counter::measure(|| {
        for n in 0..500 {
            let answer = futures_util::FutureExt::now_or_never(client.call(n));
            assert_eq!(answer.unwrap().unwrap(), n);
        }
    });

    assert_eq!(allocated.count_total, 0);
    drop(world);
}

#[tokio::test(start_paused = true)]
async fn while_all_breakers_are_open_callers_get_the_answers_of_endpoints_not_refusals() {
    let world = World::default();
    let layer = layer().open_time(Duration::from_secs(60), Duration::from_secs(60));
    let channel = Channel::of(&["a", "b"]);
    let mut client = crate::balance::probe::from_the_first(channel.clone())
        .layer(layer.layer(world.connector()));
    ["a", "b"].iter().for_each(|name| world.host(name).answers(Answer::Error));
    for _ in 0..6 {
        _ = call(&mut client).await;
    }
    assert!(client.nodes().iter().all(|node| node.is_closed_by(Gate::Breaker)));

    let start = now();
    assert!(call(&mut client).await.unwrap_err().is::<crate::balance::probe::Refused>());
    world.host("b").answers(Answer::AtOnce);
    let answered = call(&mut client).await.is_ok() || call(&mut client).await.is_ok();

    assert!(answered, "one of the two works again");
    assert_eq!(start.elapsed(), Duration::ZERO, "no call waits for a breaker");
    client.nodes()[0].close(Gate::Draining);
    client.nodes()[1].close(Gate::Limit);
    let error = call(&mut client).await.unwrap_err();
    assert!(cause::<AllEndpointsClosed>(error.as_ref()).is_some(), "a closed gate still holds");
}
