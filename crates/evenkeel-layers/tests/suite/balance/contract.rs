//! tower's contract, counted, and layers of other crates below the balancer.

use std::{sync::Arc, time::Duration};

use evenkeel_core::{error::AllEndpointsClosed, error::cause, node::Gate, node::Node};
use evenkeel_layers::{balance::BalanceLayer, per_endpoint::PerEndpoint};
use tower::{
    Layer, Service, ServiceBuilder, ServiceExt,
    limit::ConcurrencyLimitLayer,
    timeout::{TimeoutLayer, error::Elapsed},
};

use crate::balance::probe::{Answer, Channel, Readiness, World, ready};

#[tokio::test(start_paused = true)]
async fn no_call_is_woken_and_no_service_polled_while_everything_is_closed() {
    let world = World::default();
    let mut balance = world.balance(&BalanceLayer::p2c(Channel::of(&["a", "b"])));
    ready(&mut balance).await.unwrap();
    let call = balance.call(1);
    balance.nodes().iter().for_each(|node| _ = node.close(Gate::Limit));
    let mut call = tokio_test::task::spawn(call);
    let mut ready = tokio_test::task::spawn(ready(&mut balance));
    assert!(call.poll().is_pending());
    assert!(ready.poll().is_pending());

    for _ in 0..290 {
        tokio::time::advance(Duration::from_millis(10)).await;
        assert!(!call.is_woken() && !ready.is_woken());
    }
    assert_eq!(world.host("a").ready_polls() + world.host("b").ready_polls(), 0);

    tokio::time::advance(Duration::from_millis(110)).await;
    assert!(call.is_woken() && ready.is_woken());
    assert!(call.poll().is_ready() && ready.poll().is_ready());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_is_woken_once_for_each_thing_that_happens() {
    let world = World::default();
    let discovery = Channel::of(&["a", "b"]);
    let mut balance = world.balance(&BalanceLayer::p2c(discovery.clone()));
    ready(&mut balance).await.unwrap();
    ["a", "b"].iter().for_each(|name| world.host(name).is(Readiness::NotReady));
    let mut call = tokio_test::task::spawn(balance.call(1));
    assert!(call.poll().is_pending());
    let asked = world.host("b").ready_polls();

    for _ in 0..100 {
        world.host("a").node().close(Gate::Ejected);
        assert!(call.is_woken());
        assert!(call.poll().is_pending());
        assert!(!call.is_woken(), "it does not wake itself");
        world.host("a").node().open(Gate::Ejected);
        assert!(call.poll().is_pending());
    }

    let asked = world.host("b").ready_polls() - asked;
    assert!(asked <= 400, "asked {asked} times for 200 changes");
}

#[tokio::test(start_paused = true)]
async fn a_mock_sees_each_request_once_and_only_when_it_is_ready() {
    let (mock, mut handle) = tower_test::mock::pair::<&'static str, &'static str>();
    let mut balance =
        BalanceLayer::p2c(Channel::of(&["a"])).layer(move |_: &Arc<Node>| mock.clone());
    handle.allow(0);
    ServiceExt::<&'static str>::ready(&mut balance).await.unwrap();
    let mut call = tokio_test::task::spawn(balance.call("ping"));
    assert!(call.poll().is_pending());

    handle.allow(1);
    assert!(call.is_woken());
    assert!(call.poll().is_pending());
    let (request, response) = handle.next_request().await.unwrap();
    assert_eq!(request, "ping");
    response.send_response("pong");

    assert_eq!(call.await.unwrap(), "pong");
}

#[tokio::test(start_paused = true)]
async fn a_concurrency_limit_below_holds_for_each_endpoint_apart() {
    let world = World::default();
    let below = world.clone();
    let mut balance = ServiceBuilder::new()
        .layer(crate::balance::probe::from_the_first(Channel::of(&["a", "b"])))
        .layer(PerEndpoint::new(ConcurrencyLimitLayer::new(2)))
        .service(move |node: &Arc<Node>| below.connect(node));
    ["a", "b"].iter().for_each(|name| world.host(name).answers(Answer::Held));
    let mut calls = Vec::new();
    for _ in 0..5 {
        let mut call = tokio_test::task::spawn(ready(&mut balance).await.unwrap().call(1));
        assert!(call.poll().is_pending());
        calls.push(call);
    }
    assert_eq!((world.host("a").in_flight(), world.host("b").in_flight()), (2, 2));

    world.host("b").release();
    calls.retain_mut(|call| !call.is_woken() || call.poll().is_pending());
    calls.retain_mut(|call| call.poll().is_pending());

    assert_eq!(calls.len(), 4);
    assert_eq!((world.host("a").in_flight(), world.host("b").in_flight()), (2, 2));
    assert_eq!(world.host("b").calls(), 3);
    world.assert_contract_kept();
}

#[tokio::test(start_paused = true)]
async fn a_full_limit_everywhere_is_refused_at_the_deadline_and_gives_its_permits_back() {
    let world = World::default();
    let below = world.clone();
    let mut balance = ServiceBuilder::new()
        .layer(BalanceLayer::p2c(Channel::of(&["a"])))
        .layer(PerEndpoint::new(ConcurrencyLimitLayer::new(1)))
        .service(move |node: &Arc<Node>| below.connect(node));
    world.host("a").answers(Answer::Held);
    let mut held = tokio_test::task::spawn(ready(&mut balance).await.unwrap().call(1));
    assert!(held.poll().is_pending());

    let error = ready(&mut balance).await.unwrap().call(2).await.unwrap_err();
    assert!(cause::<AllEndpointsClosed>(error.as_ref()).is_some());

    drop(held);
    world.host("a").answers(Answer::AtOnce);
    assert_eq!(ready(&mut balance).await.unwrap().call(3).await.unwrap(), "a:80");
}

#[tokio::test(start_paused = true)]
async fn a_timeout_below_ends_an_attempt_and_not_the_endpoint() {
    let world = World::default();
    let below = world.clone();
    let mut balance = ServiceBuilder::new()
        .layer(BalanceLayer::p2c(Channel::of(&["a"])))
        .layer(PerEndpoint::new(TimeoutLayer::new(Duration::from_millis(30))))
        .service(move |node: &Arc<Node>| below.connect(node));
    world.host("a").answers(Answer::Held);

    let error = ready(&mut balance).await.unwrap().call(1).await.unwrap_err();

    assert!(cause::<Elapsed>(error.as_ref()).is_some());
    assert_eq!((world.host("a").in_flight(), world.host("a").node().in_flight()), (0, 0));
    world.host("a").answers(Answer::AtOnce);
    assert_eq!(ready(&mut balance).await.unwrap().call(2).await.unwrap(), "a:80");
    assert_eq!(world.host("a").connects(), 1);
}
