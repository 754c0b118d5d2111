//! What each layer costs around a service that answers at once.

use std::{sync::Arc, time::Duration};

use evenkeel_core::node::Node;
use evenkeel_layers::{balance::BalanceLayer, observe::ObserveLayer, per_endpoint::PerEndpoint};
use tower::{Layer, ServiceBuilder, limit::ConcurrencyLimitLayer};

use crate::{
    contender::{Entry, Shared},
    leaf::{Nothing, endpoints},
    measure::{Rounds, allocations, alternate, runtime},
    print,
};

const ROUNDS: Rounds = Rounds { count: 200, length: Duration::from_millis(2) };
const PIPELINE: &str = "balance of 1 + concurrency limit each";

pub(crate) fn run() {
    print::title(
        "layers",
        "Time a request of one task through each layer, what it costs beyond the bare service, and heap\n\
         allocations a request.",
    );
    let runtime = runtime();
    let entries = entries();
    let contenders: Vec<_> = {
        let _inside = runtime.enter();
        entries.iter().map(|entry| (entry.make)(1)).collect()
    };
    let contenders: Vec<_> = contenders.iter().map(|contender| &**contender).collect();
    let figures = alternate(&runtime, &contenders, 1, ROUNDS);

    print::head("", &["a request", "cost", "allocations"]);
    let bare = figures[0].best();
    let mut in_pipeline = 0.0;
    for (entry, figure) in entries.iter().zip(&figures) {
        let allocations = allocations(|| (entry.make)(1));
        let time = figure.best();
        let cells = [print::nanos(time), print::nanos(time - bare), format!("{allocations:.2}")];
        print::row(&entry.name, &cells);
        if entry.name == PIPELINE {
            in_pipeline = allocations;
        }
    }
    println!();
    print::at_most(PIPELINE, in_pipeline, 0.0, "allocations");
}

/// The bare service first.
fn entries() -> Vec<Entry> {
    let limit = ConcurrencyLimitLayer::new(64);
    let balance = |count| BalanceLayer::p2c(endpoints(count));
    let connect = |_: &Arc<Node>| Nothing;
    vec![
        Entry::new("no layer", |_| Shared(Nothing)),
        Entry::new("tower ConcurrencyLimit", {
            let limit = limit.clone();
            move |_| Shared(limit.layer(Nothing))
        }),
        Entry::new("balance of 1", move |count| Shared(balance(count).layer(connect))),
        Entry::new("observe, nobody listens", |_| Shared(ObserveLayer::new().layer(Nothing))),
        Entry::new("balance of 1 + observe each", move |count| {
            let each = ObserveLayer::new();
            Shared(ServiceBuilder::new().layer(balance(count)).layer(each).service(connect))
        }),
        Entry::new(PIPELINE, move |count| {
            let each = PerEndpoint::new(limit.clone());
            Shared(ServiceBuilder::new().layer(balance(count)).layer(each).service(connect))
        }),
    ]
}
