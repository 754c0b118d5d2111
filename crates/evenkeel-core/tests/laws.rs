//! Every policy of the by-name list is put to the laws.

#![cfg(not(loom))]

use evenkeel_core::policy::{
    Ketama, Maglev, NAMES, Policy, Rendezvous, RingHash, by_name,
    laws::{self, Spread},
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
