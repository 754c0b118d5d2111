//! One background task behind any number of watchers.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use evenkeel_core::discover::Watch;
use futures_util::{StreamExt, stream};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
};

use crate::journal::{Journal, follow};

/// The place of a task that runs while somebody watches, and at most once.
///
/// It starts when a watch is first polled, which needs a tokio runtime, and is aborted when the last
/// watch is dropped.
#[derive(Default)]
pub(crate) struct Running {
    task: Mutex<Weak<Task>>,
}

/// What a task reads and writes.
pub(crate) struct Work<T> {
    /// Where watchers read what the task writes.
    pub(crate) journal: watch::Receiver<Journal>,
    /// How the task is asked for fresh news.
    pub(crate) refresh: Arc<Notify>,
    /// What the task does.
    pub(crate) future: T,
}

struct Task {
    journal: watch::Receiver<Journal>,
    refresh: Arc<Notify>,
    handle: JoinHandle<()>,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

impl Running {
    /// A watch of what a task writes: the one that runs already, or else that of `start`.
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
        let mut place = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        // A task can be held and yet be over: its runtime may have been shut down under it.
        if let Some(task) = place.upgrade()
            && !task.handle.is_finished()
        {
            return task;
        }
        let Work { journal, refresh, future } = start();
        let task = Arc::new(Task { journal, refresh, handle: tokio::spawn(future) });
        *place = Arc::downgrade(&task);
        task
    }

    /// Tells the task, if one runs, that fresh news is wanted.
    pub(crate) fn refresh(&self) {
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
        if let Some(task) = task {
            task.refresh.notify_one();
        }
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").finish_non_exhaustive()
    }
}
