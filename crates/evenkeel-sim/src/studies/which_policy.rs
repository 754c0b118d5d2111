//! Which policy fits which fleet: the same policies in different fleets.

use evenkeel_core::policy::{Maglev, Prequal, RingHash};

use super::{Failure, Studio, job, latencies, latency_table, over_time, places};
use crate::{
    chart::Bars,
    policies::{balancing, hashing},
    report::{Report, Table, millis, percent},
    run::Job,
    scenario::{Discipline, Scenario},
};

pub(super) fn make(studio: &Studio) -> Result<(), Failure> {
    let mut document = studio.document("which_policy")?;
    let mut all = Vec::new();
    for (name, scenario) in fleets()? {
        let reports = compare(studio, &scenario);
        document.table(name, &latency_table(&reports));
        studio.chart(&latencies(&scenario.name, &reports), &format!("which_policy_{name}"))?;
        all.push((name, reports));
    }
    document.table("summary", &summary(&all));
    document.table("subset_rules", &places::subsets(studio)?);
    document.table("zones", &places::zones(studio)?);
    let (table, chart) = cold_caches(studio)?;
    document.table("cold_caches", &table);
    studio.chart(&chart, "which_policy_cold_caches")?;
    let newcomers = Scenario::built_in("newcomers")?;
    let names = ["p2c", "slow_start", "peak_ewma", "prequal", "round_robin"];
    let jobs = names.map(|name| Job::new(studio.sized(newcomers.clone()), name));
    let reports = studio.run(&jobs);
    document.table("newcomers", &latency_table(&reports));
    studio.chart(&over_time(&reports, 0.5), "which_policy_newcomers")?;
    let (table, chart) = small_fleets(studio)?;
    document.table("small_fleets", &table);
    studio.chart(&chart, "which_policy_small_fleets")?;
    document.write()
}

/// The quantile that separates hot from cold for a Prequal that must not herd.
const CALM: f64 = 0.6;

/// All policies that need no key, and Prequal with a second setting.
fn compare(studio: &Studio, scenario: &Scenario) -> Vec<Report> {
    let scenario = studio.sized(scenario.clone());
    let mut jobs: Vec<_> =
        balancing().into_iter().map(|name| Job::new(scenario.clone(), name)).collect();
    jobs.push(job(&scenario, "prequal, quantile 0.6", Prequal::new().quantile(CALM)));
    studio.run(&jobs)
}

/// Servers that remember keys: without hashing, with hashing, and with a bound on each server's
/// load.
fn cold_caches(studio: &Studio) -> Result<(Table, Bars), Failure> {
    let caches = studio.sized(Scenario::built_in("cold_caches")?);
    let names = balancing().into_iter().chain(hashing());
    let mut jobs: Vec<_> = names.map(|name| Job::new(caches.clone(), name)).collect();
    jobs.push(job(&caches, "maglev, load at most 1.25", Maglev::new().bounded_load(1.25)));
    jobs.push(job(&caches, "ring_hash, load at most 1.25", RingHash::new().bounded_load(1.25)));
    let reports = studio.run(&jobs);
    Ok((latency_table(&reports), latencies(&caches.name, &reports)))
}

fn fleets() -> Result<Vec<(&'static str, Scenario)>, Failure> {
    let mut first_come = Scenario::built_in("equal")?;
    first_come.name = "equal servers, first come, first served".into();
    first_come.servers[0].queue = Discipline::Fifo;
    Ok(vec![
        ("equal", Scenario::built_in("equal")?),
        ("first_come", first_come),
        ("two_speeds", Scenario::built_in("two_speeds")?),
        ("noisy", Scenario::built_in("noisy")?),
        ("heavy_tail", Scenario::built_in("heavy_tail")?),
        ("subsets", Scenario::built_in("subsets")?),
    ])
}

/// The 99th percentile of each policy in each fleet, in percent of the best one there.
fn summary(all: &[(&str, Vec<Report>)]) -> Table {
    let head = std::iter::once("p99 in % of the best").chain(all.iter().map(|(name, _)| *name));
    let mut table = Table::new(head);
    let policies = all.first().map_or(0, |(_, reports)| reports.len());
    for policy in 0..policies {
        let label = all[0].1[policy].label.clone();
        let cells = all.iter().map(|(_, reports)| {
            let p99 = |report: &Report| report.phase().p99;
            let best = reports.iter().map(p99).fold(f64::INFINITY, f64::min);
            format!("{:.0}", p99(&reports[policy]) / best * 100.0)
        });
        table.row(std::iter::once(label).chain(cells));
    }
    table
}

/// Two, three and five equal servers.
fn small_fleets(studio: &Studio) -> Result<(Table, Bars), Failure> {
    let mut table =
        Table::new(["policy", "2: p99 ms", "errors", "3: p99 ms", "errors", "5: p99 ms", "errors"]);
    let mut columns = Vec::new();
    for servers in [2, 3, 5] {
        let mut scenario = Scenario::built_in("small")?;
        scenario.servers[0].count = servers;
        columns.push(compare(studio, &scenario));
    }
    let mut bars = Bars::new("p99 in small fleets", "ms", ["2 servers", "3 servers", "5 servers"]);
    for (index, report) in columns[0].iter().enumerate() {
        let policy = &report.label;
        let phases = columns.iter().map(|reports| reports[index].phase());
        let cells =
            phases.clone().flat_map(|phase| [millis(phase.p99), percent(phase.error_share())]);
        table.row(std::iter::once(policy.clone()).chain(cells));
        bars = bars.row(policy, phases.map(|phase| phase.p99));
    }
    Ok((table, bars))
}
