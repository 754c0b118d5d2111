//! Outlier ejection below a balancer.

use std::{future::Future, sync::Arc, time::Duration};

use evenkeel_core::{
    BoxError,
    health::outlier::{Cause, SlowerThanOthers},
    node::{Gate, Node},
};
use evenkeel_layers::{
    balance::{Balance, BalanceLayer},
    breaker::CircuitBreakerLayer,
    outlier::{OutlierConnect, OutlierLayer},
};
use tokio::time::sleep;
use tower::{Layer, Service, ServiceBuilder};

use crate::balance::probe::{Answer, Channel, Connector, World, address, ready, tick};

type Client = Balance<OutlierConnect<Connector>>;

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

fn client(world: &World, channel: &Channel, layer: &OutlierLayer) -> Client {
    crate::balance::probe::from_the_first(channel.clone()).layer(layer.layer(world.connector()))
}

async fn call(client: &mut Client) -> Result<String, BoxError> {
    ready(client).await?.call(1).await
}

/// Calls until `a`, which fails, is ejected.
async fn ejected(world: &World, layer: &OutlierLayer) -> (Client, Channel) {
    let channel = Channel::of(&NAMES);
    let mut client = client(world, &channel, layer);
    world.host("a").answers(Answer::Error);
    for _ in 0..25 {
        _ = call(&mut client).await;
    }
    assert!(world.host("a").node().is_closed_by(Gate::Ejected));
    (client, channel)
}

#[tokio::test(start_paused = true)]
async fn only_the_endpoint_that_fails_five_times_is_ejected_and_at_once() {
    let world = World::default();
    let layer = OutlierLayer::new();
    let (mut client, _channel) = ejected(&world, &layer).await;

    for _ in 0..100 {
        call(&mut client).await.unwrap();
    }

    assert_eq!(world.host("a").calls(), 5);
    assert_eq!(layer.ejected().list(), [(address("a"), Cause::ConsecutiveErrors)]);
    world.assert_contract_kept();
}

#[tokio::test(start_paused = true)]
async fn an_ejected_endpoint_comes_back_after_one_trial_that_succeeds() {
    let world = World::default();
    let (mut client, _channel) = ejected(&world, &OutlierLayer::new().seed(1)).await;
    let node = world.host("a").node();
    sleep(Duration::from_millis(29_999)).await;
    assert!(!node.is_open());
    sleep(Duration::from_secs(4)).await;
    assert!(node.is_open(), "without any request");
    world.host("a").answers(Answer::Held);

    let mut requests: Vec<_> = (0..20).map(|_| tokio_test::task::spawn(client.call(1))).collect();
    requests.retain_mut(|request| request.poll().is_pending());
    assert_eq!((requests.len(), world.host("a").calls()), (1, 6), "one is at risk");
    assert!(!node.is_open());
    world.host("a").answers(Answer::AtOnce);
    world.host("a").release();
    requests.pop().unwrap().await.unwrap();

    for _ in 0..50 {
        call(&mut client).await.unwrap();
    }
    assert_eq!(world.host("a").calls(), 16);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_trial_leaves_its_place_to_another() {
    let world = World::default();
    let (mut client, _channel) = ejected(&world, &OutlierLayer::new()).await;
    sleep(Duration::from_secs(34)).await;
    world.host("a").answers(Answer::Held);
    let mut requests: Vec<_> = (0..5).map(|_| tokio_test::task::spawn(client.call(1))).collect();
    requests.retain_mut(|request| request.poll().is_pending());
    assert_eq!(requests.len(), 1);

    drop(requests);

    assert!(world.host("a").node().is_open());
    world.host("a").answers(Answer::AtOnce);
    for _ in 0..50 {
        call(&mut client).await.unwrap();
    }
    assert_eq!(world.host("a").calls(), 5 + 1 + 10);
}

/// A client with `a` ejected, and tried by a request that is held.
async fn held_trial(
    world: &World,
    layer: &OutlierLayer,
) -> (Client, Channel, impl Future<Output = Result<String, BoxError>>) {
    let (mut client, channel) = ejected(world, layer).await;
    sleep(Duration::from_secs(34)).await;
    world.host("a").answers(Answer::Held);
    let mut requests: Vec<_> = (0..5).map(|_| tokio_test::task::spawn(client.call(1))).collect();
    requests.retain_mut(|request| request.poll().is_pending());
    assert_eq!(requests.len(), 1);
    (client, channel, requests.pop().expect("there is one"))
}

#[tokio::test(start_paused = true)]
async fn a_trial_without_an_answer_has_failed_after_ten_seconds() {
    let world = World::default();
    let layer = OutlierLayer::new();
    let (_client, _channel, _trial) = held_trial(&world, &layer).await;

    sleep(Duration::from_millis(9_990)).await;
    assert!(layer.ejected().list().is_empty());
    sleep(Duration::from_millis(20)).await;

    assert_eq!(layer.ejected().list(), [(address("a"), Cause::Probation)]);
}

#[tokio::test(start_paused = true)]
async fn a_trial_that_is_held_keeps_no_other_from_being_ejected() {
    let world = World::default();
    let layer = OutlierLayer::new();
    let (mut client, _channel, _trial) = held_trial(&world, &layer).await;
    world.host("a").answers(Answer::AtOnce);
    world.host("b").answers(Answer::Error);

    let mut failed = 0;
    for _ in 0..500 {
        failed += u32::from(call(&mut client).await.is_err());
    }

    assert_eq!(
        (failed, layer.ejected().list()),
        (5, vec![(address("b"), Cause::ConsecutiveErrors)])
    );
}

#[tokio::test(start_paused = true)]
async fn if_all_fail_no_more_are_ejected_than_allowed_and_callers_see_the_real_error() {
    let world = World::default();
    let channel = Channel::of(&NAMES);
    let mut client = client(&world, &channel, &OutlierLayer::new().max_ejected_percent(40));
    for name in NAMES {
        world.host(name).answers(Answer::Error);
    }
    for _ in 0..200 {
        assert_eq!(call(&mut client).await.unwrap_err().to_string(), "connection refused");
    }
    let open = client.nodes().iter().filter(|node| node.is_open()).count();
    assert_eq!(open, 3);

    for name in NAMES {
        world.host(name).answers(Answer::AtOnce);
    }

    for _ in 0..200 {
        call(&mut client).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn an_ejection_outlives_a_flap_of_discovery() {
    let world = World::default();
    let (mut client, channel) = ejected(&world, &OutlierLayer::new()).await;
    channel.remove("a");
    tick().await;
    sleep(Duration::from_secs(5)).await;
    channel.insert(crate::balance::probe::endpoint("a"));
    tick().await;

    for _ in 0..50 {
        call(&mut client).await.unwrap();
    }

    assert_eq!(world.host("a").calls(), 5);
    assert_eq!(world.host("a").nodes().len(), 2, "it is another node");
}

#[tokio::test(start_paused = true)]
async fn an_ejected_endpoint_comes_back_at_once_if_it_is_the_last() {
    let world = World::default();
    let (mut client, channel) = ejected(&world, &OutlierLayer::new()).await;

    channel.send(crate::balance::probe::set(&["a"]));
    tick().await;
    world.host("a").answers(Answer::AtOnce);

    let soon = tokio::time::timeout(Duration::from_millis(10), call(&mut client));
    assert_eq!(soon.await.expect("at once").unwrap(), "a:80");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_slower_than_the_others_is_ejected_at_the_sweep() {
    let world = World::default();
    let channel = Channel::of(&NAMES);
    let layer = OutlierLayer::new().latency(SlowerThanOthers::default()).success_rate(None);
    let mut client = client(&world, &channel, &layer);
    ready(&mut client).await.unwrap();
    world.host("a").answers(Answer::Held);
    for _ in 0..100 {
        let mut request = tokio_test::task::spawn(client.call(1));
        if request.poll().is_pending() {
            sleep(Duration::from_millis(50)).await;
            world.host("a").release();
            request.await.unwrap();
        }
    }
    assert!(layer.ejected().list().is_empty());

    sleep(Duration::from_secs(10)).await;

    assert_eq!(layer.ejected().list(), [(address("a"), Cause::Latency)]);
}

#[tokio::test(start_paused = true)]
async fn the_task_ends_with_the_balancer_even_if_nodes_are_kept() {
    let world = World::default();
    let (client, channel) = ejected(&world, &OutlierLayer::new()).await;
    let kept = client.nodes();
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    assert_eq!(tasks(), 2, "the pool and the sweeper");

    drop((client, channel));
    tick().await;
    tick().await;

    assert_eq!(tasks(), 0);
    drop(kept);
}

#[tokio::test(start_paused = true)]
async fn the_task_ends_with_the_last_node_and_starts_with_the_next() {
    let world = World::default();
    let (mut client, channel) = ejected(&world, &OutlierLayer::new()).await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();

    channel.send(crate::balance::probe::set(&[]));
    tick().await;
    tick().await;
    assert_eq!(tasks(), 1, "the pool");

    channel.send(crate::balance::probe::set(&NAMES));
    call(&mut client).await.unwrap();
    assert_eq!(tasks(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_passing_check_lets_an_endpoint_come_back_through_probation() {
    let world = World::default();
    let layer = OutlierLayer::new();
    let (mut client, _channel) = ejected(&world, &layer).await;
    world.host("a").answers(Answer::AtOnce);

    layer.ejected().passed_check(&address("a"));

    assert!(layer.ejected().list().is_empty());
    for _ in 0..50 {
        call(&mut client).await.unwrap();
    }
    assert_eq!(world.host("a").calls(), 15);
}

#[tokio::test(start_paused = true)]
async fn with_a_breaker_below_it_nothing_is_allocated_on_the_way_through() {
    let channel = Channel::of(&NAMES);
    let connect =
        |_: &Arc<Node>| tower::service_fn(|n: u32| std::future::ready(Ok::<_, BoxError>(n)));
    let mut client = ServiceBuilder::new()
        .layer(BalanceLayer::peak_ewma(channel))
        .layer(OutlierLayer::new().latency(SlowerThanOthers::default()))
        .layer(CircuitBreakerLayer::new())
        .service(connect);
    ready(&mut client).await.unwrap();
    for n in 0..1_000 {
        client.call(n).await.unwrap();
    }

    let allocated = allocation_counter::measure(|| {
        for n in 0..1_000 {
            let answer = futures_util::FutureExt::now_or_never(client.call(n));
            assert_eq!(answer.unwrap().unwrap(), n);
        }
    });

    assert_eq!(allocated.count_total, 0);
}
