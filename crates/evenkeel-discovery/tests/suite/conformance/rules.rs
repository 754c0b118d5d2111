//! The rules about a discovery alone.

use std::time::Duration;

use evenkeel_discovery::register::Entry;

use crate::conformance::{
    harness::{Harness, Instance, State},
    servers::until,
    watching::Watching,
};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn addresses(instances: &[Instance]) -> Vec<&str> {
    instances.iter().map(|instance| &*instance.address).collect()
}

/// Follows the service until this set is reported.
async fn follow<H: Harness>(harness: &H, instances: &[Instance]) -> Watching {
    let mut watching = Watching::new(&harness.discovery());
    watching.until_addresses(&addresses(instances)).await;
    watching
}

pub(crate) async fn all_parts_make_one_set<H: Harness>(mut harness: H) {
    let (parts, each) = H::PARTS;
    let mut all = vec![];
    for part in 0..parts {
        let one = |n| Instance { part, ..Instance::at(format!("10.0.{part}.1:{}", n + 1)) };
        all.extend((0..each).map(one));
    }
    harness.set(&all).await;

    let watching = follow(&harness, &all).await;

    assert_eq!(watching.least, all.len(), "never a part of it");
}

pub(crate) async fn readiness_counts_and_an_unstated_readiness_means_ready<H: Harness>(
    mut harness: H,
) {
    let weight = if H::HAS_WEIGHTS { 7 } else { 1 };
    let draining = Instance::at("10.0.0.1:2").weight(weight).state(State::Draining);
    harness.set(&[Instance::at("10.0.0.1:1"), draining]).await;
    let mut watching = Watching::new(&harness.discovery());
    watching.until_weights(&[("10.0.0.1:1", 1), ("10.0.0.1:2", 0)]).await;

    harness.set(&[Instance::at("10.0.0.1:1"), Instance::at("10.0.0.1:2").weight(weight)]).await;
    watching.until_weights(&[("10.0.0.1:1", 1), ("10.0.0.1:2", weight)]).await;
}

pub(crate) async fn an_empty_set_is_announced_as_empty<H: Harness>(mut harness: H) {
    let mut watching = follow(&harness, &[]).await;

    if !H::CHANGES {
        return;
    }
    harness.set(&Instance::ports([1, 2])).await;
    watching.until_addresses(&["10.0.0.1:1", "10.0.0.1:2"]).await;
    harness.set(&[]).await;
    watching.until_addresses(&[]).await;
}

pub(crate) async fn a_moment_without_data_empties_no_set<H: Harness>(mut harness: H) {
    let instances = Instance::ports([1, 2, 3]);
    harness.set(&instances).await;
    let mut watching = follow(&harness, &instances).await;

    harness.blink().await;
    watching.during(ms(1_000)).await;
    let mut more = instances;
    more.push(Instance::at("10.0.0.1:4"));
    harness.set(&more).await;

    watching.until_addresses(&addresses(&more)).await;
    assert_eq!(watching.least, 3, "no moment with fewer");
}

pub(crate) async fn a_lost_history_is_answered_by_a_fresh_list<H: Harness>(mut harness: H) {
    let before = Instance::ports([1, 2]);
    harness.set(&before).await;
    let mut watching = follow(&harness, &before).await;

    let after = Instance::ports([2, 3]);
    harness.lose_history(&after).await;

    watching.until_addresses(&addresses(&after)).await;
    assert!(2 <= watching.least, "no moment with fewer: {}", watching.least);
    let more = Instance::ports([2, 3, 4]);
    harness.set(&more).await;
    watching.until_addresses(&addresses(&more)).await;
}

pub(crate) async fn every_change_of_a_batch_is_applied<H: Harness>(mut harness: H) {
    harness.set(&Instance::ports([1])).await;
    let mut watching = follow(&harness, &Instance::ports([1])).await;

    let many = Instance::ports(1..=61);
    harness.set(&many).await;
    watching.until_addresses(&addresses(&many)).await;

    let few = Instance::ports(60..=70);
    harness.set(&few).await;
    watching.until_addresses(&addresses(&few)).await;
}

pub(crate) async fn a_position_that_goes_backwards_is_noticed<H: Harness>(mut harness: H) {
    // Some changes, so that the position is greater than it will be afterwards.
    for port in 1..=5 {
        harness.set(&Instance::ports(port..=port + 1)).await;
    }
    let before = Instance::ports([5, 6]);
    let mut watching = follow(&harness, &before).await;

    let after = Instance::ports([6, 7]);
    harness.go_back(&after).await;

    watching.until_addresses(&addresses(&after)).await;
    let more = Instance::ports([6, 7, 8]);
    harness.set(&more).await;
    watching.until_addresses(&addresses(&more)).await;
}

pub(crate) async fn the_last_set_stays_while_the_registry_fails<H: Harness>(mut harness: H) {
    let instances = Instance::ports([1, 2]);
    harness.set(&instances).await;
    let mut watching = follow(&harness, &instances).await;

    harness.fail().await;
    let failed = watching.until_failure().await.to_string();
    assert!(failed.contains("endpoints kept: 2"), "{failed}");
    watching.during(ms(2_000)).await;
    let mut told: Vec<_> = watching.failures.iter().map(|error| format!("{error:?}")).collect();
    told.sort_unstable();
    assert!(told.windows(2).all(|two| two[0] != two[1]), "told at each try: {told:?}");
    assert_eq!(watching.least, 2);

    harness.mend().await;
    harness.set(&Instance::ports([1, 2, 3])).await;
    watching.until_addresses(&["10.0.0.1:1", "10.0.0.1:2", "10.0.0.1:3"]).await;
    assert_eq!(watching.least, 2);
}

pub(crate) async fn a_registry_that_is_down_is_asked_at_growing_intervals<H: Harness>(
    mut harness: H,
) {
    let instances = Instance::ports([1]);
    harness.set(&instances).await;
    let mut watching = follow(&harness, &instances).await;

    harness.fail().await;
    watching.until_failure().await;
    watching.during(ms(4_000)).await;

    let asked = harness.asked();
    assert!((2..60).contains(&asked.len()), "asked {} times in 4 s", asked.len());
    // One try may ask more than once; only the long gaps are rests.
    let rests = asked.windows(2).map(|two| two[1] - two[0]).filter(|rest| ms(15) < *rest);
    let rests: Vec<_> = rests.collect();
    let (first, longest) = (rests[0], *rests.iter().max().unwrap());
    assert!(first.mul_f64(1.5) < longest, "{rests:?}");
}

pub(crate) async fn a_name_is_not_a_prefix<H: Harness>(mut harness: H) {
    harness.enter_beside().await;
    let instances = Instance::ports([1]);
    harness.set(&instances).await;
    let mut watching = follow(&harness, &instances).await;

    harness.enter_beside().await;
    watching.during(ms(300)).await;
    assert_eq!(watching.addresses(), ["10.0.0.1:1"]);
}

pub(crate) async fn an_ipv6_address_is_an_address<H: Harness>(mut harness: H) {
    let instances = [Instance::at("[2001:db8::1]:80"), Instance::at("10.0.0.1:80")];
    harness.set(&instances).await;
    follow(&harness, &instances).await;
}

pub(crate) async fn a_registration_heals_itself<H: Harness>(mut harness: H) {
    let entry = Entry::new("web", "10.0.0.1:80".parse().unwrap());
    let registered = harness.register(entry.clone());
    let mut watching = Watching::new(&harness.discovery());
    watching.until_addresses(&["10.0.0.1:80"]).await;
    watching.least = 1;

    harness.take_out(&entry).await;
    watching.during(ms(3_000)).await;
    watching.until_addresses(&["10.0.0.1:80"]).await;
    assert_eq!(watching.least, 1, "it was back before the loss was believed");

    harness.go_back(&[]).await;
    // If a registry was away only for a moment, the registration may have seen only the loss of its
    // entry.
    let mut found = Watching::new(&harness.discovery());
    found.until_addresses(&["10.0.0.1:80"]).await;
    watching.during(ms(500)).await;
    assert_eq!(watching.least, 1);

    registered.leave().await;
    until("that it has left", || async {
        let mut now = Watching::new(&harness.discovery());
        now.next().await;
        now.addresses().is_empty()
    })
    .await;
}

pub(crate) async fn weights_and_tiers_count<H: Harness>(mut harness: H) {
    let weights = [("10.0.0.1:1", 1), ("10.0.0.1:2", 10), ("10.0.0.1:3", 65_535)];
    let tier = u32::from(H::HAS_TIERS);
    let instances =
        weights.map(|(address, weight)| Instance { tier, ..Instance::at(address).weight(weight) });
    harness.set(&instances).await;

    let mut watching = Watching::new(&harness.discovery());
    watching.until_weights(&weights).await;
    assert!(weights.iter().all(|(at, _)| watching.find(at).unwrap().priority == tier));
}

pub(crate) async fn an_endpoint_that_fails_is_left_out<H: Harness>(mut harness: H) {
    let instances = [Instance::at("10.0.0.1:1"), Instance::at("10.0.0.1:2").state(State::Failing)];
    harness.set(&instances).await;

    let mut watching = follow(&harness, &instances[..1]).await;

    harness.set(&Instance::ports([1, 2])).await;
    watching.until_addresses(&["10.0.0.1:1", "10.0.0.1:2"]).await;
    harness.set(&instances).await;
    watching.until_addresses(&["10.0.0.1:1"]).await;
}
