//! A handle that changes and watches a running registration.

use evenkeel_core::error::SharedError;
use tokio::sync::watch;

use super::Entry;

/// The state of a registration.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Status {
    /// The service is not ready yet, or its first try is under way.
    Waiting,
    /// It is in the registry, according to the last heartbeat.
    Entered,
    /// The last try failed with this error; the next one follows.
    Failing(SharedError),
    /// It has left.
    Left,
}

/// Changes and watches a running registration.
///
/// It is for code that does not hold [`Registered`](super::Registered).
/// After the service has left, changes have no effect. A handle does not keep the service in its
/// registry.
#[derive(Clone, Debug)]
pub struct RegisteredHandle {
    pub(super) wanted: watch::Sender<Entry>,
    pub(super) status: watch::Receiver<Status>,
}

impl RegisteredHandle {
    /// The current state.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Waits until the service is in the registry; for ever, if the registry never comes back.
    pub async fn entered(&self) {
        let mut status = self.status.clone();
        // An error means that the task is gone, with its runtime.
        let _ = status.wait_for(|status| matches!(status, Status::Entered)).await;
    }

    /// Waits until the last try has failed.
    pub async fn failing(&self) {
        let mut status = self.status.clone();
        let _ = status.wait_for(|status| matches!(status, Status::Failing(_))).await;
    }

    /// Changes the entry while the service runs. The id, the service and the address stay.
    pub fn change(&self, change: impl FnOnce(&mut Entry)) {
        self.wanted.send_if_modified(|entry| {
            let mut changed = entry.clone();
            change(&mut changed);
            changed.id.clone_from(&entry.id);
            changed.service.clone_from(&entry.service);
            changed.address.clone_from(&entry.address);
            let is_new = changed != *entry;
            *entry = changed;
            is_new
        });
    }

    /// Sets the service's share relative to the others; with 0 it gets no new requests.
    pub fn weight(&self, weight: u32) {
        self.change(|entry| entry.weight = weight);
    }

    /// With a reason, the service gets no new requests; with none, it gets them again.
    pub fn maintenance(&self, reason: Option<String>) {
        self.change(|entry| entry.maintenance = reason);
    }
}
