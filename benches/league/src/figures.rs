//! The figures of one trial, and of many trials together.

use std::time::Duration;

use evenkeel_rig::percentiles::Percentiles;
use serde::Serialize;

use crate::{fault::Fault, scene::ENDPOINTS, trial::Record};

/// A call that takes longer has seen a fault, although it got no error: half of what a slow
/// endpoint takes.
pub(crate) const SLOW: Duration = Duration::from_millis(100);

/// An endpoint that gets nothing for the time of this many of its requests counts as left out: half
/// a second at 50 per second. By chance that happens once in tens of thousands of years.
const LEFT_OUT_REQUESTS: f64 = 25.0;

/// An endpoint has its share again when it gets at least half of this many requests in their usual
/// time: a quarter of a second at 50 per second.
const REGAINED_REQUESTS: f64 = 12.5;

/// The figures of one trial. Times are in milliseconds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figures {
    /// From the fault to the start of the last attempt at the faulty endpoint while it was faulty.
    /// 0 if there was none.
    pub(crate) stop: f64,
    /// The number of attempts at the faulty endpoint.
    pub(crate) after: usize,
    /// From the first of these attempts, which reveals the fault at the latest, to the last.
    pub(crate) span: f64,
    /// What it got while it was faulty, as a share of a fair share.
    pub(crate) share_at_target: f64,
    /// Calls that ended after the fault began, and their results.
    pub(crate) calls: usize,
    pub(crate) errors: usize,
    pub(crate) slow: usize,
    /// Errors before any fault, which mean that something is wrong with the trial.
    pub(crate) errors_before: usize,
    /// Attempts per call beyond the first, while the fault lasted.
    pub(crate) extra: f64,
    /// The number of these extra attempts.
    pub(crate) extra_attempts: f64,
    /// Calls that had begun by the end of the fault, including those before it. A retry budget
    /// counts these, as long as the whole trial is shorter than the budget's ten seconds.
    pub(crate) calls_begun: usize,
    /// Survivors that got nothing for half a second, at 50 requests per second.
    pub(crate) left_out: usize,
    /// From the end of the fault until the endpoint (or the last of all) had its share again. None
    /// if that did not happen during the trial.
    pub(crate) regained: Option<f64>,
    /// From the end of the fault to the start of the last call that failed. 0 if none failed.
    pub(crate) last_error: f64,
    /// What the busiest survivor got while the fault lasted, as a multiple of a quarter of the
    /// load.
    pub(crate) overshoot: f64,
}

impl Figures {
    pub(crate) fn of(record: &Record, fault: Fault) -> Self {
        let attempts = |from: Duration, to: Duration, endpoint: usize| {
            let is_meant = move |at: &Duration| from <= *at && *at < to;
            let attempts = record.attempts.iter().filter(move |a| a.endpoint == endpoint);
            attempts.map(|attempt| attempt.at).filter(is_meant)
        };
        let faulty: Vec<_> = attempts(record.struck, record.healing, record.target).collect();
        let all: [usize; ENDPOINTS] =
            std::array::from_fn(|e| attempts(record.struck, record.healing, e).count());
        let total: usize = all.iter().sum();

        let ended = record.calls.iter().filter(|call| record.struck <= call.end);
        let errors = ended.clone().filter(|call| call.failure.is_some());
        let slow =
            ended.clone().filter(|call| call.failure.is_none() && SLOW < call.end - call.start);
        let started = |call: &&evenkeel_rig::load::Call| {
            (record.struck..record.healing).contains(&call.start)
        };
        let started = record.calls.iter().filter(started).count().max(1);
        let survivors = (0..ENDPOINTS).filter(|endpoint| *endpoint != record.target);
        let limit = time_of(record, LEFT_OUT_REQUESTS);
        let left_out = survivors.clone().filter(|&endpoint| {
            let mut times = vec![record.struck];
            times.extend(attempts(record.struck, record.healing, endpoint));
            times.push(record.healing);
            times.windows(2).any(|pair| limit < pair[1] - pair[0])
        });
        let busiest = survivors.clone().map(|endpoint| all[endpoint]).max().unwrap_or_default();
        let last_error = errors
            .clone()
            .map(|call| call.start.saturating_sub(record.healed))
            .max()
            .unwrap_or_default();
        Self {
            stop: millis(faulty.last().map_or(Duration::ZERO, |at| *at - record.struck)),
            span: faulty.first().zip(faulty.last()).map_or(0.0, |(a, b)| millis(*b - *a)),
            after: faulty.len(),
            share_at_target: (faulty.len() * ENDPOINTS) as f64 / started as f64,
            calls: ended.clone().count(),
            errors: errors.count(),
            slow: slow.count(),
            errors_before: record
                .calls
                .iter()
                .filter(|call| call.end < record.struck && call.failure.is_some())
                .count(),
            extra: (total as f64 - started as f64) / started as f64,
            extra_attempts: total as f64 - started as f64,
            calls_begun: record.calls.iter().filter(|call| call.start < record.healing).count(),
            left_out: left_out.count(),
            regained: measure_regained(record, fault).map(millis),
            last_error: millis(last_error),
            overshoot: busiest as f64 * (ENDPOINTS - 1) as f64 / started as f64,
        }
    }

    /// Calls that saw the fault, as an error or as a wait.
    pub(crate) fn seen(&self) -> usize {
        self.errors + self.slow
    }
}

fn measure_regained(record: &Record, fault: Fault) -> Option<Duration> {
    if !fault.strikes_all() {
        return find_regained(record, record.target);
    }
    let times = (0..ENDPOINTS).map(|endpoint| find_regained(record, endpoint));
    times.collect::<Option<Vec<_>>>()?.into_iter().max()
}

/// When the first window begins in which the healed endpoint gets half of its share.
fn find_regained(record: &Record, endpoint: usize) -> Option<Duration> {
    const STEP: Duration = Duration::from_millis(10);
    let window = time_of(record, REGAINED_REQUESTS);
    let mut begin = record.healed;
    while begin + window <= record.ended {
        let end = begin + window;
        let within = record.attempts.iter().filter(|a| (begin..end).contains(&a.at));
        let own = within.clone().filter(|attempt| attempt.endpoint == endpoint).count();
        if 0 < own && within.count() <= own * 2 * ENDPOINTS {
            return Some(begin - record.healed);
        }
        begin += STEP;
    }
    None
}

/// How long one endpoint takes to get this many requests, at its fair share.
fn time_of(record: &Record, requests: f64) -> Duration {
    Duration::from_secs_f64(requests * ENDPOINTS as f64 / f64::from(record.rate))
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// The trials of one contestant and one fault.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Cell {
    pub(crate) contestant: &'static str,
    pub(crate) fault: &'static str,
    pub(crate) trials: Vec<Figures>,
    /// Why there are no trials, or what went wrong in some of them.
    pub(crate) remarks: Vec<String>,
}

impl Cell {
    pub(crate) fn percentiles(&self, figure: impl Fn(&Figures) -> f64) -> Option<Percentiles> {
        Percentiles::of(self.trials.iter().map(figure))
    }

    /// The share of counted calls among all calls.
    pub(crate) fn share(&self, counted: impl Fn(&Figures) -> usize) -> f64 {
        let calls: usize = self.trials.iter().map(|trial| trial.calls).sum();
        let counted: usize = self.trials.iter().map(counted).sum();
        counted as f64 / calls.max(1) as f64
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use evenkeel_rig::load::Call;

    use crate::wire::Attempt;

    const fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Attempts every 20 ms at each endpoint except those that `leave_out` names, with one call for
    /// each.
    fn record(leave_out: impl Fn(u64, usize) -> bool) -> Record {
        let mut attempts = Vec::new();
        for time in (0..4_000).step_by(20) {
            let all = (0..ENDPOINTS).filter(|endpoint| !leave_out(time, *endpoint));
            attempts.extend(all.map(|endpoint| Attempt { endpoint, at: at(time) }));
        }
        let call = |a: &Attempt| Call { start: a.at, end: a.at + at(2), failure: None };
        let calls = attempts.iter().map(call).collect();
        let (struck, healing, healed, ended) = (at(1_000), at(3_000), at(3_000), at(4_000));
        Record { rate: 250, calls, attempts, target: 1, struck, healing, healed, ended }
    }

    #[test]
    fn the_last_attempt_counts_until_the_fault_is_mended() {
        let record = record(|time, endpoint| endpoint == 1 && (1_100..3_000).contains(&time));

        let figures = Figures::of(&record, Fault::Crash);

        assert_eq!((figures.stop, figures.after, figures.span), (80.0, 5, 80.0));
        assert_eq!(figures.regained, Some(0.0));
        assert_eq!((figures.errors, figures.slow, figures.left_out), (0, 0, 0));
        assert!(figures.extra.abs() < 1e-9, "{}", figures.extra);
    }

    #[test]
    fn an_endpoint_that_does_not_return_has_not_regained_its_share() {
        let away = record(|time, endpoint| endpoint == 1 && 1_000 <= time);
        let late = record(|time, endpoint| endpoint == 1 && (1_000..3_500).contains(&time));

        assert_eq!(Figures::of(&away, Fault::Crash).regained, None);
        assert_eq!(Figures::of(&away, Fault::Crash).stop, 0.0);
        let regained = Figures::of(&late, Fault::Crash).regained.unwrap();
        assert!((250.0..=500.0).contains(&regained), "{regained}");
    }

    #[test]
    fn a_survivor_without_requests_for_half_a_second_was_left_out() {
        let record = record(|time, endpoint| {
            endpoint == 1 && 1_000 <= time || endpoint == 3 && (1_500..2_100).contains(&time)
        });

        assert_eq!(Figures::of(&record, Fault::Crash).left_out, 1);
    }

    #[test]
    fn errors_and_waits_differ_and_errors_before_the_fault_do_not_count() {
        let mut record = record(|_, _| false);
        let fail = |call: &mut Call| call.failure = Some("refused".to_owned());
        fail(&mut record.calls[0]);
        let last = record.calls.len() - 1;
        fail(&mut record.calls[last]);
        record.calls[last - 1].end += SLOW;

        let figures = Figures::of(&record, Fault::Crash);

        assert_eq!((figures.errors, figures.slow, figures.errors_before), (1, 1, 1));
        assert_eq!(figures.last_error, 980.0);
    }

    #[test]
    fn a_busy_survivor_shows_in_the_overshoot() {
        let mut record = record(|time, endpoint| endpoint == 1 && 1_000 <= time);
        assert!((Figures::of(&record, Fault::Crash).overshoot - 1.0).abs() < 1e-9);

        let more: Vec<_> =
            (1_000..3_000).step_by(20).map(|t| Attempt { endpoint: 2, at: at(t) }).collect();
        record.attempts.extend(more);
        record.attempts.sort_by_key(|attempt| attempt.at);

        assert!((Figures::of(&record, Fault::Crash).overshoot - 2.0).abs() < 1e-9);
        assert!((Figures::of(&record, Fault::Crash).extra - 0.25).abs() < 1e-9);
    }
}
