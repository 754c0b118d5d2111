//! Services that are not ready, and services that fail for good.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use evenkeel_core::{
    error::{AllEndpointsClosed, NoEndpointPicked, cause},
    node::{Gate, Node},
    policy::{PickContext, Picker, Policy},
};
use evenkeel_layers::balance::{Balance, BalanceLayer};
use tower::{Service, ServiceExt};

use crate::balance::probe::{
    Channel, Connector, CountBuilds, Readiness, Refused, World, endpoint, ready, tick,
};

/// A balancer with known endpoints. The first picks are in the order of their names.
async fn balance(world: &World, names: &[&str]) -> (Balance<Connector>, Channel) {
    let discovery = Channel::of(names);
    let mut balance = world.balance(&crate::balance::probe::from_the_first(discovery.clone()));
    ready(&mut balance).await.expect("endpoints are known");
    (balance, discovery)
}

#[tokio::test(start_paused = true)]
async fn another_endpoint_is_chosen_when_the_first_is_not_ready() {
    let world = World::default();
    let (mut balance, _discovery) = balance(&world, &["a", "b"]).await;
    world.host("a").is(Readiness::NotReady);

    for _ in 0..4 {
        assert_eq!(ready(&mut balance).await.unwrap().call(1).await.unwrap(), "b:80");
    }
    assert_eq!(world.host("a").calls(), 0);
    assert_eq!(world.host("a").node().in_flight(), 0);
    world.assert_contract_kept();
}

#[tokio::test(start_paused = true)]
async fn several_are_waited_for_and_the_first_that_is_ready_is_taken() {
    let world = World::default();
    let (mut balance, _discovery) = balance(&world, &["a", "b", "c"]).await;
    ["a", "b", "c"].iter().for_each(|name| world.host(name).is(Readiness::NotReady));
    let mut waiting = tokio_test::task::spawn(balance.call(1));
    assert!(waiting.poll().is_pending());

    world.host("c").is(Readiness::Ready);

    assert!(waiting.is_woken());
    assert_eq!(waiting.await.unwrap(), "c:80");
    world.assert_contract_kept();
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_joins_is_taken_by_waiting_calls() {
    let world = World::default();
    let (mut balance, discovery) = balance(&world, &["a"]).await;
    world.host("a").is(Readiness::NotReady);
    let mut waiting = tokio_test::task::spawn(balance.call(1));
    assert!(waiting.poll().is_pending());

    discovery.insert(endpoint("b"));
    tick().await;

    assert!(waiting.is_woken());
    assert_eq!(waiting.await.unwrap(), "b:80");
}

#[tokio::test(start_paused = true)]
async fn a_call_without_a_ready_endpoint_is_refused_at_the_deadline() {
    let world = World::default();
    let (mut balance, _discovery) = balance(&world, &["a", "b"]).await;
    ["a", "b"].iter().for_each(|name| world.host(name).is(Readiness::NotReady));

    let error = balance.call(1).await.unwrap_err();

    assert!(cause::<AllEndpointsClosed>(error.as_ref()).is_some());
    assert_eq!(world.host("a").node().in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_fails_is_made_again_and_another_takes_the_request() {
    let world = World::default();
    let (mut balance, _discovery) = balance(&world, &["a", "b"]).await;
    world.host("a").is(Readiness::Broken);
    let node = world.host("a").node();

    assert_eq!(balance.call(1).await.unwrap(), "b:80");
    assert!(node.is_closed_by(Gate::Broken));
    world.host("a").is(Readiness::Ready);
    tick().await;

    assert!(node.is_open(), "made again at once");
    assert_eq!((world.host("a").connects(), world.host("a").connections()), (2, 1));
    assert_eq!(world.host("a").node().id(), node.id(), "the node keeps what was learnt");
    world.assert_contract_kept();
}

#[tokio::test(start_paused = true)]
async fn the_last_error_is_given_when_every_service_fails() {
    let world = World::default();
    let (mut balance, _discovery) = balance(&world, &["a", "b", "c"]).await;
    ["a", "b", "c"].iter().for_each(|name| world.host(name).is(Readiness::Broken));

    let error = balance.call(1).await.unwrap_err();

    assert!(cause::<Refused>(error.as_ref()).is_some());
    assert_eq!(balance.nodes().iter().filter(|node| node.is_open()).count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_fails_repeatedly_is_made_again_at_growing_intervals() {
    let world = World::default();
    let (balance, _discovery) = balance(&world, &["a"]).await;
    let host = world.host("a");
    host.is(Readiness::Broken);

    let mut balance = balance;
    for _ in 0..6_000 {
        let mut request = tokio_test::task::spawn(balance.clone().oneshot(1));
        _ = request.poll();
        tokio::time::advance(Duration::from_millis(10)).await;
    }

    // A minute holds 0, 0.1, 0.2 ... 6.4, 10, 10 ... seconds, minus jitter of up to a half.
    assert!((8..=22).contains(&host.connects()), "{} connects in a minute", host.connects());
    host.is(Readiness::Ready);
    tokio::time::advance(Duration::from_secs(10)).await;
    ready(&mut balance).await.unwrap();
    assert_eq!(balance.oneshot(1).await.unwrap(), "a:80");
}

#[tokio::test(start_paused = true)]
async fn an_old_service_that_fails_once_more_does_not_close_the_new_one() {
    let world = World::default();
    let (mut balance, _discovery) = balance(&world, &["a"]).await;
    let host = world.host("a");
    let mut first = tokio_test::task::spawn(balance.call(1));
    let straggler = balance.call(2);
    host.is(Readiness::Broken);
    assert!(first.poll().is_pending());
    host.is(Readiness::Ready);
    tick().await;
    assert_eq!(first.await.unwrap(), "a:80", "the new service has it, and no error is seen");

    assert_eq!(straggler.await.unwrap(), "a:80");

    assert!(host.node().is_open());
    tick().await;
    assert_eq!(host.connects(), 2, "repaired once");
}

#[tokio::test(start_paused = true)]
async fn services_that_fail_together_are_made_again_together() {
    let world = World::default();
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let builds = CountBuilds::default();
    let layer = BalanceLayer::with_policy(Channel::of(&names), builds.clone());
    let mut balance = world.balance(&layer);
    ready(&mut balance).await.unwrap();
    names.iter().for_each(|name| world.host(name).is(Readiness::Broken));
    assert!(balance.call(1).await.is_err());
    assert_eq!(balance.nodes().iter().filter(|node| node.is_open()).count(), 0);
    let built = builds.count();

    tick().await;

    assert_eq!(balance.nodes().iter().filter(|node| node.is_open()).count(), 8);
    assert_eq!(builds.count(), built + 1, "in one snapshot");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_closes_while_a_call_waits_on_it_is_left() {
    let world = World::default();
    let (mut balance, _discovery) = balance(&world, &["a", "b"]).await;
    ["a", "b"].iter().for_each(|name| world.host(name).is(Readiness::NotReady));
    let mut waiting = tokio_test::task::spawn(balance.call(1));
    assert!(waiting.poll().is_pending());

    world.host("a").node().close(Gate::Ejected);
    world.host("a").is(Readiness::Ready);
    assert!(waiting.is_woken());
    assert!(waiting.poll().is_pending(), "it is ready, but closed");

    world.host("b").is(Readiness::Ready);
    assert_eq!(waiting.await.unwrap(), "b:80");
    assert_eq!(world.host("a").calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_holds_no_connection_of_an_endpoint_that_left() {
    let world = World::default();
    let (mut balance, discovery) = balance(&world, &["a", "b"]).await;
    ["a", "b"].iter().for_each(|name| world.host(name).is(Readiness::NotReady));
    let waiting = tokio::spawn(balance.call(1));
    tick().await;

    discovery.remove("a");
    tick().await;
    tick().await;

    assert_eq!(world.host("a").connections(), 0);
    world.host("b").is(Readiness::Ready);
    assert_eq!(waiting.await.unwrap().unwrap(), "b:80");
}

#[tokio::test(start_paused = true)]
async fn a_repaired_endpoint_is_taken_by_a_call_that_saw_it_fail() {
    let world = World::default();
    let (mut balance, discovery) = balance(&world, &["a", "b"]).await;
    world.host("a").is(Readiness::Broken);
    world.host("b").is(Readiness::NotReady);
    let mut waiting = tokio_test::task::spawn(balance.call(1));
    assert!(waiting.poll().is_pending());
    world.host("a").is(Readiness::Ready);

    discovery.remove("b");
    tick().await;

    assert!(waiting.is_woken());
    assert_eq!(waiting.await.unwrap(), "a:80");
}

/// Breaks the rule that only open nodes are picked.
#[derive(Debug)]
struct Stubborn;

impl Policy for Stubborn {
    fn name(&self) -> &'static str {
        "stubborn"
    }

    fn build(&self, _: &[Arc<Node>], _: Option<&dyn Picker>) -> Box<dyn Picker> {
        Box::new(Self)
    }
}

impl Picker for Stubborn {
    fn pick(&self, nodes: &[Arc<Node>], _: &mut PickContext<'_>) -> Option<usize> {
        nodes.len().checked_sub(1)
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_picks_a_closed_node_is_not_obeyed_and_does_not_spin() {
    let world = World::default();
    let layer = BalanceLayer::with_policy(Channel::of(&["a", "b"]), Stubborn);
    let mut balance = world.balance(&layer);
    ready(&mut balance).await.unwrap();
    world.host("b").node().close(Gate::Ejected);

    let error = balance.call(1).await.unwrap_err();

    assert!(cause::<NoEndpointPicked>(error.as_ref()).is_some());
    assert_eq!(world.host("b").calls(), 0);
}

/// Picks none, whatever is open.
#[derive(Debug)]
struct Undecided;

impl Policy for Undecided {
    fn name(&self) -> &'static str {
        "undecided"
    }

    fn build(&self, _: &[Arc<Node>], _: Option<&dyn Picker>) -> Box<dyn Picker> {
        Box::new(Self)
    }
}

impl Picker for Undecided {
    fn pick(&self, _: &[Arc<Node>], _: &mut PickContext<'_>) -> Option<usize> {
        None
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_picks_none_of_the_open_endpoints_is_reported_at_once() {
    let world = World::default();
    let layer = BalanceLayer::with_policy(Channel::of(&["a", "b", "c"]), Undecided);
    let mut balance = world.balance(&layer);
    ready(&mut balance).await.unwrap();
    world.host("c").node().close(Gate::Ejected);

    let mut refused = tokio_test::task::spawn(balance.call(1));

    let std::task::Poll::Ready(Err(error)) = refused.poll() else { panic!("not at once") };
    let picked = cause::<NoEndpointPicked>(error.as_ref()).expect("its own error");
    assert_eq!((picked.policy, picked.open), ("undecided", 2));
    assert_eq!(error.to_string(), "policy undecided picked none of 2 open endpoints");
}

/// Sees all nodes closed as often as it is told to: they close before it looks and are open again
/// after.
#[derive(Clone, Debug, Default)]
struct Flapping(Arc<AtomicUsize>);

impl Policy for Flapping {
    fn name(&self) -> &'static str {
        "flapping"
    }

    fn build(&self, _: &[Arc<Node>], _: Option<&dyn Picker>) -> Box<dyn Picker> {
        Box::new(self.clone())
    }
}

impl Picker for Flapping {
    fn pick(&self, nodes: &[Arc<Node>], cx: &mut PickContext<'_>) -> Option<usize> {
        let is_flapping = 0 < self.0.load(SeqCst);
        if is_flapping {
            self.0.fetch_sub(1, SeqCst);
            nodes.iter().for_each(|node| _ = node.close(Gate::Limit));
        }
        let picked = nodes.iter().position(|node| cx.admits(node));
        if is_flapping {
            nodes.iter().for_each(|node| _ = node.open(Gate::Limit));
        }
        picked
    }
}

#[tokio::test(start_paused = true)]
async fn endpoints_that_close_and_open_while_they_are_looked_at_are_looked_at_again() {
    let world = World::default();
    let policy = Flapping::default();
    let layer = BalanceLayer::with_policy(Channel::of(&["a", "b"]), policy.clone());
    let mut balance = world.balance(&layer);
    ready(&mut balance).await.unwrap();

    policy.0.store(12, SeqCst);
    assert_eq!(balance.call(1).await.unwrap(), "a:80");

    // The same for a service that has failed.
    world.host("a").is(Readiness::Broken);
    let call = balance.call(2);
    policy.0.store(12, SeqCst);
    assert_eq!(call.await.unwrap(), "b:80");
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_picks_none_while_none_is_open_waits_for_one() {
    let world = World::default();
    let layer = BalanceLayer::with_policy(Channel::of(&["a"]), Undecided).fail_open(false);
    let mut balance = world.balance(&layer);
    ready(&mut balance).await.unwrap();
    world.host("a").node().close(Gate::Ejected);

    let mut waits = tokio_test::task::spawn(balance.call(1));
    assert!(waits.poll().is_pending());
    world.host("a").node().open(Gate::Ejected);

    let std::task::Poll::Ready(Err(error)) = waits.poll() else { panic!("not at once") };
    assert!(cause::<NoEndpointPicked>(error.as_ref()).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_saw_a_failure_gives_it_at_the_deadline() {
    let world = World::default();
    let (mut balance, _discovery) = balance(&world, &["a", "b"]).await;
    world.host("a").is(Readiness::Broken);
    world.host("b").is(Readiness::NotReady);

    let error = balance.call(1).await.unwrap_err();

    assert!(cause::<Refused>(error.as_ref()).is_some());
}
