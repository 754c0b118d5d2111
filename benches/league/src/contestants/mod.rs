//! The contestants. Each is one file; their common parts are here.

mod envoy;
mod haproxy;
mod hyper;
mod nginx;
mod ours;
mod proxy;
mod tonic;
mod tower;

use std::{fmt, sync::Arc};

use evenkeel_rig::{load::Client, process::Companion};
use futures_util::future::BoxFuture;

use crate::{
    BoxError,
    fault::Fault,
    options::Programs,
    scene::{Protocol, Scene},
};

/// A client or proxy that sends requests to five endpoints.
pub(crate) trait Contestant: fmt::Debug + Send + Sync {
    fn name(&self) -> &'static str;

    /// A description in one line.
    fn about(&self) -> &'static str;

    /// The protocol to the endpoints.
    fn protocol(&self, fault: Fault) -> Protocol {
        fault.protocol()
    }

    /// Why the contestant does not take part in this fault.
    fn unable(&self, fault: Fault) -> Option<&'static str> {
        _ = fault;
        None
    }

    /// What is missing to run it, and how to install it.
    fn missing(&self) -> Option<String> {
        None
    }

    fn start<'a>(&'a self, scene: &'a Scene) -> BoxFuture<'a, Result<Running, BoxError>>;
}

/// A contestant in a running trial.
pub(crate) struct Running {
    pub(crate) client: Client,
    pub(crate) announce: Box<dyn Announce + Send>,
    pub(crate) proxy: Option<Companion>,
}

/// How a contestant learns that an endpoint leaves or joins.
pub(crate) trait Announce {
    fn remove(&mut self, endpoint: usize) -> Result<(), BoxError>;
    fn insert(&mut self, endpoint: usize) -> Result<(), BoxError>;
}

/// It has no way to learn this.
pub(crate) struct Untold;

impl Announce for Untold {
    fn remove(&mut self, _: usize) -> Result<(), BoxError> {
        Ok(())
    }

    fn insert(&mut self, _: usize) -> Result<(), BoxError> {
        Ok(())
    }
}

/// All contestants, in the order of the tables.
pub(crate) fn all(programs: &Programs) -> Vec<Arc<dyn Contestant>> {
    vec![
        Arc::new(ours::Ours),
        Arc::new(hyper::Hyper),
        Arc::new(tower::Tower),
        Arc::new(tonic::Tonic),
        Arc::new(nginx::Nginx::new(programs, false)),
        Arc::new(nginx::Nginx::new(programs, true)),
        Arc::new(haproxy::Haproxy::new(programs, false)),
        Arc::new(haproxy::Haproxy::new(programs, true)),
        Arc::new(envoy::Envoy::new(programs, false)),
        Arc::new(envoy::Envoy::new(programs, true)),
    ]
}
