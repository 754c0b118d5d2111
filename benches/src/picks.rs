//! What a pick of an endpoint costs: policies and peers, by endpoints and tasks.

use std::{collections::HashMap, time::Duration};

use tokio::runtime::Runtime;

use crate::{
    contender::{Entry, Shared},
    leaf::{Leaf, Nothing, Yielding},
    measure::{Rounds, allocations, alternate, runtime},
    peers::{
        self,
        prototype::PROTOTYPE,
        tower_balance::{BALANCE, BUFFER},
    },
    print,
};

const ENDPOINTS: [usize; 6] = [3, 10, 100, 1_000, 10_000, 100_000];
const TASKS: [u64; 3] = [1, 2, 64];
const ROUNDS: Rounds = Rounds { count: 50, length: Duration::from_millis(2) };

/// Nanoseconds per request by name, endpoints and tasks.
type Figures = HashMap<(String, usize, u64), f64>;

pub(crate) fn run() {
    print::title(
        "picks",
        "Time a request and requests a second over all tasks, around a service that answers at once.\n\
         Tasks make one request after another; time a request is the time of a round divided by all\n\
         requests of all tasks. tower's Balance cannot be shared: there each task has its own. tonic's\n\
         balance_list takes no connector, so it cannot be had without sockets: see the part `wire`.",
    );
    if cfg!(not(feature = "pingora")) {
        println!("pingora is not built in: `cargo bench --features pingora` (takes cmake).");
    }
    let runtime = runtime();
    let entries = entries(&Nothing);
    let mut figures = Figures::new();
    for endpoints in ENDPOINTS {
        measure(&runtime, &entries, endpoints, &mut figures);
    }
    compare(&figures);

    print::title(
        "picks, waiting",
        "The same at 10 endpoints around a service that waits once, as everything on a network does:\n\
         latency is really measured, and tokio's scheduler is passed through once a request.",
    );
    let mut figures = Figures::new();
    let mut entries = vec![Entry::new("no balancer", |_| Shared(Yielding))];
    entries.extend(self::entries(&Yielding));
    measure(&runtime, &entries, 10, &mut figures);
    for tasks in [1, 64] {
        let cost = |name: &str| figures[&(name.to_owned(), 10, tasks)];
        let ratio = cost("peak_ewma") / cost("p2c");
        print::at_most(&format!("waiting: peak_ewma, tasks: {tasks}"), ratio, 1.5, "× p2c");
    }
}

fn entries<S: Leaf>(leaf: &S) -> Vec<Entry> {
    let mut entries = peers::ours(leaf);
    entries.push(peers::prototype::entry(leaf.clone()));
    entries.extend(peers::tower_balance::entries(leaf));
    #[cfg(feature = "pingora")]
    entries.extend(peers::pingora::entries());
    entries
}

/// Measures all contenders with this many endpoints, and prints a row for each.
fn measure(runtime: &Runtime, entries: &[Entry], endpoints: usize, figures: &mut Figures) {
    let columns = ["1 task", "", "2 tasks", "", "64 tasks", "", "allocations"];
    print::head(&format!("{} endpoints", print::thousands(endpoints)), &columns);

    let entries: Vec<_> = entries.iter().filter(|entry| entry.fits(endpoints, 1)).collect();
    let contenders: Vec<_> = {
        let _inside = runtime.enter();
        entries.iter().map(|entry| (entry, (entry.make)(endpoints))).collect()
    };
    for tasks in TASKS {
        let fit = contenders.iter().filter(|(entry, _)| entry.fits(endpoints, tasks));
        let fit: Vec<_> = fit.map(|(entry, contender)| (&entry.name, &**contender)).collect();
        let measured: Vec<_> = fit.iter().map(|(_, contender)| *contender).collect();
        let samples = alternate(runtime, &measured, tasks, ROUNDS);
        for ((name, _), samples) in fit.into_iter().zip(samples) {
            figures.insert((name.clone(), endpoints, tasks), samples.best());
        }
    }
    drop(contenders);

    for entry in entries {
        let figures = TASKS.map(|tasks| figures.get(&(entry.name.clone(), endpoints, tasks)));
        let cells = figures.into_iter().flat_map(|figure| match figure {
            Some(nanos) => [print::nanos(*nanos), print::rate(*nanos)],
            None => [const { String::new() }; 2],
        });
        let allocations = allocations(|| (entry.make)(endpoints));
        let cells: Vec<_> = cells.chain([format!("{allocations:.2}")]).collect();
        print::row(&entry.name, &cells);
    }
}

/// Prints which targets are met.
fn compare(figures: &Figures) {
    println!();
    for tasks in [1, 64] {
        let cost = |name: &str, endpoints| figures[&(name.to_owned(), endpoints, tasks)];
        for policy in ["round_robin", "random", "p2c"] {
            let what = format!("{policy}, 10 endpoints, tasks: {tasks}");
            print::at_most(&what, cost(policy, 10) / cost(PROTOTYPE, 10), 1.5, "× prototype");
        }
        for policy in ["round_robin", "random", "p2c"] {
            let what = format!("{policy}, 100,000 endpoints, tasks: {tasks}");
            let limit = "× 10 endpoints";
            print::at_most(&what, cost(policy, 100_000) / cost(policy, 10), 2.5, limit);
        }
        let what = format!("peak_ewma, 10 endpoints, tasks: {tasks}");
        print::at_most(&what, cost("peak_ewma", 10) / cost("p2c", 10), 1.5, "× p2c");
        // No endpoint answers probes here, so this is the cost of choosing and not of probing.
        let what = format!("prequal, 10 endpoints, tasks: {tasks}");
        print::at_most(&what, cost("prequal", 10) / cost("p2c", 10), 2.0, "× p2c");
        let what = format!("p2c, 10 endpoints, tasks: {tasks}");
        let faster = |peer| cost(peer, 10) / cost("p2c", 10);
        print::at_least(&what, faster(BALANCE), 4.0, "× as fast as tower's Balance");
        print::at_least(&what, faster(BUFFER), 15.0, "× as fast as Buffer<Balance>");
    }
}
