//! What discovery says, and what follows from it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use evenkeel_core::{
    BoxError,
    discover::{Discovery, Update, Watch},
    error::{AllEndpointsClosed, NoEndpoints, cause},
    node::Gate,
};
use evenkeel_layers::balance::BalanceLayer;
use futures_util::stream;
use tower::ServiceExt;

use crate::balance::probe::{
    Channel, CountBuilds, Readiness, Refused, World, endpoint, ready, set, tick,
};

const WAIT: Duration = Duration::from_secs(3);

/// A discovery with a stream that the test makes.
struct Streamed<F>(F);

impl<F: Fn() -> Watch + Send + Sync + 'static> Discovery for Streamed<F> {
    fn watch(&self) -> Watch {
        self.0()
    }
}

#[allow(clippy::disallowed_methods)]
fn now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

#[tokio::test(start_paused = true)]
async fn an_empty_set_is_refused_at_the_deadline_and_recovers_when_endpoints_come() {
    let world = World::default();
    let discovery = Channel::of(&[]);
    let mut balance = world.balance(&BalanceLayer::p2c(discovery.clone()));

    let start = now();
    let error = ready(&mut balance).await.unwrap_err();
    assert_eq!(start.elapsed().as_millis(), WAIT.as_millis());
    let refusal = cause::<NoEndpoints>(error.as_ref()).expect("typed");
    assert_eq!(refusal.waited, WAIT);
    assert!(refusal.discovery.is_none());

    discovery.send(set(&["a"]));
    let start = now();
    assert_eq!(balance.clone().oneshot(1).await.unwrap(), "a:80");
    ready(&mut balance).await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_discovery_that_ends_at_once_is_refused_at_the_deadline() {
    let world = World::default();
    let discovery = Streamed(|| Box::pin(stream::empty()) as Watch);
    let balance = world.balance(&BalanceLayer::p2c(discovery).max_wait(Duration::from_millis(7)));

    let start = now();
    let error = balance.oneshot(1).await.unwrap_err();

    assert_eq!(start.elapsed().as_millis(), 7);
    assert!(cause::<NoEndpoints>(error.as_ref()).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_discovery_that_fails_from_the_start_is_named_as_the_cause_and_recovers() {
    let world = World::default();
    let discovery = Channel::default();
    let balance = world.balance(&BalanceLayer::p2c(discovery.clone()));
    let waiting = tokio::spawn(balance.clone().oneshot(1));
    tick().await;
    discovery.fail();

    let error = waiting.await.unwrap().unwrap_err();
    let refusal = cause::<NoEndpoints>(error.as_ref()).expect("typed");
    assert!(refusal.discovery.is_some());
    assert!(cause::<Refused>(error.as_ref()).is_some(), "the error itself is in the chain");

    discovery.send(set(&["a"]));
    assert_eq!(balance.oneshot(1).await.unwrap(), "a:80");
}

#[tokio::test(start_paused = true)]
async fn endpoints_that_are_all_closed_are_refused_at_the_deadline_and_recover() {
    let world = World::default();
    let mut balance = world.balance(&BalanceLayer::p2c(Channel::of(&["a", "b"])));
    ready(&mut balance).await.unwrap();
    balance.nodes().iter().for_each(|node| _ = node.close(Gate::Limit));

    let start = now();
    let error = ready(&mut balance).await.unwrap_err();
    assert_eq!(start.elapsed().as_millis(), WAIT.as_millis());
    let refusal = cause::<AllEndpointsClosed>(error.as_ref()).expect("typed");
    assert_eq!((refusal.endpoints, refusal.waited), (2, WAIT));

    world.host("b").node().open(Gate::Limit);
    assert_eq!(balance.oneshot(1).await.unwrap(), "b:80");
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_for_the_first_endpoint_and_no_longer() {
    let world = World::default();
    let discovery = Channel::default();
    let balance = world.balance(&BalanceLayer::p2c(discovery.clone()));
    let waiting = tokio::spawn(balance.oneshot(1));
    tokio::time::advance(Duration::from_secs(1)).await;

    let start = now();
    discovery.send(set(&["a"]));

    assert_eq!(waiting.await.unwrap().unwrap(), "a:80");
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn an_error_of_discovery_keeps_the_set_and_so_does_its_end() {
    let world = World::default();
    let discovery = Channel::of(&["a"]);
    let mut balance = world.balance(&BalanceLayer::p2c(discovery.clone()));
    ready(&mut balance).await.unwrap();

    discovery.fail();
    tick().await;
    assert_eq!(balance.clone().oneshot(1).await.unwrap(), "a:80");

    discovery.end();
    tick().await;
    assert_eq!(balance.oneshot(1).await.unwrap(), "a:80");
    assert_eq!(world.host("a").connects(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_unchanged_announcement_touches_nothing() {
    let world = World::default();
    let discovery = Channel::of(&["a", "b"]);
    let builds = CountBuilds::default();
    let layer = BalanceLayer::with_policy(discovery.clone(), builds.clone());
    let mut balance = world.balance(&layer);
    ready(&mut balance).await.unwrap();
    let nodes = balance.nodes();
    let built = builds.count();

    discovery.send(set(&["a", "b"]));
    discovery.insert(endpoint("a"));
    tick().await;

    assert_eq!(builds.count(), built, "nothing is published");
    assert!(nodes.iter().zip(balance.nodes()).all(|(old, new)| Arc::ptr_eq(old, &new)));
    assert_eq!(world.host("a").connects(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_learnt_of_a_node_survives_another_set_and_another_weight() {
    let world = World::default();
    let discovery = Channel::of(&["a"]);
    let mut balance = world.balance(&BalanceLayer::peak_ewma(discovery.clone()));
    ready(&mut balance).await.unwrap();
    let node = world.host("a").node();
    node.latency().record(
        evenkeel_core::outcome::Outcome::Success,
        Duration::from_millis(20),
        evenkeel_core::time::Timestamp::from_nanos(1 << 62),
    );
    node.close(Gate::Ejected);

    discovery.send(Update::Set(vec![endpoint("b"), endpoint("a").weight(9).zone("eu")]));
    tick().await;

    let now = &balance.nodes()[1];
    assert!(Arc::ptr_eq(now, &node));
    assert_eq!(now.weight(), 9);
    assert_eq!(now.endpoint().zone.as_deref(), Some("eu"));
    assert_eq!(now.latency().estimate(), Some(Duration::from_millis(20)));
    assert!(now.is_closed_by(Gate::Ejected));
    assert_eq!(world.host("a").connects(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_weight_that_changes_moves_the_shares_without_a_reconnect() {
    let world = World::default();
    let discovery = Channel::of(&["a", "b"]);
    let balance = world.balance(&BalanceLayer::weighted_round_robin(discovery.clone()));
    for _ in 0..10 {
        balance.clone().oneshot(1).await.unwrap();
    }
    assert_eq!((world.host("a").calls(), world.host("b").calls()), (5, 5));

    discovery.insert(endpoint("b").weight(4));
    tick().await;
    for _ in 0..10 {
        balance.clone().oneshot(1).await.unwrap();
    }

    assert_eq!((world.host("a").calls(), world.host("b").calls()), (7, 13));
    assert_eq!(world.host("b").connects(), 1);
}

#[tokio::test(start_paused = true)]
async fn updates_that_come_together_are_published_once() {
    let world = World::default();
    let discovery = Channel::of(&["a"]);
    let builds = CountBuilds::default();
    let layer = BalanceLayer::with_policy(discovery.clone(), builds.clone());
    let mut balance = world.balance(&layer);
    ready(&mut balance).await.unwrap();
    let built = builds.count();

    for index in 0..100 {
        discovery.insert(endpoint(&format!("host-{index}")));
    }
    discovery.remove("a");
    tick().await;

    assert_eq!(builds.count(), built + 1);
    assert_eq!(balance.nodes().len(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_has_ended_is_not_polled_again_however_its_updates_fall_into_batches() {
    for updates in [0, 1, 1_023, 1_024, 1_025, 1_026, 2_048, 2_049, 3_000] {
        let polls_after_end = Arc::new(AtomicUsize::new(0));
        let count = polls_after_end.clone();
        let discovery = Streamed(move || {
            let (mut left, count) = (Some(updates), count.clone());
            Box::pin(stream::poll_fn(move |_| {
                match left {
                    Some(0) => left = None,
                    Some(more) => {
                        left = Some(more - 1);
                        let name = format!("host-{}", more % 10);
                        return Some(Ok::<_, BoxError>(Update::Insert(endpoint(&name)))).into();
                    }
                    None => _ = count.fetch_add(1, SeqCst),
                }
                None.into()
            })) as Watch
        });
        let world = World::default();
        let mut balance = world.balance(&crate::balance::probe::from_the_first(discovery));

        let ready = ready(&mut balance).await;
        tick().await;

        assert_eq!(ready.is_ok(), 0 < updates);
        assert_eq!(balance.nodes().len(), updates.min(10));
        assert_eq!(polls_after_end.load(SeqCst), 0, "of {updates} updates");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_never_pauses_leaves_room_for_others() {
    let discovery =
        Streamed(|| Box::pin(stream::repeat_with(|| Ok::<_, BoxError>(set(&["a"])))) as Watch);
    let world = World::default();
    let balance = world.balance(&crate::balance::probe::from_the_first(discovery));

    assert_eq!(balance.oneshot(1).await.unwrap(), "a:80");
}

#[tokio::test(start_paused = true)]
async fn discovery_is_refreshed_when_a_node_cannot_be_reached() {
    let world = World::default();
    let discovery = Channel::of(&["a", "b"]);
    let balance = world.balance(&crate::balance::probe::from_the_first(discovery.clone()));
    assert_eq!(balance.clone().oneshot(1).await.unwrap(), "a:80");
    assert_eq!(discovery.refreshes(), 0);

    world.host("a").node().unreachable();
    tick().await;
    assert_eq!(discovery.refreshes(), 1);

    world.host("b").is(Readiness::Broken);
    assert_eq!(balance.clone().oneshot(1).await.unwrap(), "a:80");
    tick().await;
    assert_eq!(discovery.refreshes(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_comes_and_goes_within_one_batch_is_never_open() {
    let world = World::default();
    let discovery = Channel::of(&[]);
    let mut balance = world.balance(&crate::balance::probe::from_the_first(discovery.clone()));
    let mut waiting = tokio_test::task::spawn(ready(&mut balance));
    assert!(waiting.poll().is_pending());
    tick().await;
    assert!(waiting.poll().is_pending());

    discovery.insert(endpoint("a"));
    discovery.remove("a");
    tick().await;

    assert!(waiting.poll().is_pending());
    assert!(!world.host("a").node().is_open());
    assert_eq!(world.connections(), 0);
}

#[tokio::test(start_paused = true)]
async fn of_two_endpoints_with_one_address_the_later_counts() {
    let world = World::default();
    let discovery = Channel::default();
    discovery.send(Update::Set(vec![endpoint("a"), endpoint("b"), endpoint("a").weight(7)]));
    let mut balance = world.balance(&crate::balance::probe::from_the_first(discovery.clone()));
    ready(&mut balance).await.unwrap();

    let weights: Vec<_> = balance.nodes().iter().map(|node| node.weight()).collect();
    assert_eq!(weights, [7, 1]);
}
