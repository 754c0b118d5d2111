//! A service enters itself in a registry, keeps itself there, and leaves in the right order.
//!
//! **When to use it.** Where no orchestrator and no sidecar enters the service.
//!
//! **When not.** Where the platform does it, as Kubernetes with its readiness probes: two programs
//! that write one entry undo each other's work.
//!
//! ```
//! # use evenkeel::core::BoxError;
//! # use evenkeel::discovery::register::{Entry, Kept, Registration, Registry};
//! # use std::{convert::Infallible, time::Duration};
//! # #[derive(Clone)]
//! # struct ConsulRegistry;
//! # struct Agents;
//! # impl Agents { fn local() -> Self { Self } }
//! # impl ConsulRegistry { fn new(_: Agents) -> Self { Self } }
//! # impl Registry for ConsulRegistry {
//! #     fn origin(&self) -> String { "nowhere".into() }
//! #     async fn enter(&mut self, _: &Entry, _: Duration) -> Result<(), BoxError> { Ok(()) }
//! #     async fn keep(&mut self, _: &Entry, _: Duration) -> Result<Kept, BoxError> { Ok(Kept::Alive) }
//! #     async fn leave(&mut self, _: &Entry) -> Result<(), BoxError> { Ok(()) }
//! # }
//! # async fn shutdown_signal() {}
//! # async fn serve(shutdown: impl Future<Output = ()>) { shutdown.await }
//! # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
//! // Two lines around a server that listens already: axum's `with_graceful_shutdown`, tonic's
//! // `serve_with_shutdown`.
//! let entry = Entry::new("web", "10.0.0.1:8080".parse()?).zone("eu-1a").version("2.4.1");
//! let registered = Registration::new(ConsulRegistry::new(Agents::local()), entry).start();
//!
//! serve(registered.leave_on(shutdown_signal())).await;
//! # Ok::<(), BoxError>(())
//! # }).unwrap();
//! ```
//!
//! # The order
//! 1. **Enter**: as soon as [`ready_when`](Registration::ready_when) says so, and not before. A
//!    server should listen by then.
//! 2. **Keep**: a heartbeat at each third of the [`ttl`](Registration::ttl), with jitter. If the
//!    registry has lost the entry, because it restarted without data, because its lease is gone or
//!    because it was deleted by hand, the service enters again at once.
//! 3. **Change**: [`RegisteredHandle::change`] sets weight, tags and metadata while the service
//!    runs. [`RegisteredHandle::maintenance`] keeps new requests away for a while.
//! 4. **Leave**: [`Registered::leave`] deregisters, and then waits until callers can have seen it
//!    ([`propagation`](Registration::propagation)), while the server serves on. Only then should it
//!    stop accepting and drain. Give [`Registered::leave_on`] to a server's graceful shutdown.
//!    evenkeel-http's `Drain::registered` takes [`Registered`] as it is and does the rest.
//!
//! # Bad days
//! - **The process dies.** The entry is gone, or critical, when its TTL is over. The TTL is 10 s
//!   unless set, so with heartbeats at a third of it that is between 6.7 s and 10 s after the
//!   death. Callers should not wait for that: connecting fails at once.
//! - **The registry is down at the start.** The service serves, and enters when the registry is
//!   back: tries follow each other after 0.2 s to a third of the TTL.
//! - **The registry is down at the end.** Leaving is tried again, and at the next member or agent,
//!   until [`timeout`](Registration::timeout) (3 s) is over. It still waits for callers, and the
//!   entry expires by its TTL.
//! - **Two instances under one id.** The one that entered last counts. The other notices at its
//!   next heartbeat and reports it in [`Registered::status`] and in the log. It does not overwrite
//!   the entry, and enters when the other has left or the other's TTL is over. It does not remove
//!   the other's entry when it leaves.
//! - **The entry is edited by hand**, so that it has no owner any more: the service enters again at
//!   its next heartbeat.
//! - **The clock steps.** Nothing happens: the time of day is not read.
//! - **The handle is dropped** without leaving: the entry is removed in the background, if the
//!   runtime lives that long, and nothing waits for it.
//!
//! A failure is logged when it begins and when it ends, and is in [`Registered::status`].

mod error;
mod handle;
mod keeper;
mod registered;
mod registration;

#[cfg(feature = "consul")]
pub mod consul;
#[cfg(feature = "etcd")]
pub mod etcd;

use std::time::Duration;

use evenkeel_core::BoxError;

pub use self::{
    error::{EntryLost, NotInTime, Taken},
    handle::{RegisteredHandle, Status},
    registered::Registered,
    registration::Registration,
};
pub use crate::entry::{Check, Entry, InvalidEntry, Probe};

#[cfg(feature = "consul")]
pub use self::consul::ConsulRegistry;
#[cfg(feature = "etcd")]
pub use self::etcd::EtcdRegistry;

/// A registry in which services enter themselves.
///
/// Each method is one attempt; [`Registration`] bounds its time and tries again.
pub trait Registry: Send + 'static {
    /// The name of the registry in errors and logs, such as `consul agent http://127.0.0.1:8500`.
    fn origin(&self) -> String;

    /// Whether it can hold the entry. Called when a [`Registration`] is made. Default:
    /// [`Entry::validate`].
    ///
    /// # Errors
    /// If the entry could be entered and then never be called, found or removed.
    fn validate(&self, entry: &Entry) -> Result<(), InvalidEntry> {
        entry.validate()
    }

    /// Writes the entry, or its changes. Entering the same entry again changes nothing.
    ///
    /// Without a heartbeat for `ttl`, the entry has to expire.
    fn enter(
        &mut self,
        entry: &Entry,
        ttl: Duration,
    ) -> impl Future<Output = Result<(), BoxError>> + Send;

    /// Sends one heartbeat.
    fn keep(
        &mut self,
        entry: &Entry,
        ttl: Duration,
    ) -> impl Future<Output = Result<Kept, BoxError>> + Send;

    /// Removes the entry, if it still belongs to this instance. It is no error if it is already
    /// gone.
    fn leave(&mut self, entry: &Entry) -> impl Future<Output = Result<(), BoxError>> + Send;
}

/// The state of an entry since the last heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kept {
    /// It is there, for another TTL.
    Alive,
    /// It is gone, has no owner any more, or its owner has died: it has to be entered again.
    Lost,
    /// Another instance has entered later under the same id.
    Taken,
}
