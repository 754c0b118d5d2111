//! What hashing policies cost, beside pingora's ketama: a pick by key, and building the picker.

use std::{hint::black_box, sync::Arc};

use evenkeel_core::{
    hash::{crc32, xxh64},
    node::Node,
    policy::{BUILT_IN, BuiltIn, PickContext, Picker, Policy},
    rng::Rng,
};

#[cfg(feature = "pingora")]
use crate::peers;
use crate::{
    clock::Stopwatch,
    contender::{Contender, Entry, Work},
    leaf::endpoints,
    measure::{Rounds, alternate, runtime},
    print,
};

const ENDPOINTS: [usize; 5] = [10, 100, 1_000, 10_000, 100_000];
const ROUNDS: Rounds = Rounds { count: 30, length: std::time::Duration::from_millis(2) };

/// The usual bound on load.
const FACTOR: f64 = 1.25;

/// How long Maglev for 10,000 endpoints may take.
const MAX_BUILD_MS: f64 = 50.0;

#[cfg(feature = "pingora")]
const PINGORA: &str = "pingora, selection only, ketama";

pub(crate) fn run() {
    print::title(
        "hashing",
        "Time of a pick by key alone, hashing the eight bytes of a number included; weights are 1, 2 and 3.\n\
         With bounded load every request is in flight until the next one.",
    );
    picks();
    println!("\nTime until a picker is built, the best of three: off the request path.");
    builds();
}

fn picks() {
    print::head("", &ENDPOINTS.map(print::thousands).each_ref().map(String::as_str));
    let runtime = runtime();
    let entries = entries();
    let mut rows: Vec<Vec<f64>> = vec![Vec::new(); entries.len()];
    for endpoints in ENDPOINTS {
        let inside = runtime.enter();
        let fit = entries.iter().enumerate().filter(|(_, entry)| entry.fits(endpoints, 1));
        let made: Vec<_> = fit.map(|(row, entry)| (row, (entry.make)(endpoints))).collect();
        drop(inside);
        let contenders: Vec<_> = made.iter().map(|(_, contender)| &**contender).collect();
        for ((row, _), samples) in made.iter().zip(alternate(&runtime, &contenders, 1, ROUNDS)) {
            rows[*row].push(samples.best());
        }
    }
    for (entry, row) in entries.iter().zip(&rows) {
        print::row(&entry.name, &row.iter().copied().map(print::nanos).collect::<Vec<_>>());
    }

    println!();
    let cost = |name: &str, column: usize| {
        let row = entries.iter().position(|entry| entry.name == name).expect("it is in the table");
        rows[row][column]
    };
    for name in ["ring_hash, bounded", "ketama, bounded", "maglev, bounded"] {
        let what = format!("{name}, 10,000 endpoints");
        print::at_most(&what, cost(name, 3) / cost(name, 0), 5.0, "× 10 endpoints");
    }
    #[cfg(feature = "pingora")]
    for name in ["ring_hash", "ketama", "maglev"] {
        for (column, endpoints) in [(0, "10"), (3, "10,000")] {
            let what = format!("{name}, {endpoints} endpoints");
            print::at_most(
                &what,
                cost(name, column) / cost(PINGORA, column),
                1.0,
                "× pingora's ketama",
            );
        }
    }
}

fn entries() -> Vec<Entry> {
    let mut entries = Vec::new();
    for policy in hashing() {
        // Nginx hashes keys by CRC-32.
        let hash = if policy.name == "ketama" { nginx } else { xxh64 };
        let bounded = move || policy.bounded(FACTOR).expect("it hashes");
        entries.push(entry(policy.name, move || policy.make(), hash));
        entries.push(entry(&format!("{}, bounded", policy.name), bounded, hash));
    }
    #[cfg(feature = "pingora")]
    entries.push(peers::pingora::ketama());
    entries
}

fn nginx(key: &[u8]) -> u64 {
    crc32(key).into()
}

fn hashing() -> impl Iterator<Item = &'static BuiltIn> {
    BUILT_IN.iter().filter(|policy| policy.hashes())
}

fn entry(
    name: &str,
    make: impl Fn() -> Box<dyn Policy> + 'static,
    hash: fn(&[u8]) -> u64,
) -> Entry {
    Entry::new(name, move |count| {
        let nodes = nodes(count);
        let picker = make().build(&nodes, None);
        Picks(Arc::new((nodes, picker)), hash)
    })
}

struct Picks(Arc<(Box<[Arc<Node>]>, Box<dyn Picker>)>, fn(&[u8]) -> u64);

impl Contender for Picks {
    fn work(&self, requests: u64) -> Work {
        let (set, hash) = (self.0.clone(), self.1);
        Box::pin(async move {
            let (nodes, picker) = &*set;
            let mut rng = Rng::with_seed(1);
            let mut busy = 0;
            nodes[busy].enter();
            for request in 0..requests {
                let mut cx = PickContext::new(&mut rng);
                cx.hash = Some(hash(&request.to_le_bytes()));
                let picked = picker.pick(nodes, &mut cx).expect("all are open");
                nodes[busy].exit();
                nodes[picked].enter();
                busy = black_box(picked);
            }
            nodes[busy].exit();
        })
    }
}

fn nodes(count: usize) -> Box<[Arc<Node>]> {
    endpoints(count).into_iter().map(|endpoint| Arc::new(Node::new(endpoint))).collect()
}

fn builds() {
    print::head("", &ENDPOINTS.map(print::thousands).each_ref().map(String::as_str));
    let mut maglev = f64::INFINITY;
    for built_in in hashing() {
        let (name, policy) = (built_in.name, built_in.make());
        let cells = ENDPOINTS.map(|count| {
            let nodes = nodes(count);
            let nanos = best(|| drop(black_box(policy.build(&nodes, None))));
            if (name, count) == ("maglev", 10_000) {
                maglev = nanos / 1e6;
            }
            print::nanos(nanos)
        });
        print::row(name, &cells);
    }
    #[cfg(feature = "pingora")]
    {
        let sizes =
            ENDPOINTS.into_iter().filter(|&count| count <= peers::pingora::MAX_KETAMA_ENDPOINTS);
        let build = |count| best(|| drop(black_box(peers::pingora::build_ketama(count))));
        print::row(
            "pingora's ketama, with its backends",
            &sizes.map(build).map(print::nanos).collect::<Vec<_>>(),
        );
    }
    println!();
    print::at_most("maglev, 10,000 endpoints", maglev, MAX_BUILD_MS, "ms to build");
}

fn best(mut build: impl FnMut()) -> f64 {
    let mut once = || {
        let stopwatch = Stopwatch::start();
        build();
        stopwatch.nanos()
    };
    [(); 3].map(|()| once()).into_iter().fold(f64::INFINITY, f64::min)
}
