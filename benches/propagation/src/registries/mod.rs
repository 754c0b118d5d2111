//! The registries. Each is one file; their common parts are here.

mod consul;
mod dns;
mod etcd;
mod kubernetes;

use std::{fmt, net::SocketAddr, path::Path, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};

use crate::{BoxError, backend::Register, event::Event};

/// The service that all registries have.
pub(crate) const SERVICE: &str = "web";

/// A kind of registry, and its servers.
pub(crate) trait Registry: fmt::Debug + Send + Sync {
    fn name(&self) -> &'static str;

    /// A description in one line.
    fn about(&self) -> &'static str;

    /// What is missing to run it, and how to install it.
    fn missing(&self) -> Option<String>;

    /// Whether this event is possible with it.
    fn supports(&self, event: Event) -> bool;

    /// The longest delay until a change is in every balancer, if the registry announces changes.
    fn max_delay(&self) -> Duration {
        Duration::from_millis(100)
    }

    /// How long callers take to see that an endpoint has left. A leaving backend serves on for this
    /// time.
    fn propagation(&self) -> Duration {
        Duration::from_secs(2)
    }

    fn start<'a>(&'a self, folder: &'a Path) -> BoxFuture<'a, Result<Box<dyn Running>, BoxError>>;
}

/// A registry in a running trial.
pub(crate) trait Running: Send + Sync {
    /// The addresses of its members, if callers reach them through relays.
    fn members(&self) -> Vec<SocketAddr>;

    /// The address with which a discovery asks these members. If the registry does not store ports,
    /// backends listen at `port`.
    ///
    /// # Errors
    /// If a file that it needs cannot be written.
    fn target(&self, members: &[SocketAddr], port: u16) -> Result<String, BoxError>;

    /// How a service registers itself. None if the rig does that.
    fn register(&self) -> Option<Register>;

    /// Registers these endpoints for their services.
    fn insert<'a>(&'a mut self, many: &'a [SocketAddr]) -> BoxFuture<'a, Result<(), BoxError>>;

    /// Removes an endpoint that the rig registered.
    fn remove(&mut self, one: SocketAddr) -> BoxFuture<'_, Result<(), BoxError>>;

    /// Kills all its servers, and starts them again with their data.
    fn restart(&mut self) -> BoxFuture<'_, Result<(), BoxError>> {
        fail_unsupported()
    }

    /// Stops all its servers (SIGSTOP).
    fn pause(&mut self) -> Result<(), BoxError> {
        Err("it cannot be stopped".into())
    }

    fn resume(&mut self) -> Result<(), BoxError> {
        Err("it cannot be stopped".into())
    }

    /// Kills the leader of several members.
    fn kill_leader(&mut self) -> BoxFuture<'_, Result<(), BoxError>> {
        fail_unsupported()
    }

    /// Waits until it answers and accepts new entries.
    fn until_ready(&self) -> BoxFuture<'_, Result<(), BoxError>>;
}

fn fail_unsupported<'a>() -> BoxFuture<'a, Result<(), BoxError>> {
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
