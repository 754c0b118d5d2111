//! What is simulated, as it is written in a file.
//!
//! A scenario is a TOML file. Everything but `name`, `[load]`, `[work]` and one `[[servers]]` has a
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
    /// What it is called in tables.
    pub name: String,
    /// What it shows. Default nothing.
    #[serde(default)]
    pub about: String,
    /// What all that is random follows from. Default 1.
    #[serde(default = "one")]
    pub seed: u64,
    /// The policies that are compared, by name. Default those that balance and need no key.
    #[serde(default)]
    pub policies: Vec<String>,
    /// How many calls come.
    pub load: Load,
    /// How much work a call is.
    pub work: Work,
    /// Who calls. Default one client.
    #[serde(default)]
    pub clients: Clients,
    /// Who is called.
    pub servers: Vec<Servers>,
    /// How long messages travel. Default no time at all.
    #[serde(default)]
    pub network: Network,
    /// How long a call may take. Default for ever.
    #[serde(default)]
    pub call: Call,
    /// Whether failed attempts are followed by others. Default no.
    pub retry: Option<Retry>,
    /// Whether slow attempts get a second one beside them. Default no.
    pub hedge: Option<Hedge>,
    /// Whether outliers are ejected. Default no.
    pub outlier: Option<Outlier>,
    /// Whether endpoints have circuit breakers. Default no.
    pub breaker: Option<Breaker>,
    /// Whether calls have keys, and servers remember some of them. Default no.
    pub keys: Option<Keys>,
}

fn one() -> u64 {
    1
}

impl Scenario {
    /// The width of the buckets in which is counted over time, in nanoseconds.
    pub(crate) fn bucket(&self) -> u64 {
        self.load.bucket.map_or(crate::time::SECOND, Time::nanos).max(1)
    }
}

/// How many calls come: one of `rate`, `utilization` and `concurrency`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// Calls a second of all clients together, at random moments (a Poisson process).
    pub rate: Option<Positive>,
    /// The same as a share of what the servers can do, faults and antagonists not considered.
    pub utilization: Option<Positive>,
    /// Each client has so many calls under way, and makes another when one ends.
    pub concurrency: Option<u32>,
    /// It ends after so many calls.
    pub calls: Option<u64>,
    /// It ends after so long. Default for ever, if `calls` or `steps` end it.
    pub lasts: Option<Time>,
    /// What happens at first is not counted. Default 0.
    #[serde(default)]
    pub warm_up: Time,
    /// What is counted over time is counted in buckets of this width. Default 1 s.
    pub bucket: Option<Time>,
    /// A ramp: what changes, one after the other; each is counted for itself.
    #[serde(default)]
    pub steps: Vec<Step>,
}

/// A step of a ramp.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// What it is called in tables.
    pub name: String,
    /// Calls a second.
    pub rate: Option<Positive>,
    /// The same as a share of what the servers can do.
    pub utilization: Option<Positive>,
    /// How long it lasts.
    pub lasts: Time,
    /// What happens so long at its beginning is not counted. Default 0.
    #[serde(default)]
    pub settles: Time,
}

/// How much work a call is, in time of one core of pace 1.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Work {
    /// The mean. For `normal` that before negative work was made none.
    pub mean: Time,
    /// How it differs. Default `exponential`.
    #[serde(default)]
    pub law: Law,
    /// The deviation of `normal` in means (default 1), the `sigma` of `lognormal` (default 1), the shape
    /// of `pareto` (default 1.5).
    pub shape: Option<Positive>,
    /// A Pareto draw is at most so many means. Default 1,000.
    pub most: Option<Positive>,
}

/// How work differs from call to call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Law {
    /// Not at all.
    Fixed,
    /// Most are short, some are long.
    #[default]
    Exponential,
    /// Around the mean; what would be negative is none.
    Normal,
    /// A long tail.
    Lognormal,
    /// A very long tail.
    Pareto,
}

/// Who calls.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clients {
    /// How many there are. Default 1.
    #[serde(default = "one_u32")]
    pub count: u32,
    /// Each knows so many servers; 0 for all. Default 0.
    #[serde(default)]
    pub subset: u32,
    /// How these are chosen: as core does. Default `random`.
    #[serde(default)]
    pub subset_by: SubsetBy,
    /// Where they are, in turn. Default nowhere.
    #[serde(default)]
    pub zones: Vec<String>,
}

impl Default for Clients {
    fn default() -> Self {
        Self { count: 1, subset: 0, subset_by: SubsetBy::Random, zones: Vec::new() }
    }
}

/// The rule by which a client chooses the servers that it knows.
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
    /// Within a zone, or where there are none. Default 0.
    #[serde(default)]
    pub delay: Time,
    /// Between zones. Default as within one.
    pub between_zones: Option<Time>,
    /// Up to so much is added at random to each message. Default 0.
    #[serde(default)]
    pub jitter: Time,
}

/// How long a call may take.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// All of it: then it has failed. Default for ever.
    pub deadline: Option<Time>,
    /// One attempt: then it is dropped, as the retry layer does it. Default for ever.
    pub attempt_timeout: Option<Time>,
}

/// Failed attempts are followed by others.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// So many attempts at most, the first among them, up to 8. Default 3.
    #[serde(default = "three")]
    pub attempts: u32,
    /// Percent of the calls that may be followed by another attempt. Default 20.
    #[serde(default = "twenty")]
    pub budget: Factor,
    /// Retries a second and client that there may always be. Default 10.
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

/// Slow attempts get a second one beside them: one of `percentile` and `after`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hedge {
    /// When they have taken longer than this percentage of recent ones.
    pub percentile: Option<Positive>,
    /// When they have taken so long.
    pub after: Option<Time>,
    /// Percent of the calls that may get one. Default 20. Spent together with retries, if there are any.
    #[serde(default = "twenty")]
    pub budget: Factor,
}

/// Outliers are ejected. What is not said is as the library has it.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outlier {
    /// Failures in a row.
    pub consecutive_errors: Option<u32>,
    /// How often rates are looked at.
    pub interval: Option<Time>,
    /// How long a first ejection lasts.
    pub ejection_min: Option<Time>,
    /// Percent of the servers that may be ejected.
    pub ejected_max_percent: Option<u32>,
    /// Who is so many times slower than the median is ejected, too. Default nobody.
    pub slower: Option<Positive>,
}

/// Endpoints have circuit breakers. What is not said is as the library has it.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Breaker {
    /// Failures in a row.
    pub consecutive_failures: Option<u32>,
    /// The share of failures.
    pub failure_rate: Option<Share>,
    /// How long it is open the first time.
    pub open_min: Option<Time>,
}

/// Calls have keys, some more frequent than others (Zipf), and servers remember those they saw last.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// How many keys there are.
    pub count: u32,
    /// How uneven they are. Default 1.
    #[serde(default = "positive_one")]
    pub exponent: Positive,
    /// So many keys a server remembers.
    pub remembered: u32,
    /// Work for a key that is not remembered, in works. Default 10.
    #[serde(default = "ten_times")]
    pub miss: Positive,
}

fn ten_times() -> Positive {
    Positive::new(10.0)
}
