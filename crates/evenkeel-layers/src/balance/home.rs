//! Where the background task runs, and what happens if that runtime is not driven.
//!
//! A current-thread runtime runs its tasks only while a thread blocks on it. If a balancer was
//! first polled on such a runtime and it rests now, discovery is no longer followed. So callers on
//! another runtime ask the task for a sign of life, and restart it on their own runtime if none
//! comes.

use std::{convert::Infallible, future};

use tokio::{runtime::Handle, time::sleep};

use super::{running::PATIENCE, shared::Shared};

impl<S> Shared<S> {
    /// Starts the background task again on the caller's runtime, if its own is not driven.
    ///
    /// Returns whether the task runs elsewhere and may not be driven, so that it is worth checking
    /// again.
    #[cold]
    pub(super) fn look_after_task(&self) -> bool {
        let (Ok(runtime), Some(owner)) = (Handle::try_current(), self.owner()) else {
            return false;
        };
        let Some(number) = owner.elsewhere(&runtime) else { return false };
        let is_silent = self.signals.pulse.is_silent(|| self.signals.attention.notify_one());
        if is_silent {
            tracing::warn!(
                target: "evenkeel::balance",
                client = self.client.name(),
                "the runtime of the background task is not driven: it begins again on another"
            );
            self.signals.pulse.forget();
            owner.take_over(number, &runtime);
        }
        !is_silent
    }

    /// Does the same for a waiting request, for as long as it waits.
    pub(super) async fn keep_task_driven(&self) -> Infallible {
        while self.look_after_task() {
            sleep(PATIENCE).await;
        }
        future::pending().await
    }
}
