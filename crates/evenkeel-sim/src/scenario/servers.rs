//! Who is called, and what goes wrong there.

use serde::Deserialize;

use super::{Discipline, Factor, Positive, Share, Time, one_u32, positive_one};

/// A group of equal servers.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Servers {
    /// What the group is called in tables. Default its number.
    #[serde(default)]
    pub name: String,
    /// How many there are.
    pub count: u32,
    /// Cores of each. Default 1.
    #[serde(default = "positive_one")]
    pub cores: Positive,
    /// How fast a core is. Default 1.
    #[serde(default = "positive_one")]
    pub pace: Positive,
    /// How cores are shared. Default `processor_sharing`.
    #[serde(default)]
    pub queue: Discipline,
    /// What discovery says of their weight. Default 1.
    #[serde(default = "one_u32")]
    pub weight: u32,
    /// What discovery says of their tier. Default 0.
    #[serde(default)]
    pub priority: u32,
    /// Where they are. Default nowhere.
    pub zone: Option<String>,
    /// When discovery names them first. Default at once.
    pub joins: Option<Time>,
    /// When discovery names them no more. Default never.
    pub leaves: Option<Time>,
    /// A new server is slow at first. Default it is not.
    pub warm_up: Option<WarmUp>,
    /// Others who use the same machine. Default nobody.
    pub antagonist: Option<Antagonist>,
    /// What goes wrong.
    #[serde(default)]
    pub faults: Vec<Fault>,
}

/// A new server is slow at first, and becomes faster in ten steps.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WarmUp {
    /// Its pace at first, as a share of the full one.
    pub from: Share,
    /// How long it takes.
    pub over: Time,
}

/// Others who use the same machine, so that its cores vary.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Antagonist {
    /// How long what they leave lasts on the average (exponential).
    pub every: Time,
    /// What they leave, as `[share, factor]`: in this share of the time at most this many times the
    /// server's cores, linear in between. The last share is 1.
    pub levels: Vec<(f64, f64)>,
    /// Whether they take pace instead of cores: every request becomes slower, not only those that
    /// do not fit. Default false.
    #[serde(default)]
    pub slows: bool,
}

/// Something that goes wrong at all servers of a group.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// What it is.
    pub kind: FaultKind,
    /// When it begins. Default at once.
    #[serde(default)]
    pub at: Time,
    /// How long it lasts. Default for ever.
    pub lasts: Option<Time>,
    /// It comes again so long after it began. Default never.
    pub every: Option<Time>,
    /// Of `fails`: the share of requests. Default 1.
    #[serde(default = "all")]
    pub share: Share,
    /// Of `fails` and `refuses`: how long that takes. Default 0.
    #[serde(default)]
    pub after: Time,
    /// Of `slow`: what the pace is multiplied by. Default 0.1.
    #[serde(default = "tenth")]
    pub pace: Factor,
    /// How many servers of the group it strikes, the first ones. Default all.
    pub servers: Option<u32>,
}

fn all() -> Share {
    Share::new(1.0)
}

fn tenth() -> Factor {
    Factor::new(0.1)
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// It answers with a failure and does no work.
    Fails,
    /// It works more slowly.
    Slow,
    /// It accepts no connection; requests that it had are lost at once.
    Refuses,
    /// It neither answers nor refuses.
    Hangs,
}
