//! What each layer costs around a service that answers at once, beside layers of peers.

use std::time::Duration;

use crate::{
    contender::{Entry, Shared},
    leaf::Nothing,
    measure::{Rounds, allocations, alternate, runtime},
    print,
};

mod ours;
mod peers;

const ROUNDS: Rounds = Rounds { count: 100, length: Duration::from_millis(2) };

/// Nanoseconds that a layer may cost beyond the inner service.
const MAX_LAYER: f64 = 40.0;

/// Nanoseconds that the whole pipeline may cost.
const MAX_PIPELINE: f64 = 250.0;

/// The number of endpoints below a balancer.
const ENDPOINTS: usize = 10;

/// One line of the table.
struct Row {
    entry: Entry,
    /// The most it may cost, if it is ours.
    max_cost: Option<f64>,
}

pub(crate) fn run() {
    print::title(
        "layers",
        "Time a request of one task through each layer alone, what it costs beyond the bare service, and\n\
         heap allocations a request, while nothing fails. Ours first, then those of peers that do the\n\
         same.",
    );
    let runtime = runtime();
    let bare = Row { entry: Entry::new("no layer", |_| Shared(Nothing)), max_cost: None };
    let rows: Vec<_> = std::iter::once(bare).chain(rows()).collect();
    let contenders: Vec<_> = {
        let _inside = runtime.enter();
        rows.iter().map(|row| (row.entry.make)(ENDPOINTS)).collect()
    };
    let contenders: Vec<_> = contenders.iter().map(|contender| &**contender).collect();
    let figures = alternate(&runtime, &contenders, 1, ROUNDS);

    print::head("", &["a request", "cost", "allocations"]);
    let bare = figures[0].best();
    let mut targets = Vec::new();
    for (Row { entry, max_cost }, figure) in rows.iter().zip(&figures) {
        let allocations = allocations(|| (entry.make)(ENDPOINTS));
        let (time, cost) = (figure.best(), figure.best() - bare);
        let cells = [print::nanos(time), print::nanos(cost), format!("{allocations:.2}")];
        print::row(&entry.name, &cells);
        targets.extend(max_cost.map(|max| (&entry.name, cost, max, allocations)));
    }
    println!();
    for (name, cost, max, allocations) in targets {
        print::at_most(name, cost, max, "ns");
        print::at_most(name, allocations, 0.0, "allocations");
    }
}

/// Each of our layers, followed by its peers.
fn rows() -> impl Iterator<Item = Row> {
    let ours = |entry| Row { entry, max_cost: Some(MAX_LAYER) };
    let peer = |entry| Row { entry, max_cost: None };
    let whole = |entry| Row { entry, max_cost: Some(MAX_PIPELINE) };
    [
        vec![ours(ours::deadline()), peer(peers::tower_timeout())],
        vec![ours(ours::retry()), peer(peers::tower_retry()), peer(peers::resilience_retry())],
        vec![ours(ours::hedge()), peer(peers::tower_hedge())],
        vec![
            ours(ours::breaker()),
            peer(peers::resilience_breaker()),
            peer(peers::failsafe_breaker()),
        ],
        vec![
            ours(ours::concurrency_limit()),
            peer(peers::tower_concurrency_limit()),
            peer(peers::resilience_bulkhead()),
            ours(ours::concurrency_vegas()),
        ],
        vec![ours(ours::throttle()), ours(ours::load_shed()), ours(ours::fail_fast())],
        vec![ours(ours::observe())],
        vec![
            ours(ours::rate_limit()),
            peer(ours::rate_limit_keyed()),
            peer(peers::resilience_rate_limit()),
        ],
        vec![whole(ours::pipeline())],
    ]
    .into_iter()
    .flatten()
}
