//! The registries. Each is one file; what they have in common is here.

mod consul;
mod dns;
mod etcd;
mod kubernetes;

use std::{fmt, net::SocketAddr, path::Path, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};

use crate::{BoxError, backend::Register, event::Event};

/// The service that all of them have.
pub(crate) const SERVICE: &str = "web";

/// A kind of registry, and its servers.
pub(crate) trait Registry: fmt::Debug + Send + Sync {
    fn name(&self) -> &'static str;

    /// What it is, in a line.
    fn about(&self) -> &'static str;

    /// What is missing to run it, and how to get it.
    fn missing(&self) -> Option<String>;

    /// Whether this can happen to it.
    fn knows(&self, event: Event) -> bool;

    /// How late a change may be in every balancer, where the registry announces it.
    fn delay_max(&self) -> Duration {
        Duration::from_millis(100)
    }

    /// How long callers take to see that somebody has left: so long a backend serves on.
    fn propagation(&self) -> Duration {
        Duration::from_secs(2)
    }

    fn start<'a>(&'a self, folder: &'a Path) -> BoxFuture<'a, Result<Box<dyn Running>, BoxError>>;
}

/// A registry in a trial.
pub(crate) trait Running: Send + Sync {
    /// Where its members listen, if they are to be asked through relays.
    fn members(&self) -> Vec<SocketAddr>;

    /// The address by which a discovery asks these members; backends listen at `port` where a registry knows
    /// no ports.
    ///
    /// # Errors
    /// If what it needs cannot be written.
    fn target(&self, members: &[SocketAddr], port: u16) -> Result<String, BoxError>;

    /// How a service enters itself; none where the rig does that for it.
    fn register(&self) -> Option<Register>;

    /// Enters these for their services.
    fn insert<'a>(&'a mut self, many: &'a [SocketAddr]) -> BoxFuture<'a, Result<(), BoxError>>;

    /// Removes one that the rig has entered.
    fn remove(&mut self, one: SocketAddr) -> BoxFuture<'_, Result<(), BoxError>>;

    /// Ends all of it, without a good-bye, and starts it again with its data.
    fn restart(&mut self) -> BoxFuture<'_, Result<(), BoxError>> {
        unable()
    }

    /// Stops all of it where it is.
    fn pause(&mut self) -> Result<(), BoxError> {
        Err("it cannot be stopped".into())
    }

    fn resume(&mut self) -> Result<(), BoxError> {
        Err("it cannot be stopped".into())
    }

    /// Kills the leader of several members.
    fn kill_leader(&mut self) -> BoxFuture<'_, Result<(), BoxError>> {
        unable()
    }

    /// Waits until it answers, and takes new entries.
    fn until_ready(&self) -> BoxFuture<'_, Result<(), BoxError>>;
}

fn unable<'a>() -> BoxFuture<'a, Result<(), BoxError>> {
    async { Err("that cannot be done to it".into()) }.boxed()
}

/// All registries, in the order of the tables.
pub(crate) fn all() -> Vec<std::sync::Arc<dyn Registry>> {
    use std::sync::Arc;
    vec![
        Arc::new(consul::Consul),
        Arc::new(etcd::Etcd { members: 1 }),
        Arc::new(etcd::Etcd { members: 3 }),
        Arc::new(kubernetes::Kubernetes),
        Arc::new(dns::Dns),
    ]
}
