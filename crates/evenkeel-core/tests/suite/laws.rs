//! Every policy that has a name is checked against the laws.

use std::time::Duration;

use evenkeel_core::policy::{
    BUILT_IN, BuiltIn, Maglev, PickFirst, Policy, PreferZone, RoundRobin, SlowStart, Split, Tiers,
    WeightedP2c, WeightedRoundRobin, ZoneAware, ZoneWeighted,
    laws::{self, Spread},
    split,
};

fn hashing() -> impl Iterator<Item = &'static BuiltIn> {
    BUILT_IN.iter().filter(|policy| policy.hashes())
}

#[test]
fn every_policy_keeps_the_laws() {
    BUILT_IN.iter().for_each(|policy| laws::check(&*policy.make(), policy.spread));
}

#[test]
fn every_policy_that_hashes_keeps_the_laws_of_hashing() {
    hashing().for_each(|policy| laws::check_hashing(&*policy.make()));
}

#[test]
fn bounds_on_the_load_break_no_law() {
    for policy in hashing() {
        let bounded = policy.bounded(1.25).unwrap();
        laws::check(&*bounded, policy.spread);
        laws::check_hashing(&*bounded);
    }
}

#[test]
fn every_policy_that_wraps_others_passes_on_what_its_child_needs() {
    for policy in BUILT_IN.iter().filter(|policy| policy.wraps()) {
        laws::check_wrapping(|child| policy.wrap(child).unwrap());
    }
    laws::check_wrapping(|child| Box::new(ZoneAware::new("here", child)));
    laws::check_wrapping(|child| Box::new(PreferZone::new("here", child)));
    laws::check_wrapping(|child| {
        Box::new(Split::new(child).subset("new", 1, split::label("track", "new")))
    });
    // What holds a policy wraps it, too.
    laws::check_wrapping(|child| Box::new(child));
    laws::check_wrapping(|child| Box::new(std::sync::Arc::<dyn Policy>::from(child)));
}

#[test]
fn every_policy_that_wraps_others_keeps_the_laws_of_its_child() {
    for policy in BUILT_IN.iter().filter(|policy| policy.wraps()) {
        let weighted = policy.wrap(Box::new(WeightedRoundRobin)).unwrap();
        laws::check(&*weighted, Spread::ByWeight);
        // A slow start gives a node that is just back only some of its keys.
        if policy.name != "slow_start" {
            laws::check_hashing(&*policy.wrap(Box::new(Maglev::new())).unwrap());
        }
    }
}

#[test]
fn policies_that_wrap_each_other_keep_the_laws_of_the_innermost() {
    let second = Duration::from_secs(1);
    laws::check(&Tiers::new(PickFirst), Spread::Not);
    laws::check(&ZoneAware::new("here", WeightedP2c), Spread::ByWeight);
    let nested = Tiers::new(ZoneAware::new("here", SlowStart::new(second, RoundRobin)));
    laws::check(&nested, Spread::Even);
    let hashed = Tiers::new(ZoneAware::new("here", SlowStart::new(second, Maglev::new())));
    laws::check(&hashed, Spread::ByWeight);
    laws::check_hashing(&hashed);
}

#[test]
fn no_node_is_picked_against_the_laws_if_nodes_differ_in_tier_zone_and_label() {
    let other_port = |endpoint: &evenkeel_core::endpoint::Endpoint| {
        endpoint.address.to_string().bytes().map(u32::from).sum::<u32>() % 3 == 0
    };
    // Split by the address, so that the laws' own nodes fall into both subsets.
    laws::check(&Split::new(RoundRobin).subset("third", 1, other_port), Spread::Not);
    let nested = Split::new(PreferZone::new("here", ZoneWeighted::new(RoundRobin)));
    laws::check(&nested.subset("none", 5, split::label("track", "canary")), Spread::Even);
}
