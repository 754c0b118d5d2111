//! What the balancer costs on real sockets: HTTP/1.1 and gRPC over loopback.

use std::time::Duration;

use crate::{
    contender::Entry,
    measure::{Rounds, Samples, allocations, alternate, runtime},
    print,
};

mod grpc;
mod http;
pub mod serve;

const TASKS: [u64; 3] = [1, 8, 64];
const ROUNDS: Rounds = Rounds { count: 15, length: Duration::from_millis(120) };

/// The number of servers to balance over.
const SERVERS: usize = 3;

pub(crate) fn run() {
    print::title(
        "wire",
        "Requests a second over loopback, with 1, 8 and 64 at a time; the servers are another process,\n\
         on one thread. Median of 15 rounds. A ratio is the median over neighbouring rounds.",
    );
    let servers = serve::Servers::start();

    let entries = http::entries(&servers.http);
    let [bare, ours, _] = table("HTTP/1.1", &entries);
    println!();
    for (tasks, (ours, bare)) in TASKS.iter().zip(ours.iter().zip(&bare)) {
        let what = format!("HTTP/1.1, tasks: {tasks}");
        print::at_least(&what, bare.ratio(ours), 0.97, "× the requests of a bare client");
    }

    let entries = grpc::entries(&servers.grpc);
    let [bare, ours, tonic, ours_over_all] = table("gRPC unary", &entries);
    println!();
    for (index, tasks) in TASKS.iter().enumerate() {
        let what = format!("gRPC, tasks: {tasks}");
        let faster = bare[index].ratio(&ours[index]);
        print::at_least(&what, faster, 1.0, "× the requests of a bare tonic channel");
        let faster = tonic[index].ratio(&ours_over_all[index]);
        print::at_least(&what, faster, 1.0, "× the requests of tonic's balance_list");
    }
}

/// Measures and prints one protocol: the samples by contender and tasks.
fn table<const N: usize>(name: &str, entries: &[Entry; N]) -> [[Samples; TASKS.len()]; N] {
    let runtime = runtime();
    let contenders = {
        let _inside = runtime.enter();
        entries.each_ref().map(|entry| (entry.make)(SERVERS))
    };
    let contenders = contenders.each_ref().map(|contender| &**contender);
    let samples = TASKS.map(|tasks| alternate(&runtime, &contenders, tasks, ROUNDS));

    print::head(name, &["1 task", "8 tasks", "64 tasks", "allocations"]);
    std::array::from_fn(|index| {
        let samples = samples.each_ref().map(|samples| samples[index].clone());
        let allocations = allocations(|| (entries[index].make)(SERVERS));
        let rates = samples.each_ref().map(|samples| print::rate(samples.median()));
        let cells: Vec<_> = rates.into_iter().chain([format!("{allocations:.1}")]).collect();
        print::row(&entries[index].name, &cells);
        samples
    })
}
