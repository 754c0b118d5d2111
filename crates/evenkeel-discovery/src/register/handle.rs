//! What changes a registration while it runs, and watches it.

use evenkeel_core::error::SharedError;
use tokio::sync::watch;

use super::Entry;

/// Where a registration stands.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Status {
    /// The service is not ready yet, or its first try is under way.
    Waiting,
    /// It is in the registry, as far as the last heartbeat knows.
    Entered,
    /// The last try failed, for this reason; it goes on.
    Failing(SharedError),
    /// It has left.
    Left,
}

/// Changes a registration while it runs, and watches it, whoever holds
/// [`Registered`](super::Registered).
///
/// After the service has left, changes have no effect. A handle keeps no service in its registry.
#[derive(Clone, Debug)]
pub struct RegisteredHandle {
    pub(super) wanted: watch::Sender<Entry>,
    pub(super) status: watch::Receiver<Status>,
}

impl RegisteredHandle {
    /// Where it stands.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Waits until the service is in the registry; for ever, if the registry is down for ever.
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

    /// Sets the service's share relative to the others, 0 to get nothing new.
    pub fn weight(&self, weight: u32) {
        self.change(|entry| entry.weight = weight);
    }

    /// Lets the service get nothing new, for this reason, or again something with none.
    pub fn maintenance(&self, reason: Option<String>) {
        self.change(|entry| entry.maintenance = reason);
    }
}
