//! Makes many runs in parallel and shows their progress.

use std::{
    fmt,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    policies::{self, Maker},
    report::Report,
    scenario::Scenario,
    simulate,
};

/// One run to make.
pub struct Job {
    label: String,
    scenario: Scenario,
    maker: Box<Maker>,
}

impl Job {
    /// A run of a scenario with the policy of this name, which is also its label.
    ///
    /// # Panics
    /// If there is no such policy. Call [`policies::check`] before.
    #[must_use]
    pub fn new(scenario: Scenario, policy: &str) -> Self {
        policies::check(policy).expect("the name was checked");
        let name = policy.to_owned();
        let maker = move |seen: &_| policies::by_name(&name, seen).expect("checked above");
        Self::with_maker(scenario, policy, Box::new(maker))
    }

    /// A run of a scenario with a custom policy.
    #[must_use]
    pub fn with_maker(scenario: Scenario, label: &str, maker: Box<Maker>) -> Self {
        Self { label: label.to_owned(), scenario, maker }
    }

    /// Sets the label in tables. Default: the name of the policy.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("label", &self.label)
            .field("scenario", &self.scenario.name)
            .finish_non_exhaustive()
    }
}

/// The number of steps of the progress bar for each run.
const PARTS: u64 = 1_000;

/// Makes all runs, `threads` at a time, and returns the reports in the order of the jobs.
///
/// Each run has its own virtual time and its own seed, so the number of threads changes only how
/// long it takes. A bar on the terminal shows the progress, unless `is_quiet` is set or there is no
/// terminal.
///
/// # Panics
/// If `threads` is zero.
#[must_use]
pub fn run_all(jobs: &[Job], threads: usize, is_quiet: bool) -> Vec<Report> {
    assert!(0 < threads, "at least one thread is needed");
    let bar =
        if is_quiet { ProgressBar::hidden() } else { ProgressBar::new(jobs.len() as u64 * PARTS) };
    let style = "{elapsed} {bar:40} {percent}% {msg}";
    bar.set_style(ProgressStyle::with_template(style).expect("a template that is tested"));
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<Option<Report>>> = Mutex::new(jobs.iter().map(|_| None).collect());
    thread::scope(|scope| {
        for _ in 0..threads.min(jobs.len()) {
            scope.spawn(|| {
                while let Some(job) = jobs.get(next.fetch_add(1, Relaxed)) {
                    let report = run(job, &bar);
                    let index = jobs.iter().position(|other| std::ptr::eq(other, job));
                    let mut done = done.lock().expect("no panic under the lock");
                    done[index.expect("it is one of them")] = Some(report);
                }
            });
        }
    });
    bar.finish_and_clear();
    let done = done.into_inner().expect("no panic under the lock");
    done.into_iter().map(|report| report.expect("each job was run")).collect()
}

fn run(job: &Job, bar: &ProgressBar) -> Report {
    let mut shown = 0;
    bar.set_message(format!("{}, {}", job.scenario.name, job.label));
    let report = simulate(&job.scenario, &job.label, &*job.maker, &mut |share| {
        let now = (share * PARTS as f64) as u64;
        bar.inc(now.saturating_sub(shown));
        shown = shown.max(now);
    });
    bar.inc(PARTS.saturating_sub(shown));
    report
}

/// The number of cores of the machine.
#[must_use]
pub fn threads() -> usize {
    thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_come_in_the_order_of_the_jobs_however_many_threads_there_are() {
        let text = "name = 'x'\n[load]\nutilization = 0.5\ncalls = 300\n[work]\nmean = '1ms'\n\
                    [[servers]]\ncount = 3";
        let scenario = Scenario::parse("x", text).unwrap();
        let jobs: Vec<_> = ["p2c", "random", "round_robin", "peak_ewma"]
            .map(|name| Job::new(scenario.clone(), name))
            .into();
        let labels = |threads| {
            run_all(&jobs, threads, true).into_iter().map(|report| report.label).collect::<Vec<_>>()
        };
        assert_eq!(labels(1), ["p2c", "random", "round_robin", "peak_ewma"]);
        assert_eq!(labels(3), labels(1));
    }
}
