//! A pipeline under load for minutes, while its endpoints join, leave, fail, hang and die.
//!
//! `cargo run --release -p evenkeel-tests --bin soak -- --minutes 10 --seed 7`. It fails if memory
//! grows, if anything is in flight or connected at the end, if a task is left over, or if a request
//! was lost or carried out twice. The servers are in the same process and record every request that
//! they see.

mod args;
mod churn;
mod ledger;
mod load;
mod memory;
mod pipeline;
mod server;

use std::{process::ExitCode, sync::Arc, time::Duration};

use args::Args;
use clap::Parser;
use ledger::Ledger;
use memory::Memory;
use tokio::{runtime::Handle, time::sleep};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> ExitCode {
    let faults = run(Args::parse()).await;
    for fault in &faults {
        println!("FAULT: {fault}");
    }
    println!("{}", if faults.is_empty() { "sound" } else { "not sound" });
    if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Returns the violations found at the end.
async fn run(args: Args) -> Vec<String> {
    println!("{} minutes, seed {}", args.minutes, args.seed);
    let ledger = Arc::new(Ledger::new(args.requests()));
    let tasks_before = Handle::current().metrics().num_alive_tasks();
    let (churn, discovery) = churn::Churn::set_up(args.seed, ledger.clone()).await;
    let pipeline = pipeline::pipeline(discovery);

    let memory = tokio::spawn(Memory::watch(args.duration()));
    let load = tokio::spawn(load::run(pipeline.client.clone(), args.clone(), ledger.clone()));
    let servers = churn.play(args.duration()).await;
    load.await.expect("the load does not panic");
    let memory = memory.await.expect("the watch does not panic");

    let mut faults = Vec::new();
    faults.extend(ledger.find_violations());
    faults.extend(memory.find_growth());
    let in_flight: u32 = pipeline.nodes().iter().map(|node| node.in_flight()).sum();
    if in_flight != 0 {
        faults.push(format!("{in_flight} attempts are in flight at the end"));
    }
    println!("{} changes and faults", servers.changes);

    drop(pipeline);
    // The other side notices that a connection is closed only when it reads.
    sleep(Duration::from_secs(1)).await;
    let connections = servers.connections();
    if connections != 0 {
        faults.push(format!("{connections} connections are open after the client is gone"));
    }
    drop(servers);
    sleep(Duration::from_secs(1)).await;
    let tasks = Handle::current().metrics().num_alive_tasks();
    if tasks_before < tasks {
        faults.push(format!("{} tasks are left over", tasks - tasks_before));
    }
    faults
}
