//! evenkeel's goals, and whether it met them.

use crate::{event::Event, registries, run::Cell};

/// The caller that the goals are for.
pub(crate) const OURS: &str = "ours";

/// Megabytes that 10,000 endpoints may cost, and milliseconds that a whole set of them may take.
const MAX_MEMORY: f64 = 20.0;
const MAX_WHOLE_SET: f64 = 10.0;
const ENDPOINTS: u16 = 10_000;

/// How long local evidence may take to end attempts at a dead endpoint.
const MAX_EVIDENCE: f64 = 1_000.0;

struct Goal {
    what: &'static str,
    figure: f64,
    limit: f64,
}

/// Prints one line for each goal.
pub(crate) fn print(cells: &[Cell], endpoints: u16, is_markdown: bool) {
    let item = if is_markdown { "- " } else { "" };
    println!("\n## Goals for ours\n");
    for cell in cells.iter().filter(|cell| cell.caller == OURS && !cell.trials.is_empty()) {
        for Goal { what, figure, limit } in goals(cell, endpoints) {
            let verdict = if figure <= limit { "met" } else { "MISSED" };
            let at = format!("{}, {}", cell.event.name(), cell.registry);
            println!("{item}{verdict:7} {at}: {what}: {figure:.1} (at most {limit:.1})");
        }
    }
}

fn goals(cell: &Cell, endpoints: u16) -> Vec<Goal> {
    let mut goals = Vec::new();
    let applied = |goals: &mut Vec<Goal>, what| {
        let all = registries::all();
        let registry = all.iter().find(|registry| registry.name() == cell.registry);
        if let (Some(found), Some(registry)) = (cell.applied(), registry) {
            let limit = registry.max_delay().as_secs_f64() * 1e3;
            goals.push(Goal { what, figure: found.p99, limit });
        }
    };
    match cell.event {
        Event::Join | Event::Weight => applied(&mut goals, "ms until in every balancer, p99"),
        Event::Leave => applied(&mut goals, "ms until out of every balancer, p99"),
        Event::Thousand => applied(&mut goals, "ms until all are in every balancer, p99"),
        Event::Churn => applied(&mut goals, "ms until a change is in every balancer, p99"),
        Event::Crash => {
            let found = cell.request().zip(cell.applied());
            if let Some((last, registry)) = found {
                let what = "ms to the last attempt at the dead one, worst";
                let limit = if cell.registry == "dns" { MAX_EVIDENCE } else { registry.p50 / 2.0 };
                goals.push(Goal { what, figure: last.worst, limit: limit.min(MAX_EVIDENCE) });
            }
        }
        Event::Restart | Event::Partition | Event::Leader => {}
        Event::WholeSet => {
            if let Some(found) = cell.applied().filter(|_| endpoints == ENDPOINTS) {
                let what = "ms until a whole set is applied, median";
                goals.push(Goal { what, figure: found.p50, limit: MAX_WHOLE_SET });
            }
        }
    }
    if let Some(memory) = cell.memory().filter(|_| endpoints == ENDPOINTS) {
        goals.push(Goal { what: "MB for 10,000 endpoints", figure: memory, limit: MAX_MEMORY });
    }
    if cell.event != Event::WholeSet {
        let errors = cell.errors() as f64;
        goals.push(Goal { what: "errors seen by callers", figure: errors, limit: 0.0 });
    }
    if 0 < cell.connections() {
        let connections = cell.connections() as f64;
        goals.push(Goal { what: "connections to the registry", figure: connections, limit: 1.0 });
    }
    goals
}
