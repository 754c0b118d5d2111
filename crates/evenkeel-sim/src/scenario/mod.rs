//! What is simulated, read from a TOML file.
//!
//! Only `name`, `[load]`, `[work]` and one `[[servers]]` are required; every other key has a
//! default. The files in the folder `scenarios` of this crate show every key.
//!
//! ```
//! use evenkeel_sim::scenario::Scenario;
//!
//! let text = r#"
//!     name = "ten servers"
//!     [load]
//!     utilization = 0.8
//!     calls = 1_000
//!     [work]
//!     mean = "1ms"
//!     [[servers]]
//!     count = 10
//! "#;
//! let scenario = Scenario::parse("ten.toml", text).unwrap();
//! assert_eq!(scenario.servers[0].count, 10);
//!
//! let error = Scenario::parse("ten.toml", &text.replace("0.8", "-1")).unwrap_err();
//! assert!(error.to_string().starts_with("ten.toml:4: "), "{error}");
//! ```

mod built_in;
mod check;
mod read;
mod servers;
mod units;

use serde::Deserialize;

pub use self::{
    built_in::BUILT_IN,
    read::ScenarioError,
    servers::{Antagonist, Fault, FaultKind, Servers, WarmUp},
    units::{
        AboveOne, AboveZero, Bounds, Factor, NotNegative, Positive, Share, Time, UpToOne, Within,
    },
};
pub use crate::machine::Discipline;

/// What is simulated. See the [module docs](self).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// The name in tables.
    pub name: String,
    /// What the scenario shows. Default: empty.
    #[serde(default)]
    pub about: String,
    /// The seed of all random numbers. Default: 1.
    #[serde(default = "one")]
    pub seed: u64,
    /// The policies to compare, by name. Default: those that balance and need no key.
    #[serde(default)]
    pub policies: Vec<String>,
    /// How many calls come.
    pub load: Load,
    /// How much work a call needs.
    pub work: Work,
    /// The clients. Default: one client.
    #[serde(default)]
    pub clients: Clients,
    /// The groups of servers.
    pub servers: Vec<Servers>,
    /// How long messages travel. Default: no time.
    #[serde(default)]
    pub network: Network,
    /// How long a call may take. Default: no limit.
    #[serde(default)]
    pub call: Call,
    /// Retries of failed attempts. Default: none.
    pub retry: Option<Retry>,
    /// Hedging of slow attempts. Default: none.
    pub hedge: Option<Hedge>,
    /// Ejection of outliers. Default: none.
    pub outlier: Option<Outlier>,
    /// Circuit breakers at the endpoints. Default: none.
    pub breaker: Option<Breaker>,
    /// Keys of calls, and servers that remember some of them. Default: no keys.
    pub keys: Option<Keys>,
}

fn one() -> u64 {
    1
}

impl Scenario {
    /// The width of the buckets of the counts over time, in nanoseconds.
    pub(crate) fn bucket(&self) -> u64 {
        self.load.bucket.map_or(crate::time::SECOND, Time::nanos).max(1)
    }
}

/// How many calls come: one of `rate`, `utilization` and `concurrency`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// Calls per second of all clients together, at random moments (a Poisson process).
    pub rate: Option<Positive>,
    /// The same as a share of the servers' capacity, without faults and antagonists.
    pub utilization: Option<Positive>,
    /// Each client keeps this many calls in flight and makes a new one when one ends.
    pub concurrency: Option<u32>,
    /// The run ends after this many calls.
    pub calls: Option<u64>,
    /// The run ends after this time. Default: no limit, if `calls` or `steps` end it.
    pub lasts: Option<Time>,
    /// Time at the start that is not counted. Default: 0.
    #[serde(default)]
    pub warm_up: Time,
    /// The width of the buckets of the counts over time. Default: 1 s.
    pub bucket: Option<Time>,
    /// A ramp: loads that follow one another. Each step is counted separately.
    #[serde(default)]
    pub steps: Vec<Step>,
}

/// A step of a ramp.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// The name in tables.
    pub name: String,
    /// Calls per second.
    pub rate: Option<Positive>,
    /// The same as a share of the servers' capacity.
    pub utilization: Option<Positive>,
    /// How long the step lasts.
    pub lasts: Time,
    /// Time at the start of the step that is not counted. Default: 0.
    #[serde(default)]
    pub settles: Time,
}

/// How much work a call needs, as time of one core of pace 1.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Work {
    /// The mean. For `normal`, the mean before negative work is set to 0.
    pub mean: Time,
    /// How work varies. Default: `exponential`.
    #[serde(default)]
    pub law: Law,
    /// The deviation of `normal` as a multiple of the mean (default: 1), the `sigma` of `lognormal`
    /// (default: 1), or the shape of `pareto` (default: 1.5).
    pub shape: Option<Positive>,
    /// The largest Pareto draw, as a multiple of the mean. Default: 1,000.
    pub most: Option<Positive>,
}

/// How work varies from call to call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Law {
    /// All calls need the same work.
    Fixed,
    /// Most calls are short, some are long.
    #[default]
    Exponential,
    /// Around the mean. Negative work is set to 0.
    Normal,
    /// A long tail.
    Lognormal,
    /// A very long tail.
    Pareto,
}

/// The clients.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clients {
    /// How many clients there are. Default: 1.
    #[serde(default = "one_u32")]
    pub count: u32,
    /// How many servers each client knows; 0 for all. Default: 0.
    #[serde(default)]
    pub subset: u32,
    /// How these servers are chosen, as in core. Default: `random`.
    #[serde(default)]
    pub subset_by: SubsetBy,
    /// The zones of the clients, in turn. Default: no zones.
    #[serde(default)]
    pub zones: Vec<String>,
}

impl Default for Clients {
    fn default() -> Self {
        Self { count: 1, subset: 0, subset_by: SubsetBy::Random, zones: Vec::new() }
    }
}

/// The rule by which a client chooses its servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubsetBy {
    /// [`RandomSubset`](evenkeel_core::subset::RandomSubset).
    #[default]
    Random,
    /// [`Aperture`](evenkeel_core::subset::Aperture).
    Aperture,
    /// [`Rocksteadier`](evenkeel_core::subset::Rocksteadier).
    Rocksteadier,
}

fn one_u32() -> u32 {
    1
}

fn positive_one() -> Positive {
    Positive::new(1.0)
}

/// How long messages travel, one way.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Within a zone, or if there are no zones. Default: 0.
    #[serde(default)]
    pub delay: Time,
    /// Between zones. Default: the same as within a zone.
    pub between_zones: Option<Time>,
    /// The largest random delay that is added to each message. Default: 0.
    #[serde(default)]
    pub jitter: Time,
}

/// How long a call may take.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// The whole call: after this time it has failed. Default: no limit.
    pub deadline: Option<Time>,
    /// One attempt: after this time it is dropped, as in the retry layer. Default: no limit.
    pub attempt_timeout: Option<Time>,
}

/// Retries of failed attempts.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// The most attempts per call, including the first, up to 8. Default: 3.
    #[serde(default = "three")]
    pub attempts: u32,
    /// The percentage of calls that may be retried. Default: 20.
    #[serde(default = "twenty")]
    pub budget: Factor,
    /// Retries per second and client that are always allowed. Default: 10.
    #[serde(default = "ten")]
    pub floor: u32,
}

fn three() -> u32 {
    3
}

fn ten() -> u32 {
    10
}

fn twenty() -> Factor {
    Factor::new(20.0)
}

/// Hedging: a slow attempt gets a second one beside it. Needs one of `percentile` and `after`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hedge {
    /// Hedge when an attempt takes longer than this percentile of recent ones.
    pub percentile: Option<Positive>,
    /// Hedge when an attempt takes longer than this.
    pub after: Option<Time>,
    /// The percentage of calls that may be hedged. Default: 20. Retries and hedges share one
    /// budget.
    #[serde(default = "twenty")]
    pub budget: Factor,
}

/// Ejection of outliers. Missing keys have the library's defaults.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outlier {
    /// Consecutive failures that eject.
    pub consecutive_errors: Option<u32>,
    /// How often failure rates are checked.
    pub interval: Option<Time>,
    /// How long the first ejection lasts.
    pub min_ejection: Option<Time>,
    /// The largest percentage of servers that may be ejected.
    pub max_ejected_percent: Option<u32>,
    /// Ejects servers that are this many times slower than the median. Default: off.
    pub slower: Option<Positive>,
}

/// Circuit breakers at the endpoints. Missing keys have the library's defaults.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Breaker {
    /// Consecutive failures that open the breaker.
    pub consecutive_failures: Option<u32>,
    /// The share of failures that opens the breaker.
    pub failure_rate: Option<Share>,
    /// How long the breaker stays open the first time.
    pub min_open: Option<Time>,
}

/// Keys of calls, some more frequent than others (Zipf). Servers remember the keys that they saw
/// last.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// How many keys there are.
    pub count: u32,
    /// The Zipf exponent: how uneven the keys are. Default: 1.
    #[serde(default = "positive_one")]
    pub exponent: Positive,
    /// How many keys a server remembers.
    pub remembered: u32,
    /// The work for a key that is not remembered, as a multiple of the call's work. Default: 10.
    #[serde(default = "ten_times")]
    pub miss: Positive,
}

fn ten_times() -> Positive {
    Positive::new(10.0)
}
