//! One background task behind any number of watchers.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use evenkeel_core::discover::Watch;
use futures_util::{StreamExt, stream};
use tokio::{
    runtime::{Handle, Id, RuntimeFlavor},
    sync::{Notify, watch},
    task::JoinHandle,
};

use crate::journal::{Journal, follow};

/// The slot of a task that runs while there are watchers, and at most once.
///
/// The task starts when a watch is first polled, which needs a tokio runtime, and is aborted when
/// the last watch is dropped. A current-thread runtime runs its tasks only inside `block_on`. So a
/// task that was started on one serves only the watches there, and watches elsewhere start another
/// task.
#[derive(Default)]
pub(crate) struct Running {
    /// One task for all multi-thread runtimes, and one for each current-thread runtime.
    tasks: Mutex<Vec<Weak<Task>>>,
}

/// What a task reads and writes.
pub(crate) struct Work<T> {
    /// Where watchers read what the task writes.
    pub(crate) journal: watch::Receiver<Journal>,
    /// Where the task learns that fresh news is wanted.
    pub(crate) refresh: Arc<Notify>,
    /// What the task does.
    pub(crate) future: T,
}

struct Task {
    journal: watch::Receiver<Journal>,
    refresh: Arc<Notify>,
    handle: JoinHandle<()>,
    /// The current-thread runtime that it runs on.
    rests_with: Option<Id>,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

impl Running {
    /// A watch of what a task writes: of the task that runs already, or else of the one that
    /// `start` makes.
    pub(crate) fn watch<F, T>(self: &Arc<Self>, start: F) -> Watch
    where
        F: FnOnce() -> Work<T> + Send + 'static,
        T: Future<Output = ()> + Send + 'static,
    {
        let running = self.clone();
        let join = async move {
            let task = running.join(start);
            follow(task.journal.clone(), task)
        };
        Box::pin(stream::once(join).flatten())
    }

    fn join<F, T>(&self, start: F) -> Arc<Task>
    where
        F: FnOnce() -> Work<T>,
        T: Future<Output = ()> + Send + 'static,
    {
        let runtime = Handle::current();
        let rests_with =
            (runtime.runtime_flavor() == RuntimeFlavor::CurrentThread).then(|| runtime.id());
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        // A task can be held and yet be over, if its runtime was shut down.
        let mut alive: Vec<_> = tasks.iter().filter_map(Weak::upgrade).collect();
        alive.retain(|task| !task.handle.is_finished());
        let serves = |task: &&Arc<Task>| task.rests_with.is_none() || task.rests_with == rests_with;
        if let Some(task) = alive.iter().find(serves) {
            return task.clone();
        }
        let Work { journal, refresh, future } = start();
        let handle = runtime.spawn(future);
        let task = Arc::new(Task { journal, refresh, handle, rests_with });
        alive.push(task.clone());
        *tasks = alive.iter().map(Arc::downgrade).collect();
        task
    }

    /// Passes a request for fresh news to the tasks, if any run.
    pub(crate) fn refresh(&self) {
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.iter().filter_map(Weak::upgrade).for_each(|task| task.refresh.notify_one());
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").finish_non_exhaustive()
    }
}
