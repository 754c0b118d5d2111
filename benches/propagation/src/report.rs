//! The output of a run: printed tables, and figures in a file.

use std::path::Path;

use evenkeel_rig::{
    load::DEADLINE,
    percentiles::{Percentiles, triple},
    table::Table,
};
use serde_json::json;

use crate::{
    BoxError, callers::by_default, event::Event, options::Options, run::Cell, trial::Figures,
};

/// Lists the events, registries and callers.
pub(crate) fn list(options: &Options) -> Result<(), BoxError> {
    let line = |name: &str, about: &str, missing: Option<String>| {
        println!("  {name:10} {about}");
        if let Some(missing) = missing {
            println!("  {:10} {missing}", "");
        }
    };
    println!("events:");
    options.events()?.iter().for_each(|event| line(event.name(), event.title(), None));
    println!("registries:");
    options.registries()?.iter().for_each(|r| line(r.name(), r.about(), r.missing()));
    println!("callers:");
    options.callers()?.iter().for_each(|c| line(c.name(), c.about(), c.missing()));
    Ok(())
}

/// Prints one table for each event, with what was left out and why.
pub(crate) fn print(options: &Options, events: &[Event], cells: &[Cell], busy: Option<f64>) {
    println!("# Propagation\n");
    println!(
        "{} trials each, {} at a time; {} calls a second, {} s deadline; {} balancers on one discovery; \
         TTL {} s; seed {}.",
        options.trials,
        options.parallel,
        options.rate,
        DEADLINE.as_secs(),
        options.balancers,
        options.ttl().as_secs(),
        options.seed
    );
    if let Some(busy) = busy {
        println!("The machine was {:.0} % busy.", 100.0 * busy);
    }
    println!("Triples are p50 / p99 / worst.\n");
    for event in events {
        println!("\n## {}: {}\n", event.name(), event.title());
        let mut table = Table::new(&column_heads(*event));
        let own = || cells.iter().filter(|cell| cell.event == *event);
        own().for_each(|cell| table.row(row(*event, cell)));
        show(options, &table);
        for cell in own() {
            let remarks = cell.remarks.iter();
            remarks.for_each(|text| println!("* {}, {}: {text}", cell.registry, cell.caller));
        }
    }
    println!("\n## Other systems with their defaults (derived, not measured)\n");
    let mut table = Table::new(&["system", "join", "leave", "crash"]);
    for one in by_default::ALL {
        table.row([one.system, one.join, one.leave, one.crash].map(str::to_owned).to_vec());
    }
    show(options, &table);
    println!();
    by_default::ALL.iter().for_each(|one| println!("* {}: {}", one.system, one.source));
}

fn show(options: &Options, table: &Table) {
    print!("{}", if options.markdown { table.markdown() } else { table.text() });
}

fn column_heads(event: Event) -> Vec<&'static str> {
    let mut heads = vec!["registry", "caller", event.applied()];
    if event != Event::WholeSet {
        heads.push("since announced, ms");
    }
    heads.extend(event.request());
    if event != Event::WholeSet {
        heads.extend(["errors", "of calls", "from the registry, kB", "connections"]);
    }
    if event.is_long() {
        heads.push("CPU, %");
    }
    if event == Event::WholeSet {
        heads.push("CPU, ms");
    }
    if event.is_large() {
        heads.push("memory, MB");
    } else {
        heads.push("fewest endpoints");
    }
    heads
}

fn row(event: Event, cell: &Cell) -> Vec<String> {
    let mut row = vec![cell.registry.to_owned(), cell.caller.to_owned()];
    if cell.trials.is_empty() {
        row.push("not measured, see below".to_owned());
        return row;
    }
    let median = |figure: &dyn Fn(&Figures) -> f64| {
        Percentiles::of(cell.trials.iter().map(figure)).map_or(0.0, |all| all.p50)
    };
    let decimals = usize::from(event == Event::WholeSet);
    row.push(triple(cell.applied(), decimals));
    if event != Event::WholeSet {
        row.push(triple(cell.announced(), 1));
    }
    if event.request().is_some() {
        row.push(triple(cell.request(), decimals));
    }
    if event != Event::WholeSet {
        row.push(cell.errors().to_string());
        row.push(cell.trials.iter().map(|trial| trial.calls).sum::<usize>().to_string());
        row.push(format!("{:.1}", median(&|f| f.bytes as f64 / 1e3)));
        row.push(cell.connections().to_string());
    }
    if event.is_long() {
        let busy = median(&|f| if 0.0 < f.lasted { 100.0 * f.work / f.lasted } else { 0.0 });
        row.push(format!("{busy:.1}"));
    }
    if event == Event::WholeSet {
        row.push(format!("{:.1}", median(&|f| f.work)));
    }
    if event.is_large() {
        row.push(cell.memory().map(|memory| format!("{memory:.1}")).unwrap_or_default());
    } else {
        let least = cell.trials.iter().filter_map(|trial| trial.min_endpoints).min();
        row.push(least.map(|least| least.to_string()).unwrap_or_default());
    }
    row
}

/// Writes every figure of every trial to a file, for later comparison.
pub(crate) fn write_json(path: &Path, options: &Options, cells: &[Cell]) -> Result<(), BoxError> {
    let cells: Vec<_> = cells
        .iter()
        .map(|cell| {
            json!({ "event": cell.event.name(), "registry": cell.registry, "caller": cell.caller,
                "trials": cell.trials, "remarks": cell.remarks })
        })
        .collect();
    let run = json!({ "trials": options.trials, "rate": options.rate, "seed": options.seed,
        "parallel": options.parallel, "balancers": options.balancers, "cells": cells });
    Ok(std::fs::write(path, format!("{run:#}\n"))?)
}
