//! The output of a run: printed tables, and figures in a file.

use std::{path::Path, sync::Arc};

use evenkeel_rig::{load::DEADLINE, percentiles::triple, table::Table};
use serde_json::json;

use crate::{BoxError, contestants::Contestant, fault::Fault, figures::Cell, options::Options};

/// Lists the faults and contestants.
pub(crate) fn list(faults: &[Fault], contestants: &[Arc<dyn Contestant>]) {
    println!("faults:");
    for fault in faults {
        println!("  {:6} {}", fault.name(), fault.title());
    }
    println!("contestants:");
    for contestant in contestants {
        println!("  {:14} {}", contestant.name(), contestant.about());
        if let Some(missing) = contestant.missing() {
            println!("  {:14} {missing}", "");
        }
    }
}

/// Prints one table for each fault, with what was left out and why.
pub(crate) fn print(
    options: &Options,
    faults: &[Fault],
    contestants: &[Arc<dyn Contestant>],
    cells: &[Cell],
    busy: Option<f64>,
) {
    println!("# The league of failures\n");
    println!(
        "{} trials each, {} at a time; 5 endpoints, {} calls a second, {} s deadline; seed {}.",
        options.trials,
        options.parallel,
        options.rate,
        DEADLINE.as_secs(),
        options.seed
    );
    if let Some(busy) = busy {
        println!("The machine was {:.0} % busy.", 100.0 * busy);
    }
    println!("Triples are p50 / p99 / worst of the trials.\n");
    for contestant in contestants {
        println!("- {}: {}", contestant.name(), contestant.about());
    }
    for fault in faults {
        println!("\n## {}: {}\n", fault.name(), fault.title());
        let mut table = Table::new(&column_heads(*fault));
        let own = || cells.iter().filter(|cell| cell.fault == fault.name());
        own().for_each(|cell| table.row(row(*fault, cell)));
        print!("{}", if options.markdown { table.markdown() } else { table.text() });
        for cell in own() {
            let remarks = cell.remarks.iter();
            remarks.for_each(|remark| println!("* {}: {remark}", cell.contestant));
        }
    }
}

fn column_heads(fault: Fault) -> Vec<&'static str> {
    let mut heads = vec!["contestant"];
    if fault.has_one_target() {
        heads.extend(["last attempt, ms", "attempts"]);
    }
    heads.extend(["errors", "errors, %", "over 100 ms, %", "extra attempts, %"]);
    if fault.has_survivors() {
        heads.extend(["left out wrongly", "overshoot"]);
    }
    if fault != Fault::RollingRestart {
        heads.push("share regained, ms");
    }
    if fault.strikes_all() {
        heads.push("last error after, ms");
    }
    heads
}

fn row(fault: Fault, cell: &Cell) -> Vec<String> {
    let mut row = vec![cell.contestant.to_owned()];
    if cell.trials.is_empty() {
        row.push("not measured, see below".to_owned());
        return row;
    }
    let trials = cell.trials.len();
    if fault.has_one_target() {
        row.push(triple(cell.percentiles(|f| f.stop), 0));
        row.push(triple(cell.percentiles(|f| f.after as f64), 0));
    }
    row.push(triple(cell.percentiles(|f| f.errors as f64), 0));
    row.push(format!("{:.2}", 100.0 * cell.share(|f| f.errors)));
    row.push(format!("{:.2}", 100.0 * cell.share(|f| f.slow)));
    let extra: f64 = cell.trials.iter().map(|f| f.extra).sum::<f64>() / trials as f64;
    row.push(format!("{:.1}", 100.0 * extra));
    if fault.has_survivors() {
        let left_out: usize = cell.trials.iter().map(|f| f.left_out).sum();
        row.push(format!("{left_out} of {}", 4 * trials));
        row.push(triple(cell.percentiles(|f| f.overshoot), 2));
    }
    if fault != Fault::RollingRestart {
        row.push(triple(cell.percentiles(|f| f.regained.unwrap_or(f64::INFINITY)), 0));
    }
    if fault.strikes_all() {
        row.push(triple(cell.percentiles(|f| f.last_error), 0));
    }
    row
}

/// Writes every figure of every trial to a file, for later comparison.
pub(crate) fn write_json(path: &Path, options: &Options, cells: &[Cell]) -> Result<(), BoxError> {
    let run = json!({
        "trials": options.trials,
        "rate": options.rate,
        "seed": options.seed,
        "parallel": options.parallel,
        "cells": cells,
    });
    Ok(std::fs::write(path, format!("{run:#}\n"))?)
}
