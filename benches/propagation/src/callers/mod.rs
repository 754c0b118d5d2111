//! The callers of the backends. Each is one file; their common parts are here.

pub(crate) mod by_default;
mod grpc_go;
pub(crate) mod ours;
mod traefik;

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::{BoxError, event::Event, moment::Moment, options::Options, scene::Scene};

/// A program that finds backends in a registry and calls them.
pub(crate) trait Caller: fmt::Debug + Send + Sync {
    fn name(&self) -> &'static str;

    /// A description in one line.
    fn about(&self) -> &'static str;

    /// What is missing to run it, and how to install it.
    fn missing(&self) -> Option<String>;

    /// Whether this registry and event are measured with it.
    fn reads(&self, registry: &str, event: Event) -> bool;

    /// The tags that backends must have for it.
    fn tags(&self) -> Vec<String> {
        vec![]
    }

    /// Whether it reports when a change is in its balancers.
    fn reports_changes(&self) -> bool {
        false
    }

    /// How long it takes at most to see a change that it sees at all.
    fn patience(&self) -> Duration;

    fn start<'a>(
        &'a self,
        scene: &'a Scene,
        options: &'a Options,
        seed: u64,
    ) -> BoxFuture<'a, Result<Box<dyn Calling>, BoxError>>;
}

/// A caller in a running trial.
pub(crate) trait Calling: Send + Sync {
    /// Waits until a change is in every balancer. None if that is too late or cannot be seen.
    fn until<'a>(&'a mut self, change: Change, after: Duration) -> BoxFuture<'a, Option<Moment>>;

    /// Its process, if it has a separate one.
    fn process(&self) -> Option<u32>;

    /// Stops making calls, and returns what it has seen.
    fn end(self: Box<Self>) -> BoxFuture<'static, Result<Seen, BoxError>>;
}

/// A change of the set of endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Joined(SocketAddr),
    Left(SocketAddr),
    Weight(SocketAddr, u32),
    /// The set has this many endpoints.
    Count(usize),
}

/// What a caller has seen.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) calls: usize,
    pub(crate) errors: usize,
    pub(crate) first_error: Option<String>,
    /// When the last failed call began.
    pub(crate) last_error: Option<Moment>,
    /// The attempts, with endpoint and time. Only for ours.
    pub(crate) attempts: Vec<(SocketAddr, Moment)>,
    /// The fewest endpoints that a balancer had after it first had all. Only for ours.
    pub(crate) min_endpoints: Option<usize>,
}

/// All callers, in the order of the tables.
pub(crate) fn all() -> Vec<Arc<dyn Caller>> {
    vec![Arc::new(ours::Ours), Arc::new(traefik::Traefik), Arc::new(grpc_go::GrpcGo)]
}
