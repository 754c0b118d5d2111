//! What is bound to the runtime that it was made on, such as connections.

use std::sync::{Mutex, OnceLock};

use tokio::runtime::{Handle, Id, RuntimeFlavor};

/// How many current-thread runtimes have something of their own at the same time.
pub(crate) const RUNTIMES_MAX: usize = 64;

/// The caller's runtime, if it runs its tasks only while somebody blocks on it.
///
/// A connection is driven by a task. On a current-thread runtime that rests it stands still, and whoever else
/// uses it would wait for good.
pub(crate) fn resting_runtime() -> Option<Id> {
    let runtime = Handle::try_current().ok()?;
    (runtime.runtime_flavor() == RuntimeFlavor::CurrentThread).then(|| runtime.id())
}

/// One value for all runtimes with threads of their own, and one for each current-thread runtime.
///
/// Of the latter the one that was made first goes when there are more than [`RUNTIMES_MAX`].
pub(crate) struct PerRuntime<T> {
    shared: OnceLock<T>,
    own: Mutex<Vec<(Id, T)>>,
}

impl<T> PerRuntime<T> {
    pub(crate) const fn new() -> Self {
        Self { shared: OnceLock::new(), own: Mutex::new(Vec::new()) }
    }

    /// Calls `with` on the value for the caller's runtime, which `make` makes if there is none.
    pub(crate) fn with<R>(&self, make: impl FnOnce() -> T, with: impl FnOnce(&T) -> R) -> R {
        let Some(runtime) = resting_runtime() else {
            return with(self.shared.get_or_init(make));
        };
        let mut own = self.own.lock().expect("no panic under the lock");
        if let Some((_, value)) = own.iter().find(|(id, _)| *id == runtime) {
            return with(value);
        }
        if own.len() == RUNTIMES_MAX {
            own.remove(0);
        }
        own.push((runtime, make()));
        with(&own.last().expect("pushed above").1)
    }
}

#[cfg(test)]
mod tests {
    use tokio::runtime::{Builder, Runtime};

    use super::*;

    fn current_thread() -> Runtime {
        Builder::new_current_thread().build().unwrap()
    }

    #[test]
    fn a_current_thread_runtime_has_its_own_and_all_others_share_one() {
        let values = PerRuntime::new();
        let value = |runtime: &Runtime, new: u32| {
            let _entered = runtime.enter();
            values.with(|| new, |value| *value)
        };
        let (first, second) = (current_thread(), current_thread());
        let threaded = || Builder::new_multi_thread().worker_threads(1).build().unwrap();

        assert_eq!((value(&first, 1), value(&second, 2)), (1, 2));
        assert_eq!((value(&threaded(), 3), value(&threaded(), 4)), (3, 3));
        assert_eq!((value(&first, 5), value(&second, 6)), (1, 2));
        for new in 0..RUNTIMES_MAX {
            value(&current_thread(), new as u32);
        }
        assert_eq!(value(&first, 7), 7, "the oldest went");
        assert_eq!(values.own.lock().unwrap().len(), RUNTIMES_MAX);
    }
}
