//! A running registration.

use std::{future::Future, pin::Pin, time::Duration};

use evenkeel_core::{BoxError, deregister::Deregister};
use tokio::sync::{oneshot, watch};

use super::{
    Entry, Registry,
    handle::{RegisteredHandle, Status},
    keeper::{Keeper, Leave},
    registration::Registration,
};

impl<R: Registry> Registration<R> {
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
