//! The servers, and their faults.

use serde::Deserialize;

use super::{Discipline, Factor, Positive, Share, Time, one_u32, positive_one};

/// A group of equal servers.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Servers {
    /// The name of the group in tables. Default: its number.
    #[serde(default)]
    pub name: String,
    /// How many servers there are.
    pub count: u32,
    /// Cores of each server. Default: 1.
    #[serde(default = "positive_one")]
    pub cores: Positive,
    /// The speed of a core, relative to the work of a call. Default: 1.
    #[serde(default = "positive_one")]
    pub pace: Positive,
    /// How the cores are shared. Default: `processor_sharing`.
    #[serde(default)]
    pub queue: Discipline,
    /// The weight that discovery reports. Default: 1.
    #[serde(default = "one_u32")]
    pub weight: u32,
    /// The tier that discovery reports. Default: 0.
    #[serde(default)]
    pub priority: u32,
    /// The zone of the servers. Default: none.
    pub zone: Option<String>,
    /// When discovery first lists them. Default: at the start.
    pub joins: Option<Time>,
    /// When discovery removes them. Default: never.
    pub leaves: Option<Time>,
    /// Slow start of new servers. Default: none.
    pub warm_up: Option<WarmUp>,
    /// Other tenants of the same machine. Default: none.
    pub antagonist: Option<Antagonist>,
    /// The faults.
    #[serde(default)]
    pub faults: Vec<Fault>,
}

/// Slow start: a new server becomes faster in ten steps.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WarmUp {
    /// The pace at first, as a share of the full pace.
    pub from: Share,
    /// How long it takes to reach the full pace.
    pub over: Time,
}

/// Other tenants of the same machine: they make the capacity of a server vary.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Antagonist {
    /// How long one level lasts on average (exponential).
    pub every: Time,
    /// What the server keeps, as `[share, factor]`: in this share of the time it has at most this
    /// many times its cores, linear in between. The last share is 1.
    pub levels: Vec<(f64, f64)>,
    /// Whether antagonists take pace instead of cores. Then every request becomes slower, not only
    /// those that do not fit. Default: false.
    #[serde(default)]
    pub slows: bool,
}

/// A fault of all servers of a group.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The kind of fault.
    pub kind: FaultKind,
    /// When the fault begins. Default: at the start.
    #[serde(default)]
    pub at: Time,
    /// How long it lasts. Default: until the end.
    pub lasts: Option<Time>,
    /// The time from one beginning of the fault to the next. Default: it does not repeat.
    pub every: Option<Time>,
    /// For `fails`: the share of requests that fail. Default: 1.
    #[serde(default = "all")]
    pub share: Share,
    /// For `fails` and `refuses`: how long the failure takes. Default: 0.
    #[serde(default)]
    pub after: Time,
    /// For `slow`: the factor of the pace. Default: 0.1.
    #[serde(default = "tenth")]
    pub pace: Factor,
    /// How many servers of the group are struck, from the first on. Default: all.
    pub servers: Option<u32>,
}

fn all() -> Share {
    Share::new(1.0)
}

fn tenth() -> Factor {
    Factor::new(0.1)
}

/// The kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// The server answers with a failure and does no work.
    Fails,
    /// The server works more slowly.
    Slow,
    /// The server accepts no connections. Requests that it already has are lost at once.
    Refuses,
    /// The server neither answers nor refuses.
    Hangs,
}
