//! What a change of the set costs, from sending the update to a request that is balanced over the
//! new set.

use evenkeel_core::{
    discover::Update::{self, Insert, Remove, Set},
    endpoint::Endpoint,
};

use crate::{
    leaf::endpoint,
    measure::{Samples, local_runtime},
    print,
};

mod ours;
mod tower_balance;

const POLICIES: [&str; 3] = ["p2c", "weighted_round_robin", "weighted_random"];
const REPETITIONS: usize = 11;

/// A kind of change. It makes the update of each repetition, for a set that began with `count`
/// endpoints.
#[derive(Clone, Copy)]
struct Change {
    name: &'static str,
    is_single: bool,
    update: fn(count: usize, repetition: usize) -> Update,
}

const CHANGES: [Change; 5] = [
    Change {
        name: "one joins",
        is_single: true,
        update: |count, repetition| Insert(endpoint(count + repetition)),
    },
    Change {
        name: "one leaves",
        is_single: true,
        update: |count, repetition| Remove(endpoint(somewhere(count, repetition)).address),
    },
    Change {
        name: "one weight changes",
        is_single: true,
        update: |count, repetition| {
            Insert(endpoint(somewhere(count, repetition)).weight(4 + repetition as u32))
        },
    },
    Change {
        name: "the same set again",
        is_single: false,
        update: |count, _| Set((0..count).map(endpoint).collect()),
    },
    Change {
        name: "all replaced",
        is_single: false,
        update: |count, repetition| Set(generation(count, repetition + 1)),
    },
];

fn somewhere(count: usize, repetition: usize) -> usize {
    count / 2 + repetition
}

/// This many endpoints, which are in no other generation.
fn generation(count: usize, number: usize) -> Vec<Endpoint> {
    (number * count..(number + 1) * count).map(endpoint).collect()
}

/// The durations of one change, for each repetition.
struct Took {
    /// From sending the update until requests see it.
    applied: Samples,
    /// The first request after the update.
    request: Samples,
}

pub(crate) fn run() {
    print::title(
        "churn",
        "Time from sending an update until the snapshot that has it is published (applied), and of the\n\
         first request after it, which lets go of the old snapshot. Median of 11. tower's Balance\n\
         applies changes when it is polled for a request.",
    );
    for count in [10_000, 100_000] {
        let name = format!("{} endpoints", print::thousands(count));
        print::head(&name, &["applied", "a request"]);
        let mut slowest = 0.0_f64;
        for policy in POLICIES {
            for change in CHANGES {
                let took = local_runtime().block_on(ours::measure(policy, change, count));
                row(policy, change, &took);
                if change.is_single {
                    slowest = slowest.max(took.applied.median() / 1e6);
                }
            }
        }
        for change in CHANGES {
            let took = local_runtime().block_on(tower_balance::measure(change, count));
            row("tower Balance", change, &took);
        }
        if count == 10_000 {
            println!();
            print::at_most("one change among 10,000, any policy", slowest, 1.0, "ms");
        }
    }
}

fn row(name: &str, change: Change, took: &Took) {
    let cells = [&took.applied, &took.request].map(|samples| print::nanos(samples.median()));
    print::row(&format!("{name}, {}", change.name), &cells);
}
