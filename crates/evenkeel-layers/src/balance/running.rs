//! The background task that manages the nodes, and its signs of life.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use evenkeel_core::time::Timestamp;
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::clock;

/// How long the task has to give a sign of life.
pub(super) const PATIENCE: Duration = Duration::from_millis(200);

/// The shortest time between two questions, once it has given one.
const INTERVAL: Duration = Duration::from_secs(1);

/// What the clones of a balancer own together, without its types.
pub(super) trait Own: Send + Sync {
    /// The number of the background task, if it runs on a current-thread runtime other than this one.
    fn elsewhere(&self, runtime: &Handle) -> Option<u64>;

    /// Starts the task again on `runtime`, unless the task of this number has been replaced
    /// already.
    fn take_over(&self, number: u64, runtime: &Handle);
}

/// Marks that a pool manages the nodes. The number is unique to that pool. Its lowest bit says that
/// the pool runs on a current-thread runtime, which may rest.
pub(super) struct Running {
    current: Arc<AtomicU64>,
    number: u64,
}

impl Running {
    /// No pool manages the nodes.
    pub(super) const NONE: u64 = 0;

    const MAY_REST: u64 = 1;

    /// Makes the pool that is about to start on `runtime` the current one. The caller holds a lock.
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
        // If another pool has started meanwhile, that one goes on.
        let _ = self.current.compare_exchange(number, Self::NONE, ordering, Ordering::Relaxed);
    }
}

/// Signs of life of the background task.
#[derive(Default)]
pub(super) struct Pulse {
    beats: AtomicU64,
    /// The last question: how many signs there had been by then, and when it was asked.
    asked: Mutex<Option<(u64, Timestamp)>>,
}

impl Pulse {
    /// Reports that the task is alive.
    pub(super) fn beat(&self) {
        self.beats.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether the task has been silent for too long since it was asked. Asks it if it was not
    /// asked yet.
    pub(super) fn is_silent(&self, ask: impl FnOnce()) -> bool {
        // If another caller holds the lock, that caller asks.
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

    pub(super) fn forget(&self) {
        *self.asked.lock().expect("no panic under the lock") = None;
    }
}
