//! Every policy of the by-name list is put to the laws.

#![cfg(not(loom))]

use evenkeel_core::policy::{
    NAMES, by_name,
    laws::{self, Spread},
};

#[test]
fn every_policy_keeps_the_laws() {
    for name in NAMES {
        let spread = match name {
            "weighted_round_robin" | "weighted_random" | "weighted_p2c" | "least_loaded" => {
                Spread::ByWeight
            }
            "pick_first" => Spread::Not,
            _ => Spread::Even,
        };
        laws::check(&*by_name(name).unwrap(), spread);
    }
}
