//! Where the background task runs, and what is done if that runtime is not driven.
//!
//! A current-thread runtime runs its tasks only while somebody blocks on it. A balancer that was first polled on
//! one that rests now would follow its discovery no more. So callers on another runtime ask the task for a sign
//! of life, and have it begin again on theirs if none comes.

use std::{
    convert::Infallible,
    future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use evenkeel_core::time::Timestamp;
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    time::sleep,
};

use super::shared::Shared;
use crate::clock;

/// How long the task may take to give a sign of life.
const PATIENCE: Duration = Duration::from_millis(200);

/// How often it is asked for one at most, once it has given one.
const INTERVAL: Duration = Duration::from_secs(1);

/// What the clones of a balancer own together, without its types.
pub(super) trait Own: Send + Sync {
    /// The number of the background task, if it runs on a current-thread runtime other than this one.
    fn elsewhere(&self, runtime: &Handle) -> Option<u64>;

    /// Begins the task again on `runtime`, unless the one of this number has been replaced already.
    fn take_over(&self, number: u64, runtime: &Handle);
}

/// That a pool sees to the nodes: a number that another pool has not. Its lowest bit says that it runs on a
/// current-thread runtime, which may rest.
pub(super) struct Running {
    current: Arc<AtomicU64>,
    number: u64,
}

impl Running {
    /// No pool sees to the nodes.
    pub(super) const NONE: u64 = 0;

    const MAY_REST: u64 = 1;

    /// Makes the pool that is about to start on `runtime` the current one. Under a lock of the caller's.
    pub(super) fn next(current: &Arc<AtomicU64>, runtime: &Handle) -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let may_rest = runtime.runtime_flavor() == RuntimeFlavor::CurrentThread;
        let number = (LAST.fetch_add(2, Ordering::Relaxed) + 2) | u64::from(may_rest);
        current.store(number, Ordering::Release);
        Self { current: current.clone(), number }
    }

    /// Whether the pool of this number runs on a current-thread runtime.
    #[inline]
    pub(super) const fn may_rest(number: u64) -> bool {
        number & Self::MAY_REST != 0
    }

    pub(super) fn is_current(&self) -> bool {
        self.current.load(Ordering::Acquire) == self.number
    }

    pub(super) fn end(&self) {
        let (number, ordering) = (self.number, Ordering::AcqRel);
        // Where another has begun meanwhile, that one goes on.
        let _ = self.current.compare_exchange(number, Self::NONE, ordering, Ordering::Relaxed);
    }
}

/// Signs of life of the background task.
#[derive(Default)]
pub(super) struct Pulse {
    beats: AtomicU64,
    /// The last question: how many signs there had been, and when it was asked.
    asked: Mutex<Option<(u64, Timestamp)>>,
}

impl Pulse {
    /// The task is alive.
    pub(super) fn beat(&self) {
        self.beats.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether the task has been silent for too long since it was asked; has it asked where it was not.
    fn is_silent(&self, ask: impl FnOnce()) -> bool {
        // Whoever finds it taken leaves the question to the other.
        let Ok(mut asked) = self.asked.try_lock() else { return false };
        let (beats, now) = (self.beats.load(Ordering::Acquire), clock::now());
        match *asked {
            Some((before, since)) if before == beats => return PATIENCE <= now.since(since),
            Some((_, since)) if now.since(since) < INTERVAL => {}
            _ => {
                *asked = Some((beats, now));
                ask();
            }
        }
        false
    }

    fn forget(&self) {
        *self.asked.lock().expect("no panic under the lock") = None;
    }
}

impl<S> Shared<S> {
    /// Has the background task begin again on the caller's runtime, if its own is not driven.
    ///
    /// Says whether it runs elsewhere and may not be driven, so that it is worth looking again.
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

    /// The same for a request that waits, for as long as it does.
    pub(super) async fn keep_task_driven(&self) -> Infallible {
        while self.look_after_task() {
            sleep(PATIENCE).await;
        }
        future::pending().await
    }
}
