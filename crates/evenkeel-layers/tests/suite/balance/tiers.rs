//! Tiers, zones, slow start and panic, through a whole balancer.

use std::{collections::BTreeMap, time::Duration};

use evenkeel_core::{
    discover::Update,
    endpoint::Endpoint,
    node::Gate,
    policy::{RoundRobin, Split, split},
};
use evenkeel_layers::balance::{Balance, BalanceLayer};
use tokio::time::advance;
use tower::Service;

use crate::balance::probe::{Channel, Connector, World, endpoint, ready, tick};

/// A channel with these endpoints as its first set.
fn channel(endpoints: Vec<Endpoint>) -> Channel {
    let channel = Channel::of(&[]);
    channel.send(Update::Set(endpoints));
    channel
}

/// How many of `requests` requests each host answered.
async fn answers(balance: &mut Balance<Connector>, requests: u32) -> BTreeMap<String, u32> {
    let mut answers = BTreeMap::new();
    for number in 0..requests {
        let answer =
            ready(balance).await.expect("one is open").call(number).await.expect("an answer");
        *answers.entry(answer.split(':').next().unwrap_or_default().to_owned()).or_default() += 1;
    }
    answers
}

fn of(answers: &BTreeMap<String, u32>, names: &[&str]) -> u32 {
    names.iter().filter_map(|&name| answers.get(name)).sum()
}

fn two_tiers() -> Vec<Endpoint> {
    let first = ["a", "b", "c", "d"].map(endpoint);
    let second = ["s", "t"].map(|name| endpoint(name).priority(1));
    first.into_iter().chain(second).collect()
}

#[tokio::test(start_paused = true)]
async fn requests_go_to_the_next_tier_as_the_first_falls_ill_and_come_back() {
    let world = World::default();
    let channel = channel(two_tiers());
    let mut balance = world.balance(&BalanceLayer::round_robin(channel).tiers().seed(1));

    assert_eq!(of(&answers(&mut balance, 400).await, &["s", "t"]), 0);
    let ill = ["a", "b"].map(|name| world.host(name).node());
    ill.iter().for_each(|node| _ = node.close(Gate::Ejected));
    // Two of four, times 1.4: 70 %.
    let spilt = of(&answers(&mut balance, 2_000).await, &["s", "t"]);
    assert!((500..700).contains(&spilt), "{spilt} of 2000");
    ill.iter().for_each(|node| _ = node.open(Gate::Ejected));
    assert_eq!(of(&answers(&mut balance, 400).await, &["s", "t"]), 0);
}

#[tokio::test(start_paused = true)]
async fn a_tier_that_changes_its_endpoints_is_counted_again() {
    let world = World::default();
    let channel = channel(two_tiers());
    let layer = BalanceLayer::round_robin(channel.clone()).tiers().seed(1);
    let mut balance = world.balance(&layer);
    answers(&mut balance, 10).await;

    // Three of the four move to tier 1. One is left, and it is fit.
    let moved = ["b", "c", "d"].map(|name| Update::Insert(endpoint(name).priority(1)));
    moved.into_iter().for_each(|update| channel.send(update));
    tick().await;
    assert_eq!(of(&answers(&mut balance, 200).await, &["a"]), 200);
    world.host("a").node().close(Gate::Unhealthy);
    let answers = answers(&mut balance, 200).await;
    assert_eq!(of(&answers, &["a"]), 0);
    assert_eq!(of(&answers, &["b", "c", "d"]), 120, "{answers:?}");
}

#[tokio::test(start_paused = true)]
async fn under_the_threshold_ill_endpoints_are_used_too() {
    for layer in [
        BalanceLayer::round_robin(Channel::of(&["a", "b", "c", "d", "e"])).panic_threshold(50),
        BalanceLayer::p2c(Channel::of(&["a", "b", "c", "d", "e"])).tiers(),
        BalanceLayer::p2c(Channel::of(&["a", "b", "c", "d", "e"])).tiers().fail_open(false),
    ] {
        let world = World::default();
        let mut balance = world.balance(&layer.seed(1));
        answers(&mut balance, 10).await;

        let ill = ["a", "b", "c"].map(|name| world.host(name).node());
        ill[..2].iter().for_each(|node| _ = node.close(Gate::Ejected));
        assert_eq!(of(&answers(&mut balance, 500).await, &["a", "b"]), 0);
        ill[2].close(Gate::Ejected);
        let used = of(&answers(&mut balance, 500).await, &["a", "b", "c"]);
        assert!((200..400).contains(&used), "{used} of 500 at three of five");
        ill[2].open(Gate::Ejected);
        assert_eq!(of(&answers(&mut balance, 500).await, &["a", "b"]), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_gets_its_share_little_by_little() {
    let world = World::default();
    let channel = Channel::of(&["a", "b", "c"]);
    let layer = BalanceLayer::round_robin(channel.clone()).slow_start(Duration::from_secs(60));
    let mut balance = world.balance(&layer.seed(1));
    let all = answers(&mut balance, 300).await;
    assert!(all.values().all(|&count| count == 100), "the first are warm: {all:?}");

    channel.send(Update::Insert(endpoint("new")));
    tick().await;
    let shares = [0, 30, 40].map(Duration::from_secs);
    for (passes, expected) in shares.into_iter().zip([100, 500, 1_000]) {
        advance(passes).await;
        let share = of(&answers(&mut balance, 4_000).await, &["new"]);
        assert!(share.abs_diff(expected) < 80, "{share} of 4000 for {expected}");
    }
}

#[tokio::test(start_paused = true)]
async fn requests_stay_in_their_zone_and_leave_it_as_it_falls_ill() {
    let world = World::default();
    let near = ["a", "b", "c"].map(|name| endpoint(name).zone("here"));
    let far = ["x", "y", "z"].map(|name| endpoint(name).zone("there"));
    let channel = channel(near.into_iter().chain(far).collect());
    let layer = BalanceLayer::p2c(channel.clone()).zone("here").seed(1);
    let mut balance = world.balance(&layer);

    assert_eq!(of(&answers(&mut balance, 300).await, &["a", "b", "c"]), 300);
    channel.send(Update::Insert(endpoint("v").zone("there")));
    tick().await;
    world.host("a").node().close(Gate::Unhealthy);
    // Two of six for half of the callers: two thirds stay.
    let local = of(&answers(&mut balance, 1_500).await, &["a", "b", "c"]);
    assert!((900..1_100).contains(&local), "{local} of 1500");
}

#[tokio::test(start_paused = true)]
async fn a_canary_gets_its_share() {
    let world = World::default();
    let stable = ["a", "b", "c"].map(endpoint);
    let canary = endpoint("canary").metadata("track", "canary");
    let channel = channel(stable.into_iter().chain([canary]).collect());
    let policy =
        Split::new(RoundRobin).subset("canary", 5, split::label("track", "canary")).rest(95);
    let mut balance = world.balance(&BalanceLayer::with_policy(channel, policy).seed(1));

    let share = of(&answers(&mut balance, 4_000).await, &["canary"]);
    assert!((150..250).contains(&share), "{share} of 4000");
}
