//! Who calls the backends. Each is one file; what they have in common is here.

pub(crate) mod by_default;
mod grpc_go;
pub(crate) mod ours;
mod traefik;

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::{BoxError, event::Event, moment::Moment, options::Options, scene::Scene};

/// Somebody who finds backends in a registry and calls them.
pub(crate) trait Caller: fmt::Debug + Send + Sync {
    fn name(&self) -> &'static str;

    /// What it is, in a line.
    fn about(&self) -> &'static str;

    /// What is missing to run it, and how to get it.
    fn missing(&self) -> Option<String>;

    /// Whether it is measured there.
    fn reads(&self, registry: &str, event: Event) -> bool;

    /// Tags that it wants backends to have.
    fn tags(&self) -> Vec<String> {
        vec![]
    }

    /// Whether it tells when a change is in its balancers.
    fn tells(&self) -> bool {
        false
    }

    /// By then it has seen a change that it sees at all.
    fn patience(&self) -> Duration;

    fn start<'a>(
        &'a self,
        scene: &'a Scene,
        options: &'a Options,
        seed: u64,
    ) -> BoxFuture<'a, Result<Box<dyn Calling>, BoxError>>;
}

/// A caller in a trial.
pub(crate) trait Calling: Send + Sync {
    /// Waits until a change is in every balancer; none if it is not in time, or cannot be seen.
    fn until<'a>(&'a mut self, change: Change, after: Duration) -> BoxFuture<'a, Option<Moment>>;

    /// Its process, if it has one of its own.
    fn process(&self) -> Option<u32>;

    /// Makes no more calls, and tells what it has seen.
    fn end(self: Box<Self>) -> BoxFuture<'static, Result<Seen, BoxError>>;
}

/// A change of the set of endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Joined(SocketAddr),
    Left(SocketAddr),
    Weight(SocketAddr, u32),
    /// So many are there.
    Count(usize),
}

/// What a caller saw.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) calls: usize,
    pub(crate) errors: usize,
    pub(crate) first_error: Option<String>,
    /// When the last call that failed began.
    pub(crate) last_error: Option<Moment>,
    /// Who was tried, and when; of ours alone.
    pub(crate) attempts: Vec<(SocketAddr, Moment)>,
    /// The least endpoints that a balancer had since it had all of the first; of ours alone.
    pub(crate) endpoints_min: Option<usize>,
}

/// All callers, in the order of the tables.
pub(crate) fn all() -> Vec<Arc<dyn Caller>> {
    vec![Arc::new(ours::Ours), Arc::new(traefik::Traefik), Arc::new(grpc_go::GrpcGo)]
}
