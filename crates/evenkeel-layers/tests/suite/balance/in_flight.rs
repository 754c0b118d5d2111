//! Requests count as in flight until they end, however they end.

use std::{panic::AssertUnwindSafe, sync::Arc};

use evenkeel_core::node::Node;
use evenkeel_layers::balance::{Balance, BalanceLayer};
use futures_util::FutureExt;
use tower::Service;

use crate::balance::probe::{Answer, Channel, Connector, Readiness, World, ready};

async fn balance(world: &World) -> (Balance<Connector>, Arc<Node>) {
    let mut balance = world.balance(&BalanceLayer::p2c(Channel::of(&["a"])));
    ready(&mut balance).await.expect("endpoints are known");
    (balance, world.host("a").node())
}

#[tokio::test(start_paused = true)]
async fn an_answer_ends_a_request_in_flight() {
    let world = World::default();
    let (mut balance, node) = balance(&world).await;

    let request = balance.call(1);
    assert_eq!(node.in_flight(), 1, "from the pick on");
    request.await.unwrap();
    assert_eq!(node.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_answered_request_is_out_of_flight_while_its_future_is_kept() {
    let world = World::default();
    let (mut balance, node) = balance(&world).await;
    let mut request = tokio_test::task::spawn(balance.call(1));

    assert!(request.poll().is_ready());

    assert_eq!(node.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_error_ends_a_request_in_flight() {
    let world = World::default();
    let (mut balance, node) = balance(&world).await;
    world.host("a").answers(Answer::Error);

    assert!(balance.call(1).await.is_err());

    assert_eq!(node.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_dropped_before_its_first_poll_is_not_in_flight() {
    let world = World::default();
    let (mut balance, node) = balance(&world).await;

    drop(balance.call(1));

    assert_eq!((node.in_flight(), world.host("a").calls()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_request_dropped_while_it_waits_for_an_endpoint_is_not_in_flight() {
    let world = World::default();
    let (mut balance, node) = balance(&world).await;
    world.host("a").is(Readiness::NotReady);
    let mut request = tokio_test::task::spawn(balance.call(1));
    assert!(request.poll().is_pending());

    drop(request);

    assert_eq!((node.in_flight(), world.host("a").calls()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_request_dropped_while_it_is_with_the_endpoint_is_not_in_flight() {
    let world = World::default();
    let (mut balance, node) = balance(&world).await;
    world.host("a").answers(Answer::Held);
    let mut request = tokio_test::task::spawn(balance.call(1));
    assert!(request.poll().is_pending());
    assert_eq!(node.in_flight(), 1);

    drop(request);

    assert_eq!((node.in_flight(), world.host("a").in_flight()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_service_panics_is_not_in_flight() {
    let world = World::default();
    let (mut balance, node) = balance(&world).await;
    world.host("a").answers(Answer::Panic);

    let panicked = AssertUnwindSafe(balance.call(1)).catch_unwind().await;

    assert!(panicked.is_err());
    assert_eq!((node.in_flight(), world.host("a").in_flight()), (0, 0));
    world.host("a").answers(Answer::AtOnce);
    assert_eq!(balance.call(1).await.unwrap(), "a:80");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_request_would_have_taken_at_least_as_long_as_it_waited() {
    let world = World::default();
    let mut balance = world.balance(&BalanceLayer::peak_ewma(Channel::of(&["a"])));
    ready(&mut balance).await.unwrap();
    world.host("a").answers(Answer::Held);
    let mut request = tokio_test::task::spawn(balance.call(1));
    assert!(request.poll().is_pending());
    tokio::time::advance(std::time::Duration::from_secs(1)).await;

    drop(request);

    let node = world.host("a").node();
    assert_eq!(node.latency().estimate(), Some(std::time::Duration::from_secs(1)));
}

#[tokio::test(start_paused = true)]
async fn latency_is_measured_on_the_clock_of_the_runtime() {
    let world = World::default();
    let mut balance = world.balance(&BalanceLayer::peak_ewma(Channel::of(&["a"])));
    ready(&mut balance).await.unwrap();
    world.host("a").answers(Answer::Held);
    let mut request = tokio_test::task::spawn(balance.call(1));
    assert!(request.poll().is_pending());
    tokio::time::advance(std::time::Duration::from_millis(250)).await;

    world.host("a").release();
    request.await.unwrap();

    let estimate = world.host("a").node().latency().estimate().unwrap();
    assert_eq!(estimate.as_millis(), 250);
}
