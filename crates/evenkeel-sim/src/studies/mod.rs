//! The documents in `docs/simulation`: each study makes the tables and charts of one.
//!
//! The text is written by people. Between `<!-- table NAME -->` and `<!-- end -->` stands the
//! result of the last run of the study.

mod document;
mod fast_failing;
mod places;
mod prequal;
mod scale;
mod which_policy;

use std::path::PathBuf;

use self::document::Document;
use crate::{
    chart::{self, Bars, Chart, Line, Lines},
    policies,
    report::{PhaseReport, Report, Table},
    run::{Job, run_all},
    scenario::Scenario,
};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The names of all studies.
pub const NAMES: [&str; 4] = ["fast_failing", "which_policy", "prequal", "scale"];

/// How to make the studies.
#[derive(Clone, Debug)]
pub struct Studio {
    /// The folder of the documents.
    pub out: PathBuf,
    /// A folder for the charts as PNG.
    pub png: Option<PathBuf>,
    /// Makes fewer calls, to see that it works.
    pub is_quick: bool,
    /// Runs at a time.
    pub threads: usize,
    /// Hides the progress bar.
    pub is_quiet: bool,
}

/// Makes a study, or `all` of them.
///
/// # Errors
/// If there is no study of this name, or a file cannot be written.
pub fn make(name: &str, studio: &Studio) -> Result<(), Failure> {
    match name {
        "all" => NAMES.iter().try_for_each(|name| make(name, studio)),
        "fast_failing" => fast_failing::make(studio),
        "which_policy" => which_policy::make(studio),
        "prequal" => prequal::make(studio),
        "scale" => scale::make(studio),
        _ => {
            Err(format!("there is no study `{name}`; there are {} and all", NAMES.join(", "))
                .into())
        }
    }
}

impl Studio {
    fn run(&self, jobs: &[Job]) -> Vec<Report> {
        run_all(jobs, self.threads, self.is_quiet)
    }

    /// A scenario at the size that the study asks for.
    fn sized(&self, mut scenario: Scenario) -> Scenario {
        if self.is_quick {
            let load = &mut scenario.load;
            load.calls = load.calls.map(|calls| calls / 10);
            let shorter = |time: &mut crate::scenario::Time| time.0 /= 10;
            load.lasts.iter_mut().for_each(shorter);
            shorter(&mut load.warm_up);
            for step in &mut load.steps {
                shorter(&mut step.lasts);
                shorter(&mut step.settles);
            }
        }
        scenario
    }

    fn chart(&self, chart: &impl Chart, name: &str) -> Result<(), Failure> {
        chart::write_svg(chart, &self.out, name)?;
        match &self.png {
            Some(folder) => chart::write_png(chart, folder, name),
            None => Ok(()),
        }
    }

    fn document(&self, name: &str) -> Result<Document, Failure> {
        Document::open(self.out.join(format!("{name}.md")))
    }
}

/// A table of the latencies of several runs.
fn latency_table(reports: &[Report]) -> Table {
    let head = ["policy", "mean ms", "p50", "p90", "p99", "p99.9", "errors", "in flight max"];
    let mut table = Table::new(head);
    for report in reports {
        let phase = report.phase();
        let PhaseReport { mean, p50, p90, p99, p999, in_flight_max, .. } = phase;
        let [mean, p50, p90, p99, p999] =
            [mean, p50, p90, p99, p999].map(|ms| crate::report::millis(*ms));
        let errors = crate::report::percent(phase.error_share());
        table.row([
            report.label.clone(),
            mean,
            p50,
            p90,
            p99,
            p999,
            errors,
            in_flight_max.to_string(),
        ]);
    }
    table
}

/// Bars of the median and the tail of several runs.
#[must_use]
pub fn latencies(title: &str, reports: &[Report]) -> Bars {
    let bars = Bars::new(title, "latency in ms", ["p50", "p99", "p99.9"]).log();
    reports.iter().fold(bars, |bars, report| {
        let phase = report.phase();
        bars.row(&report.label, [phase.p50, phase.p99, phase.p999])
    })
}

/// Lines of the 99th percentile of several runs over time.
#[must_use]
pub fn over_time(reports: &[Report], bucket_seconds: f64) -> Lines {
    let lines = Lines::new("latency over time", "seconds", "p99 in ms").log_y();
    reports.iter().fold(lines, |lines, report| {
        let points = report.series.iter().enumerate();
        let points = points.map(|(index, bucket)| (index as f64 * bucket_seconds, bucket.p99));
        lines.line(Line::new(&report.label, points))
    })
}

/// A job with a policy that is built from settings.
fn job<P: evenkeel_core::policy::Policy + Clone>(
    scenario: &Scenario,
    label: &str,
    policy: P,
) -> Job {
    let maker = move |_: &crate::rules::Surroundings| -> Box<dyn evenkeel_core::policy::Policy> {
        Box::new(policy.clone())
    };
    Job::with_maker(scenario.clone(), label, Box::new(maker))
}

/// A job with a policy by name, under another label.
fn named(scenario: &Scenario, policy: &str, label: &str) -> Job {
    debug_assert!(policies::check(policy).is_ok());
    Job::new(scenario.clone(), policy).label(label)
}
