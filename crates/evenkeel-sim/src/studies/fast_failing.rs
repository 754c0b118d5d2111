//! How much traffic endpoints draw that fail fast.

use super::{Failure, Studio};
use crate::{
    chart::{Bars, Line, Lines},
    policies::balancing,
    report::{Report, Table, percent},
    run::Job,
    scenario::{Outlier, Scenario, Share, Time},
};

/// The first second, in which ejection has to notice the failures.
const FIRST: f64 = 1.0;

pub(super) fn make(studio: &Studio) -> Result<(), Failure> {
    let mut document = studio.document("fast_failing")?;
    let few = studio.sized(Scenario::built_in("fast_failing")?);
    let mut many = few.clone();
    (many.servers[0].count, many.servers[1].count) = (2, 18);
    let mut open = few.clone();
    (open.load.concurrency, open.load.rate) = (None, Some(crate::scenario::Positive::new(2_000.0)));

    let policies: Vec<_> =
        balancing().into_iter().chain(["tower_p2c", "tower_peak_ewma"]).collect();
    for (name, title, scenario) in [
        ("one_of_five", "1 of 5 endpoints fails fast, 64 calls at a time", &few),
        ("two_of_twenty", "2 of 20 endpoints fail fast, 64 calls at a time", &many),
        ("open", "1 of 5 endpoints fails fast, 2,000 calls a second", &open),
    ] {
        let pairs = compare(studio, scenario, &policies);
        let fair = f64::from(scenario.servers[0].count) / scenario.server_count() as f64;
        document.table(name, &table(&pairs, scenario));
        studio.chart(&bars(title, &pairs, fair), &format!("fast_failing_{name}"))?;
        if name == "one_of_five" {
            studio.chart(&over_time(&pairs, scenario, fair), "fast_failing_over_time")?;
        }
    }
    let shares = by_share_of_failures(studio, &open)?;
    document.table("by_share", &shares);
    document.write()
}

/// Runs each policy without and with ejection.
fn compare(studio: &Studio, scenario: &Scenario, policies: &[&str]) -> Vec<(Report, Report)> {
    let mut guarded = scenario.clone();
    guarded.outlier = Some(Outlier::default());
    let jobs: Vec<_> = policies
        .iter()
        .flat_map(|policy| [scenario, &guarded].map(|scenario| Job::new(scenario.clone(), policy)))
        .collect();
    let mut reports = studio.run(&jobs).into_iter();
    let pair = || Some((reports.next()?, reports.next()?));
    std::iter::from_fn(pair).collect()
}

/// The share of traffic that the first group gets after the first second.
fn later_share(report: &Report, bucket: f64) -> f64 {
    let later = report.series.iter().skip((FIRST / bucket) as usize);
    let (failing, all) = later.fold((0_u64, 0_u64), |(failing, all), bucket| {
        let sum: u64 = bucket.attempts.iter().copied().map(u64::from).sum();
        (failing + u64::from(bucket.attempts[0]), all + sum)
    });
    if all == 0 { 0.0 } else { failing as f64 / all as f64 }
}

fn bucket_of(scenario: &Scenario) -> f64 {
    scenario.load.bucket.map_or(1.0, Time::seconds)
}

fn table(pairs: &[(Report, Report)], scenario: &Scenario) -> Table {
    let mut table = Table::new([
        "policy",
        "traffic to the failing",
        "failed calls",
        "with ejection: traffic",
        "failed calls",
        "traffic after 1 s",
    ]);
    for (bare, guarded) in pairs {
        let (phase, guarded_phase) = (bare.phase(), guarded.phase());
        table.row([
            bare.label.clone(),
            percent(phase.group_share(0)),
            percent(phase.error_share()),
            percent(guarded_phase.group_share(0)),
            percent(guarded_phase.error_share()),
            percent(later_share(guarded, bucket_of(scenario))),
        ]);
    }
    table
}

fn bars(title: &str, pairs: &[(Report, Report)], fair: f64) -> Bars {
    let bars =
        Bars::new(title, "% of the traffic goes to those that fail", ["alone", "with ejection"])
            .mark("fair share", fair * 100.0);
    pairs.iter().fold(bars, |bars, (bare, guarded)| {
        let shares = [bare, guarded].map(|report| report.phase().group_share(0) * 100.0);
        bars.row(&bare.label, shares)
    })
}

fn over_time(pairs: &[(Report, Report)], scenario: &Scenario, fair: f64) -> Lines {
    let lines = Lines::new("Traffic to the failing endpoint", "seconds", "% of all traffic")
        .mark("fair share", fair * 100.0);
    let line = |name: &str, report: &Report| {
        let share = |bucket: &crate::report::BucketReport| {
            let sum: u32 = bucket.attempts.iter().sum();
            f64::from(bucket.attempts[0]) / f64::from(sum.max(1)) * 100.0
        };
        let points = report.series.iter().enumerate().take(24);
        let width = bucket_of(scenario);
        Line::new(name, points.map(|(index, bucket)| (index as f64 * width, share(bucket))))
    };
    let shown = ["p2c", "peak_ewma", "prequal", "tower_peak_ewma"];
    pairs.iter().filter(|(bare, _)| shown.contains(&&*bare.label)).fold(
        lines,
        |lines, (bare, guarded)| {
            lines
                .line(line(&bare.label, bare))
                .line(line(&format!("{}, ejection", bare.label), guarded))
        },
    )
}

/// How much traffic an endpoint draws that fails some of its requests.
fn by_share_of_failures(studio: &Studio, scenario: &Scenario) -> Result<Table, Failure> {
    const POLICIES: [&str; 5] = ["round_robin", "p2c", "peak_ewma", "prequal", "tower_peak_ewma"];
    const SHARES: [f64; 6] = [0.0, 0.02, 0.1, 0.3, 0.6, 1.0];
    let mut table =
        Table::new(["failures", "round_robin", "p2c", "peak_ewma", "prequal", "tower_peak_ewma"]);
    let mut lines = vec![Vec::new(); POLICIES.len()];
    for share in SHARES {
        let mut scenario = scenario.clone();
        scenario.servers[0].faults[0].share = Share::new(share);
        let reports = studio.run(&POLICIES.map(|policy| Job::new(scenario.clone(), policy)));
        let shares: Vec<_> = reports.iter().map(|report| report.phase().group_share(0)).collect();
        let cells = shares.iter().map(|share| percent(*share));
        table.row(std::iter::once(percent(share)).chain(cells));
        for (line, found) in lines.iter_mut().zip(shares) {
            line.push((share * 100.0, found * 100.0));
        }
    }
    let title = "An endpoint that fails some of its requests at once";
    let chart =
        Lines::new(title, "% of its requests fail", "% of all traffic").mark("fair share", 20.0);
    let chart = POLICIES
        .iter()
        .zip(lines)
        .fold(chart, |chart, (policy, points)| chart.line(Line::new(*policy, points)));
    studio.chart(&chart, "fast_failing_by_share")?;
    Ok(table)
}
