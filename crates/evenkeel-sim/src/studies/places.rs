//! Zones and subsets: where servers are, and which of them a client knows.

use super::{Failure, Studio};
use crate::{
    report::{Report, Table, millis, percent},
    run::Job,
    scenario::{Positive, Scenario, SubsetBy},
};

/// Two zones at two loads. One zone has too little capacity for its clients.
pub(super) fn zones(studio: &Studio) -> Result<Table, Failure> {
    let head = ["policy", "load", "between zones", "mean ms", "p99", "p99.9", "errors"];
    let mut table = Table::new(head);
    for load in [0.4, 0.6, 0.75] {
        let mut scenario = studio.sized(Scenario::built_in("zones")?);
        scenario.load.utilization = Some(Positive::new(load));
        let names = ["p2c", "zone_aware", "prefer_zone"];
        let jobs = names.map(|name| Job::new(scenario.clone(), name));
        for report in studio.run(&jobs) {
            let phase = report.phase();
            let crossing = phase.crossing as f64 / phase.attempts.max(1) as f64;
            table.row([
                report.label.clone(),
                percent(load),
                percent(crossing),
                millis(phase.mean),
                millis(phase.p99),
                millis(phase.p999),
                percent(phase.error_share()),
            ]);
        }
    }
    Ok(table)
}

/// A thousand clients with subsets, with each of the rules that choose them.
pub(super) fn subsets(studio: &Studio) -> Result<Table, Failure> {
    let head = [
        "subset of 20",
        "policy",
        "clients of a server, mean",
        "most",
        "most traffic, fair shares",
        "p99 ms",
        "p99.9",
    ];
    let mut table = Table::new(head);
    let rules = [
        ("random", SubsetBy::Random),
        ("aperture", SubsetBy::Aperture),
        ("rocksteadier", SubsetBy::Rocksteadier),
    ];
    for (name, rule) in rules {
        let mut scenario = studio.sized(Scenario::built_in("subsets")?);
        scenario.clients.subset_by = rule;
        let policies = ["round_robin", "p2c", "peak_ewma"];
        let jobs = policies.map(|policy| Job::new(scenario.clone(), policy));
        studio.run(&jobs).iter().for_each(|report| table.row(cells(name, report)));
    }
    Ok(table)
}

fn cells(rule: &str, report: &Report) -> Vec<String> {
    let phase = report.phase();
    vec![
        rule.to_owned(),
        report.label.clone(),
        format!("{:.0}", report.connections_mean),
        report.connections_max.to_string(),
        format!("{:.2}", phase.worst_share / phase.fair_share),
        millis(phase.p99),
        millis(phase.p999),
    ]
}
