//! Prequal's paper, reproduced: experiments E1 to E4 (NSDI 2024, section 5).

use std::time::Duration;

use evenkeel_core::{
    load::ServerLoad,
    node::Node,
    policy::{ClientSideWeighted, Prequal},
};

use super::{Failure, Studio, job, named};
use crate::{
    chart::{Bars, Line, Lines},
    report::{PhaseReport, Report, Table, millis, percent},
    run::Job,
    scenario::{Antagonist, Positive, Scenario, Servers, Step, Time},
};

/// The paper's Q_RIF unless stated otherwise: 2^(-1/4).
const QUANTILE: f64 = 0.840_896_415_253_714_5;

/// One core-share of RIF in latency, for the linear rule.
const ALPHA: f64 = 0.075;

pub(super) fn make(studio: &Studio) -> Result<(), Failure> {
    let mut document = studio.document("prequal")?;
    let ramp = load_ramp(studio)?;
    document.table("e1", &ramp);
    let rules = selection_rules(studio)?;
    document.table("e2", &rules);
    let rates = probe_rates(studio)?;
    document.table("e3", &rates);
    let quantiles = quantiles(studio)?;
    document.table("e4", &quantiles);
    document.write()
}

/// The testbed: 100 clients and 100 servers of 6.4 cores each, on machines shared with antagonists.
fn testbed() -> Result<Scenario, Failure> {
    let mut scenario = Scenario::built_in("antagonists")?;
    scenario.load.steps.clear();
    Ok(scenario)
}

fn step(name: &str, utilization: f64, seconds: u64) -> Step {
    Step {
        name: name.to_owned(),
        rate: None,
        utilization: Some(Positive::new(utilization)),
        lasts: Time(Duration::from_secs(seconds)),
        settles: Time(Duration::from_secs(8)),
    }
}

fn prequal() -> Prequal {
    Prequal::new().probe_rate(3.0).remove_rate(1.0).delta(1.0).quantile(QUANTILE)
}

/// The paper's weighted round robin: goodput by utilization.
fn weighted() -> ClientSideWeighted {
    ClientSideWeighted::new().blackout(Duration::ZERO)
}

/// E1: the load rises from three quarters of the allotment to nearly twice the allotment.
fn load_ramp(studio: &Studio) -> Result<Table, Failure> {
    const LOADS: [f64; 9] = [0.75, 0.83, 0.93, 1.03, 1.14, 1.27, 1.41, 1.57, 1.74];
    let mut scenario = testbed()?;
    scenario.load.steps = LOADS.iter().map(|load| step(&load.to_string(), *load, 60)).collect();
    let scenario = studio.sized(scenario);
    let reports = studio.run(&[
        job(&scenario, "WRR", weighted()),
        job(&scenario, "Prequal, 0.84", prequal()),
        job(&scenario, "Prequal, 0.6", prequal().quantile(0.6)),
    ]);
    let mut table = Table::new(["load", "rule", "p50", "p90", "p99", "p99.9", "errors"]);
    for (index, load) in LOADS.iter().enumerate() {
        for report in &reports {
            let cells = phase_cells(&report.phases[index]);
            table.row([load.to_string(), report.label.clone()].into_iter().chain(cells));
        }
    }
    let chart = Lines::new("E1: load ramp", "load, in shares of what is allotted", "ms").log_y();
    let chart = reports.iter().fold(chart, |chart, report| {
        let points = |of: fn(&PhaseReport) -> f64| {
            let points = LOADS.iter().zip(&report.phases);
            points.map(|(load, phase)| (*load, of(phase))).collect::<Vec<_>>()
        };
        chart
            .line(Line::new(format!("{}: p50", report.label), points(|phase| phase.p50)))
            .line(Line::new(format!("{}: p99.9", report.label), points(|phase| phase.p999)))
    });
    studio.chart(&chart, "prequal_e1")?;
    Ok(table)
}

/// Cells of the latencies (or a timeout) and the share of errors.
fn phase_cells(phase: &PhaseReport) -> [String; 5] {
    let cell = |ms: f64| if 4_990.0 <= ms { "TO".into() } else { millis(ms) };
    [
        cell(phase.p50),
        cell(phase.p90),
        cell(phase.p99),
        cell(phase.p999),
        percent(phase.error_share()),
    ]
}

/// What antagonists leave on the day of E2, which was harder than that of E1. It is read from the
/// paper's rows of round robin and random, which send each server the same load: a tenth of the
/// servers must have less than 0.7 of the allotment, and some more less than 0.9.
fn hard_day() -> Antagonist {
    Antagonist {
        every: Time(Duration::from_secs(10)),
        levels: vec![(0.0, 0.4), (0.09, 0.7), (0.16, 0.9), (0.4, 1.5), (1.0, 4.0)],
        slows: false,
    }
}

/// E2: nine rules at 70 % and 90 % of the allotment, Q_RIF 0.75.
fn selection_rules(studio: &Studio) -> Result<Table, Failure> {
    let mut scenario = testbed()?;
    scenario.servers[0].antagonist = Some(hard_day());
    scenario.load.steps = vec![step("70 %", 0.7, 90), step("90 %", 0.9, 90)];
    let scenario = studio.sized(scenario);
    let probing = || prequal().quantile(0.75);
    let clients = f64::from(scenario.clients.count);
    let linear = |_: &Node, load: ServerLoad| {
        0.5 * load.latency().as_secs_f64() + 0.5 * ALPHA * f64::from(load.in_flight())
    };
    let cubic = move |node: &Node, load: ServerLoad| {
        let queue = 1.0 + f64::from(node.in_flight()) * clients + f64::from(load.in_flight());
        // A server that has answered nothing yet reports zero, which would outweigh any queue.
        queue.powi(3) * load.latency().as_secs_f64().max(0.001)
    };
    let jobs: Vec<Job> = vec![
        named(&scenario, "round_robin", "RoundRobin"),
        named(&scenario, "random", "Random"),
        job(&scenario, "WeightedRR", weighted()),
        named(&scenario, "least_loaded_in_turn", "LeastLoaded"),
        named(&scenario, "p2c", "LL-Po2C"),
        named(&scenario, "polled_p2c", "YARP-Po2C"),
        job(&scenario, "Linear", probing().scored(linear)),
        job(&scenario, "C3", probing().scored(cubic)),
        job(&scenario, "Prequal", probing()),
        job(&scenario, "Prequal, 0.6", prequal().quantile(0.6)),
    ];
    let reports = studio.run(&jobs);
    let bars = Bars::new("E2: selection rules", "p99 in ms", ["70 %", "90 %"]).log();
    let bars = reports.iter().fold(bars, |bars, report| {
        bars.row(&report.label, report.phases.iter().map(|phase| phase.p99))
    });
    studio.chart(&bars, "prequal_e2")?;
    Ok(rules_table(&reports))
}

/// p90 and p99 at 70 % and 90 % in the paper's figure 7, in milliseconds. 5,000 is a timeout.
const PAPER: [[f64; 4]; 9] = [
    [4984.0, 5000.0, 5000.0, 5000.0],
    [294.0, 5000.0, 5000.0, 5000.0],
    [173.0, 314.0, 1667.0, 5000.0],
    [343.0, 1804.0, 940.0, 2654.0],
    [224.0, 569.0, 623.0, 1918.0],
    [210.0, 2642.0, 213.0, 1169.0],
    [206.0, 698.0, 245.0, 1036.0],
    [161.0, 299.0, 164.0, 304.0],
    [149.0, 281.0, 152.0, 286.0],
];

fn rules_table(reports: &[Report]) -> Table {
    let mut table = Table::new([
        "rule",
        "70 %: p90",
        "paper",
        "p99",
        "paper",
        "p99 ÷ Prequal's",
        "paper",
        "90 %: p90",
        "paper",
        "p99",
        "paper",
        "p99 ÷ Prequal's",
        "paper",
    ]);
    let cell = |ms: f64| match ms {
        _ if ms.is_nan() => String::new(),
        _ if 4_990.0 <= ms => "TO".into(),
        _ => format!("{ms:.0}"),
    };
    let last = PAPER.len() - 1;
    let unpublished = std::iter::repeat([f64::NAN; 4]);
    let paper = PAPER.into_iter().chain(unpublished);
    for (report, paper) in reports.iter().zip(paper) {
        let mut cells = vec![report.label.clone()];
        for load in 0..2 {
            let (own, best) = (&report.phases[load], &reports[last].phases[load]);
            let [p90, p99] = [paper[2 * load], paper[2 * load + 1]];
            cells.extend([cell(own.p90), cell(p90), cell(own.p99), cell(p99)]);
            let ratio =
                |ratio: f64| if ratio.is_nan() { String::new() } else { format!("{ratio:.2}") };
            cells.push(ratio(own.p99 / best.p99));
            cells.push(ratio(p99 / PAPER[last][2 * load + 1]));
        }
        table.row(cells);
    }
    table
}

/// E3: how many probes a request needs, at one and a half times the allotment.
fn probe_rates(studio: &Studio) -> Result<Table, Failure> {
    const RATES: [f64; 7] =
        [4.0, 2.828_427, 2.0, std::f64::consts::SQRT_2, 1.0, std::f64::consts::FRAC_1_SQRT_2, 0.5];
    let mut scenario = testbed()?;
    scenario.load.utilization = Some(Positive::new(1.5));
    scenario.load.lasts = Some(Time(Duration::from_secs(60)));
    scenario.load.warm_up = Time(Duration::from_secs(10));
    let scenario = studio.sized(scenario);
    let jobs: Vec<_> = RATES
        .iter()
        .map(|rate| {
            job(&scenario, &format!("{rate:.2}"), prequal().probe_rate(*rate).remove_rate(0.25))
        })
        .collect();
    let reports = studio.run(&jobs);
    let table = rif_table("probes a request", &reports);
    let line = |name: &str, of: fn(&PhaseReport) -> f64| {
        let points = RATES.iter().zip(&reports).map(|(rate, report)| (*rate, of(report.phase())));
        Line::new(name, points.collect::<Vec<_>>().into_iter().rev())
    };
    let chart =
        Lines::new("E3: probe rate at 1.5 times what is allotted", "probes a request", "ms")
            .log_x()
            .line(line("p90", |phase| phase.p90))
            .line(line("p99", |phase| phase.p99))
            .line(line("p99.9", |phase| phase.p999));
    studio.chart(&chart, "prequal_e3")?;
    Ok(table)
}

fn rif_table(first: &str, reports: &[Report]) -> Table {
    let mut table = Table::new([
        first,
        "p50",
        "p90",
        "p99",
        "p99.9",
        "errors",
        "in flight p50",
        "in flight p99",
        "traffic of group 1",
    ]);
    for report in reports {
        let phase = report.phase();
        let mut cells = vec![report.label.clone()];
        cells.extend(phase_cells(phase));
        cells.extend([phase.in_flight_p50.to_string(), phase.in_flight_p99.to_string()]);
        cells.push(percent(phase.group_share(0)));
        table.row(cells);
    }
    table
}

/// E4: from requests in flight alone to latency alone. Half of the servers are twice as slow.
fn quantiles(studio: &Studio) -> Result<Table, Failure> {
    const QUANTILES: [f64; 14] =
        [0.0, 0.35, 0.39, 0.43, 0.48, 0.53, 0.59, 0.66, 0.73, 0.81, 0.9, 0.99, 0.999, 1.0];
    let mut scenario = testbed()?;
    scenario.work.mean = Time::millis(26);
    let fast = Servers { name: "fast".into(), count: 50, ..scenario.servers[0].clone() };
    let slow = Servers { name: "slow".into(), pace: Positive::new(0.5), ..fast.clone() };
    scenario.servers = vec![fast, slow];
    // Three quarters of the cores would be used if each server had the same load: half of the work
    // takes twice as long.
    let work = crate::work::WorkLaw::new(&scenario.work).mean() * 1.5;
    scenario.load.rate = Some(Positive::new(0.75 * 640.0 / work));
    scenario.load.lasts = Some(Time(Duration::from_secs(50)));
    scenario.load.warm_up = Time(Duration::from_secs(10));
    let scenario = studio.sized(scenario);
    let jobs: Vec<_> = QUANTILES
        .iter()
        .map(|quantile| job(&scenario, &quantile.to_string(), prequal().quantile(*quantile)))
        .collect();
    let reports = studio.run(&jobs);
    let line = |name: &str, of: fn(&PhaseReport) -> f64| {
        let points = QUANTILES.iter().zip(&reports);
        Line::new(name, points.map(|(quantile, report)| (*quantile, of(report.phase()))))
    };
    let chart = Lines::new("E4: from requests in flight (0) to latency (1)", "Q_RIF", "ms")
        .log_y()
        .line(line("p50", |phase| phase.p50))
        .line(line("p90", |phase| phase.p90))
        .line(line("p99", |phase| phase.p99))
        .line(line("p99.9", |phase| phase.p999));
    studio.chart(&chart, "prequal_e4")?;
    Ok(rif_table("Q_RIF", &reports))
}
