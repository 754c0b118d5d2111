//! A background task, and which callers can rely on it.

use std::future::Future;

use tokio::{
    runtime::{Handle, Id, RuntimeFlavor},
    task::AbortHandle,
};

/// A background task that serves callers on any runtime.
///
/// A current-thread runtime runs its tasks only while a thread blocks on it. For callers on another
/// runtime, a task there may stand still for good.
#[derive(Debug)]
pub(crate) struct Task {
    handle: AbortHandle,
    /// The current-thread runtime it runs on. `None` if its runtime has threads of its own.
    rests_with: Option<Id>,
}

impl Task {
    pub(crate) fn spawn<F>(runtime: &Handle, future: F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let rests_with =
            (runtime.runtime_flavor() == RuntimeFlavor::CurrentThread).then(|| runtime.id());
        Self { handle: runtime.spawn(future).abort_handle(), rests_with }
    }

    /// Whether it runs whenever a caller on `runtime` does.
    pub(crate) fn is_driven_with(&self, runtime: &Handle) -> bool {
        self.rests_with.is_none_or(|id| id == runtime.id())
    }

    /// Whether it has ended, or panicked.
    pub(crate) fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }

    /// Whether it runs on, as far as a caller on `runtime` can rely on it.
    fn serves(&self, runtime: &Handle) -> bool {
        !self.handle.is_finished() && self.is_driven_with(runtime)
    }

    pub(crate) fn abort(&self) {
        self.handle.abort();
    }
}

/// Ensures that the task in `place` serves callers on `runtime`. If it does not, it is replaced.
pub(crate) fn start<F>(place: &mut Option<Task>, runtime: &Handle, make: impl FnOnce() -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    if place.as_ref().is_some_and(|task| task.serves(runtime)) {
        return;
    }
    if let Some(before) = place.take() {
        // If its runtime rests now, it would go on one day.
        before.abort();
    }
    *place = Some(Task::spawn(runtime, make()));
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::runtime::{Builder, Runtime};

    use super::*;

    fn started(place: &mut Option<Task>, runtime: &Runtime) -> tokio::task::Id {
        start(place, runtime.handle(), pending::<()>);
        place.as_ref().expect("it was started").handle.id()
    }

    #[test]
    fn a_task_is_replaced_for_callers_elsewhere_only_if_its_runtime_may_rest() {
        let current_thread = || Builder::new_current_thread().build().unwrap();
        let (first, second) = (current_thread(), current_thread());
        let threaded = Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let mut place = None;

        let task = started(&mut place, &first);
        assert_eq!(started(&mut place, &first), task);
        let moved = started(&mut place, &second);
        assert_ne!(moved, task);
        let settled = started(&mut place, &threaded);
        assert_ne!(settled, moved);
        assert_eq!(started(&mut place, &first), settled);
        drop(threaded);
        assert_ne!(started(&mut place, &first), settled);
    }
}
