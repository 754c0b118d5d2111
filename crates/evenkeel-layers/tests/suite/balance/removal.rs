//! Endpoints that leave, drain and come back.

use std::{sync::Arc, time::Duration};

use evenkeel_core::{discover::Update, node::Gate};
use evenkeel_layers::balance::BalanceLayer;
use tower::{Service, ServiceExt};

use crate::balance::probe::{Answer, Channel, World, endpoint, ready, set, tick};

#[tokio::test(start_paused = true)]
async fn a_removal_closes_connections_within_one_tick_without_any_request() {
    for removal in [Update::Remove(crate::balance::probe::address("a")), set(&["b"]), set(&[])] {
        let world = World::default();
        let discovery = Channel::of(&["a", "b"]);
        let mut balance = world.balance(&BalanceLayer::p2c(discovery.clone()));
        ready(&mut balance).await.unwrap();
        let mut idle = balance.clone();
        assert_eq!(ready(&mut idle).await.unwrap().call(1).await.unwrap().len(), 4);
        assert_eq!(world.host("a").connections(), 1);

        discovery.send(removal);
        tick().await;

        assert_eq!(world.host("a").connections(), 0, "an idle clone with an old set holds none");
        assert!(world.host("a").node().is_closed_by(Gate::Retired));
        drop((balance, idle));
    }
}

#[tokio::test(start_paused = true)]
async fn the_service_of_a_removed_endpoint_lives_exactly_until_its_requests_end() {
    let world = World::default();
    let discovery = Channel::of(&["a"]);
    let balance = world.balance(&BalanceLayer::p2c(discovery.clone()));
    let host = world.host("a");
    host.answers(Answer::Held);
    let first = tokio::spawn(balance.clone().oneshot(1));
    let second = tokio::spawn(balance.clone().oneshot(2));
    tick().await;
    tick().await;
    assert_eq!(host.in_flight(), 2);

    discovery.send(set(&["b"]));
    tick().await;
    assert_eq!(balance.clone().oneshot(3).await.unwrap(), "b:80");
    assert_eq!(host.connections(), 1);

    host.release();
    assert_eq!(first.await.unwrap().unwrap(), "a:80");
    assert_eq!(host.connections(), 1);

    second.abort();
    assert!(second.await.unwrap_err().is_cancelled());
    assert_eq!(host.connections(), 0);
    assert_eq!(host.node().in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_picked_for_an_endpoint_that_leaves_before_the_first_poll_goes_elsewhere() {
    let world = World::default();
    let discovery = Channel::of(&["a"]);
    let mut balance = world.balance(&BalanceLayer::p2c(discovery.clone()));
    let picked = ready(&mut balance).await.unwrap().call(1);

    discovery.send(set(&["b"]));
    tick().await;

    assert_eq!(picked.await.unwrap(), "b:80");
    assert_eq!(world.host("a").calls(), 0);
    assert_eq!(world.host("a").connections(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_draining_endpoint_finishes_what_it_has_and_gets_nothing_new() {
    let world = World::default();
    let discovery = Channel::of(&["a", "b"]);
    let balance = world.balance(&crate::balance::probe::from_the_first(discovery.clone()));
    let host = world.host("a");
    host.answers(Answer::Held);
    let held = tokio::spawn(balance.clone().oneshot(1));
    tick().await;
    tick().await;

    discovery.insert(endpoint("a").weight(0));
    tick().await;
    for _ in 0..20 {
        assert_eq!(balance.clone().oneshot(2).await.unwrap(), "b:80");
    }
    assert_eq!((host.calls(), host.connections()), (1, 1));
    host.release();
    assert_eq!(held.await.unwrap().unwrap(), "a:80");

    discovery.insert(endpoint("a").weight(1));
    host.answers(Answer::AtOnce);
    tick().await;
    for _ in 0..4 {
        balance.clone().oneshot(3).await.unwrap();
    }
    assert_eq!((host.calls(), host.connects()), (3, 1), "back without a reconnect");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_joins_drained_gets_nothing() {
    let world = World::default();
    let discovery = Channel::default();
    discovery.send(Update::Set(vec![endpoint("a").weight(0), endpoint("b")]));
    let balance = world.balance(&BalanceLayer::weighted_random(discovery).seed(1));

    for _ in 0..20 {
        assert_eq!(balance.clone().oneshot(1).await.unwrap(), "b:80");
    }
}

#[tokio::test(start_paused = true)]
async fn a_removed_endpoint_that_is_announced_again_gets_a_new_connection() {
    let world = World::default();
    let discovery = Channel::of(&["a"]);
    let balance = world.balance(&BalanceLayer::p2c(discovery.clone()));
    let host = world.host("a");
    host.answers(Answer::Held);
    let held = tokio::spawn(balance.clone().oneshot(1));
    tick().await;
    tick().await;
    let before = host.node();

    discovery.remove("a");
    tick().await;
    discovery.insert(endpoint("a"));
    tick().await;

    assert_eq!((host.connects(), host.connections()), (2, 2));
    assert_ne!(host.node().id(), before.id());
    assert!(!before.is_open());
    host.answers(Answer::AtOnce);
    assert_eq!(balance.oneshot(2).await.unwrap(), "a:80");
    host.release();
    assert_eq!(held.await.unwrap().unwrap(), "a:80");
    assert_eq!(before.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_removal_and_an_announcement_in_one_batch_make_a_new_node() {
    let world = World::default();
    let discovery = Channel::of(&["a"]);
    let mut balance = world.balance(&BalanceLayer::p2c(discovery.clone()));
    ready(&mut balance).await.unwrap();

    discovery.remove("a");
    discovery.insert(endpoint("a"));
    tick().await;

    assert_eq!((world.host("a").connects(), world.host("a").connections()), (2, 1));
    assert_eq!(balance.nodes().len(), 1);
    assert_eq!(balance.oneshot(1).await.unwrap(), "a:80");
}

#[tokio::test(start_paused = true)]
async fn a_replaced_set_leaves_no_moment_without_an_open_endpoint() {
    let world = World::default();
    let discovery = Channel::of(&["a"]);
    let layer = BalanceLayer::p2c(discovery.clone()).max_wait(Duration::ZERO);
    let mut balance = world.balance(&layer);
    while ready(&mut balance).await.is_err() {
        tick().await;
    }

    for name in ["b", "c", "d"] {
        discovery.send(set(&[name]));
        assert_eq!(balance.clone().oneshot(1).await.unwrap().len(), 4);
        tick().await;
        assert_eq!(balance.clone().oneshot(1).await.unwrap(), format!("{name}:80"));
    }
    assert_eq!(world.connections(), 1);
}

#[tokio::test(start_paused = true)]
async fn every_clone_sees_a_closed_gate_at_once() {
    let world = World::default();
    let discovery = Channel::of(&["a", "b"]);
    let mut balance = world.balance(&BalanceLayer::random(discovery).seed(3));
    ready(&mut balance).await.unwrap();
    let mut clones: Vec<_> = (0..20).map(|_| balance.clone()).collect();
    for clone in &mut clones {
        ready(clone).await.unwrap();
    }

    world.host("a").node().close(Gate::Ejected);
    let answers: Vec<_> = clones.iter_mut().map(|clone| clone.call(1)).collect();

    for answer in answers {
        assert_eq!(answer.await.unwrap(), "b:80");
    }
}

#[tokio::test]
async fn a_balancer_is_shared_by_threads() {
    fn is_shared<T: Clone + Send + Sync + 'static>(_: &T) {}
    let balance = World::default().balance(&BalanceLayer::p2c(Channel::of(&["a"])));
    is_shared(&balance);
    is_shared(&Arc::new(balance));
}
