//! Every policy that has a name is checked against the laws.

use std::time::Duration;

use evenkeel_core::policy::{
    Ketama, Maglev, NAMES, PanicThreshold, PickFirst, Policy, PreferZone, Priority, Rendezvous,
    RingHash, RoundRobin, SlowStart, Split, WeightedP2c, WeightedRoundRobin, ZoneAware,
    ZoneWeighted, by_name,
    laws::{self, Spread},
    split,
};

const HASHING: [&str; 4] = ["ring_hash", "ketama", "maglev", "rendezvous"];

#[test]
fn every_policy_keeps_the_laws() {
    for name in NAMES {
        let spread = match name {
            "weighted_round_robin"
            | "weighted_random"
            | "weighted_p2c"
            | "least_loaded"
            | "maglev"
            | "rendezvous" => Spread::ByWeight,
            "ring_hash" | "ketama" => Spread::Roughly,
            "pick_first" => Spread::Not,
            _ => Spread::Even,
        };
        laws::check(&*by_name(name).unwrap(), spread);
    }
}

#[test]
fn every_policy_that_hashes_keeps_the_laws_of_hashing() {
    HASHING.iter().for_each(|name| laws::check_hashing(&*by_name(name).unwrap()));
}

#[test]
fn bounds_on_the_load_break_no_law() {
    let bounded: [(Box<dyn Policy>, Spread); 4] = [
        (Box::new(RingHash::new().bounded_load(1.25)), Spread::Roughly),
        (Box::new(Ketama::new().bounded_load(1.25)), Spread::Roughly),
        (Box::new(Maglev::new().bounded_load(1.25)), Spread::ByWeight),
        (Box::new(Rendezvous::new().bounded_load(1.25)), Spread::ByWeight),
    ];
    for (policy, spread) in bounded {
        laws::check(&*policy, spread);
        laws::check_hashing(&*policy);
    }
}

#[test]
fn a_policy_that_wraps_others_keeps_the_laws_of_its_child() {
    let second = Duration::from_secs(1);
    laws::check(&Priority::new(WeightedRoundRobin), Spread::ByWeight);
    laws::check(&Priority::new(PickFirst), Spread::Not);
    laws::check(&PanicThreshold::new(100, WeightedP2c), Spread::ByWeight);
    laws::check(&ZoneAware::new("here", WeightedP2c), Spread::ByWeight);
    laws::check(&SlowStart::new(second, WeightedRoundRobin), Spread::ByWeight);
    let nested = Priority::new(ZoneAware::new("here", SlowStart::new(second, RoundRobin)));
    laws::check(&nested, Spread::Even);
    let hashed = Priority::new(ZoneAware::new("here", SlowStart::new(second, Maglev::new())));
    laws::check(&hashed, Spread::ByWeight);
    laws::check_hashing(&hashed);
}

#[test]
fn nobody_is_picked_against_the_laws_where_nodes_differ_in_tier_zone_and_label() {
    let other_port = |endpoint: &evenkeel_core::endpoint::Endpoint| {
        endpoint.address.to_string().bytes().map(u32::from).sum::<u32>() % 3 == 0
    };
    // Split by the address, so that the laws' own nodes fall into both subsets.
    laws::check(&Split::new(RoundRobin).subset("third", 1, other_port), Spread::Not);
    let nested = Split::new(PreferZone::new("here", ZoneWeighted::new(RoundRobin)));
    laws::check(&nested.subset("none", 5, split::label("track", "canary")), Spread::Even);
}
