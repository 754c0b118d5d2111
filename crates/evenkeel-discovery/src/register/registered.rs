//! The configuration of a registration, and a running one.

use std::{fmt, future::Future, pin::Pin, time::Duration};

use evenkeel_core::{BoxError, deregister::Deregister, rng::Rng};
use tokio::sync::{oneshot, watch};

use super::{Entry, RegisteredHandle, Registry, Status, keeper::Keeper};

/// How a service enters itself. See the [module docs](super).
pub struct Registration<R> {
    pub(super) registry: R,
    pub(super) entry: Entry,
    pub(super) ttl: Duration,
    pub(super) timeout: Duration,
    pub(super) propagation: Duration,
    pub(super) rng: Rng,
    ready: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl<R: Registry> Registration<R> {
    /// Enters `entry` in `registry`, once it is started.
    ///
    /// # Panics
    /// If the entry could never be called, found or removed, such as one with port 0. For an entry
    /// from a configuration, call [`Registry::validate`] first, which returns an error.
    #[must_use]
    pub fn new(registry: R, entry: Entry) -> Self {
        if let Err(invalid) = registry.validate(&entry) {
            panic!("{invalid}");
        }
        Self {
            registry,
            entry,
            ttl: Duration::from_secs(10),
            timeout: Duration::from_secs(3),
            propagation: Duration::from_secs(2),
            rng: Rng::from_entropy(),
            ready: None,
        }
    }

    /// Sets how long the entry lives without a heartbeat. Default: 10 s.
    ///
    /// A short one burdens the registry and loses the entry in its short outages; a long one keeps
    /// the entry of a process that died for longer. etcd's minimum is 2 s.
    ///
    /// # Panics
    /// If it is below 1 s.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        assert!(Duration::from_secs(1) <= ttl, "a time to live of {ttl:?}");
        self.ttl = ttl;
        self
    }

    /// Sets how long the registry may take for one answer, and for all tries to leave. Default: 3
    /// s.
    ///
    /// It bounds how long a registry that is down keeps the service from stopping. With a short
    /// one, the entry of a service that stopped stays in use if the registry was away for a moment.
    ///
    /// # Panics
    /// If it is zero.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        assert!(Duration::ZERO < timeout, "no answer comes in no time");
        self.timeout = timeout;
        self
    }

    /// Sets how long callers take to see that the service has left. Default: 2 s.
    ///
    /// That is enough for callers that get changes pushed; callers that read DNS take its TTL. If
    /// it is too short, callers connect to a port that is closed; if too long, every stop takes
    /// that long.
    #[must_use]
    pub fn propagation(mut self, time: Duration) -> Self {
        self.propagation = time;
        self
    }

    /// Enters only when `ready` has completed. Default: at once.
    #[must_use]
    pub fn ready_when(mut self, ready: impl Future<Output = ()> + Send + 'static) -> Self {
        self.ready = Some(Box::pin(ready));
        self
    }

    /// Sets the seed of the jitter. Default: the process's entropy.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.rng = Rng::with_seed(seed);
        self
    }

    /// Enters the service in the background, and keeps it there as long as the handle is held.
    ///
    /// # Panics
    /// If it is called outside a tokio runtime.
    pub fn start(mut self) -> Registered {
        let propagation = self.propagation;
        let (wanted, wishes) = watch::channel(self.entry.clone());
        let (teller, status) = watch::channel(Status::Waiting);
        let (leave, leaving) = oneshot::channel();
        let ready = self.ready.take().unwrap_or_else(|| Box::pin(std::future::ready(())));
        let keeper = Keeper::new(self, wishes, teller);
        let task = tokio::spawn(keeper.run(ready, leaving));
        Registered { handle: RegisteredHandle { wanted, status }, leave, task, propagation }
    }
}

impl<R: fmt::Debug> fmt::Debug for Registration<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration")
            .field("registry", &self.registry)
            .field("entry", &self.entry)
            .field("ttl", &self.ttl)
            .finish_non_exhaustive()
    }
}

/// A service that has entered itself, or tries to.
///
/// If it is dropped without leaving, the entry is removed in the background.
#[derive(Debug)]
pub struct Registered {
    handle: RegisteredHandle,
    leave: oneshot::Sender<Leave>,
    task: tokio::task::JoinHandle<Result<(), BoxError>>,
    propagation: Duration,
}

/// How a service leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leave {
    /// It deregisters, and waits until its callers can have seen it.
    AndWait,
    /// It deregisters.
    AtOnce,
}

impl Registered {
    /// A handle that changes and watches the registration while a server holds this.
    #[must_use]
    pub fn handle(&self) -> RegisteredHandle {
        self.handle.clone()
    }

    /// See [`RegisteredHandle::status`].
    #[must_use]
    pub fn status(&self) -> Status {
        self.handle.status()
    }

    /// See [`RegisteredHandle::entered`].
    pub async fn entered(&self) {
        self.handle.entered().await;
    }

    /// See [`RegisteredHandle::failing`].
    pub async fn failing(&self) {
        self.handle.failing().await;
    }

    /// See [`RegisteredHandle::change`].
    pub fn change(&self, change: impl FnOnce(&mut Entry)) {
        self.handle.change(change);
    }

    /// See [`RegisteredHandle::weight`].
    pub fn weight(&self, weight: u32) {
        self.handle.weight(weight);
    }

    /// See [`RegisteredHandle::maintenance`].
    pub fn maintenance(&self, reason: Option<String>) {
        self.handle.maintenance(reason);
    }

    /// Leaves: deregisters, and waits until callers can have seen it. The server serves on
    /// meanwhile.
    ///
    /// It takes at most twice the timeout, for the try under way and for this one, and the
    /// propagation.
    pub async fn leave(self) {
        // A failure is in the log, and the entry expires by its TTL.
        let _ = self.end(Leave::AndWait).await;
    }

    async fn end(self, how: Leave) -> Result<(), BoxError> {
        let Self { handle, leave, task, .. } = self;
        let _ = leave.send(how);
        // The task fails if the runtime is being shut down, or the registry's code panicked.
        let left = task.await.unwrap_or_else(|error| Err(error.into()));
        drop(handle);
        left
    }

    /// Deregisters without waiting for callers. Use it where something else waits, such as
    /// evenkeel-http's `Drain`, which takes this as it is (`Drain::registered`).
    ///
    /// # Errors
    /// If the registry did not remove the entry in time. It then expires by its TTL.
    pub async fn deregister(self) -> Result<(), BoxError> {
        self.end(Leave::AtOnce).await
    }

    /// Waits for `signal`, then leaves: the future for a server's graceful shutdown.
    pub async fn leave_on(self, signal: impl Future<Output = ()>) {
        signal.await;
        self.leave().await;
    }
}

impl Deregister for Registered {
    fn deregister(self: Box<Self>) -> Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>> {
        Box::pin((*self).end(Leave::AtOnce))
    }

    fn propagation(&self) -> Duration {
        self.propagation
    }
}
