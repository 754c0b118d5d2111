//! What a run came to: tables for people, CSV and JSON for programs.

mod csv;
mod table;

use serde::Serialize;

pub(crate) use self::table::{millis, percent};
pub use self::{
    csv::{series_csv, to_csv},
    table::{Table, to_table},
};
use crate::tally::{Series, Tally};

/// What one run came to.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The name of the scenario.
    pub scenario: String,
    /// What was compared: the policy, and what it was combined with.
    pub label: String,
    /// What all that was random followed from.
    pub seed: u64,
    /// One, or one for each step of a ramp.
    pub phases: Vec<PhaseReport>,
    /// Clients that ever sent something to a server, on the average over the servers.
    pub connections_mean: f64,
    /// The same for the server that most clients sent something to.
    pub connections_max: u32,
    /// What was counted over time.
    pub series: Vec<BucketReport>,
}

/// What one phase came to. Latency is in milliseconds; calls that failed before their time was over
/// have none.
#[derive(Clone, Debug, Serialize)]
pub struct PhaseReport {
    /// The step's name, empty without steps.
    pub name: String,
    /// How long it was counted, in seconds of virtual time.
    pub seconds: f64,
    /// Calls that began in it.
    pub calls: u64,
    /// Those that failed, for whatever reason.
    pub errors: u64,
    /// Those of them whose time was over.
    pub timeouts: u64,
    /// Mean latency.
    pub mean: f64,
    /// The median.
    pub p50: f64,
    /// Nine tenths took at most this.
    pub p90: f64,
    /// All but a hundredth.
    pub p99: f64,
    /// All but a thousandth.
    pub p999: f64,
    /// Attempts that began in it.
    pub attempts: u64,
    /// Attempts that brought no answer to a call: failed, cut off, outrun by another.
    pub wasted: u64,
    /// Attempts from one zone to another.
    pub crossing: u64,
    /// The share of the attempts that went to the server with the most.
    pub worst_share: f64,
    /// What its share would be if all had the same.
    pub fair_share: f64,
    /// The most requests that a server had at a time.
    pub in_flight_max: u32,
    /// The median of requests at a server.
    pub in_flight_p50: u64,
    /// All but a hundredth of the time and the servers.
    pub in_flight_p99: u64,
    /// Attempts by group of servers.
    pub groups: Vec<GroupReport>,
}

/// What a group of servers had.
#[derive(Clone, Debug, Serialize)]
pub struct GroupReport {
    /// Its name.
    pub name: String,
    /// Attempts that went there.
    pub attempts: u64,
}

/// What was counted in a short time, after the start in the order of the buckets.
#[derive(Clone, Debug, Serialize)]
pub struct BucketReport {
    /// Calls that ended in it.
    pub calls: u32,
    /// Those that failed.
    pub errors: u32,
    /// Attempts that began in it, by group.
    pub attempts: Vec<u32>,
    /// The median latency in milliseconds.
    pub p50: f64,
    /// All but a hundredth.
    pub p99: f64,
}

impl Report {
    /// The only phase.
    ///
    /// # Panics
    /// If there are steps.
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

    /// The share of attempts that went to a group.
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
