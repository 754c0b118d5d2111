//! The results of a run: tables for people, CSV and JSON for programs.

mod csv;
mod table;

use serde::Serialize;

pub(crate) use self::table::{millis, percent};
pub use self::{
    csv::{series_csv, to_csv},
    table::{Table, to_table},
};
use crate::tally::{Series, Tally};

/// The result of one run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The name of the scenario.
    pub scenario: String,
    /// The policy, and what it was combined with.
    pub label: String,
    /// The seed of the run.
    pub seed: u64,
    /// One phase, or one for each step of a ramp.
    pub phases: Vec<PhaseReport>,
    /// How many clients a server heard from, averaged over the servers.
    pub connections_mean: f64,
    /// How many clients the server with the most clients heard from.
    pub connections_max: u32,
    /// The counts over time.
    pub series: Vec<BucketReport>,
}

/// The result of one phase. Latency is in milliseconds. A call that failed before its deadline has
/// no latency.
#[derive(Clone, Debug, Serialize)]
pub struct PhaseReport {
    /// The step's name. Empty if there are no steps.
    pub name: String,
    /// How long the phase was counted, in seconds of virtual time.
    pub seconds: f64,
    /// Calls that began in this phase.
    pub calls: u64,
    /// Calls that failed, for any reason.
    pub errors: u64,
    /// Calls that failed because their deadline passed.
    pub timeouts: u64,
    /// Mean latency.
    pub mean: f64,
    /// The median latency.
    pub p50: f64,
    /// The 90th percentile of latency.
    pub p90: f64,
    /// The 99th percentile of latency.
    pub p99: f64,
    /// The 99.9th percentile of latency.
    pub p999: f64,
    /// Attempts that began in this phase.
    pub attempts: u64,
    /// Attempts whose answer no call used: they failed, were cut off, or another attempt was
    /// faster.
    pub wasted: u64,
    /// Attempts that went from one zone to another.
    pub crossing: u64,
    /// The share of all attempts that went to the busiest server.
    pub worst_share: f64,
    /// The share that each server would get if all had the same.
    pub fair_share: f64,
    /// The most requests that one server had in flight.
    pub in_flight_max: u32,
    /// The median of requests in flight at a server.
    pub in_flight_p50: u64,
    /// The 99th percentile of requests in flight at a server.
    pub in_flight_p99: u64,
    /// Attempts for each group of servers.
    pub groups: Vec<GroupReport>,
}

/// The attempts of one group of servers.
#[derive(Clone, Debug, Serialize)]
pub struct GroupReport {
    /// The group's name.
    pub name: String,
    /// Attempts that went to the group.
    pub attempts: u64,
}

/// The counts of one bucket of time. Buckets are in order from the start.
#[derive(Clone, Debug, Serialize)]
pub struct BucketReport {
    /// Calls that ended in this bucket.
    pub calls: u32,
    /// Calls that failed.
    pub errors: u32,
    /// Attempts that began in this bucket, for each group.
    pub attempts: Vec<u32>,
    /// The median latency in milliseconds.
    pub p50: f64,
    /// The 99th percentile of latency in milliseconds.
    pub p99: f64,
}

impl Report {
    /// The only phase.
    ///
    /// # Panics
    /// If the scenario has steps.
    #[must_use]
    pub fn phase(&self) -> &PhaseReport {
        assert_eq!(self.phases.len(), 1, "there is a phase for each step");
        &self.phases[0]
    }
}

impl PhaseReport {
    pub(crate) fn new(tally: &Tally, groups: Vec<GroupReport>) -> Self {
        let quantile = |share: f64| tally.latency.value_at_quantile(share) as f64 / 1e3;
        let worst = tally.attempts_of.iter().max().copied().unwrap_or(0);
        let ratio = |part: f64, whole: u64| if whole == 0 { 0.0 } else { part / whole as f64 };
        Self {
            name: tally.name.clone(),
            seconds: tally.ended.saturating_sub(tally.began) as f64 / 1e9,
            calls: tally.calls,
            errors: tally.errors,
            timeouts: tally.timeouts,
            mean: ratio(tally.latency_sum * 1e3, tally.latency.len()),
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
            p999: quantile(0.999),
            attempts: tally.attempts,
            wasted: tally.wasted,
            crossing: tally.crossing,
            worst_share: ratio(worst.into(), tally.attempts),
            fair_share: ratio(1.0, tally.attempts_of.len() as u64),
            in_flight_max: tally.in_flight_max,
            in_flight_p50: tally.in_flight.value_at_quantile(0.5),
            in_flight_p99: tally.in_flight.value_at_quantile(0.99),
            groups,
        }
    }

    /// The share of calls that failed.
    #[must_use]
    pub fn error_share(&self) -> f64 {
        if self.calls == 0 { 0.0 } else { self.errors as f64 / self.calls as f64 }
    }

    /// The share of attempts that went to this group.
    #[must_use]
    pub fn group_share(&self, group: usize) -> f64 {
        if self.attempts == 0 {
            0.0
        } else {
            self.groups[group].attempts as f64 / self.attempts as f64
        }
    }
}

impl From<&Series> for Vec<BucketReport> {
    fn from(series: &Series) -> Self {
        let report = |bucket: &crate::tally::Bucket| BucketReport {
            calls: bucket.calls,
            errors: bucket.errors,
            attempts: bucket.attempts_of.clone(),
            p50: bucket.latency.value_at_quantile(0.5) as f64 / 1e3,
            p99: bucket.latency.value_at_quantile(0.99) as f64 / 1e3,
        };
        series.buckets.iter().map(report).collect()
    }
}
