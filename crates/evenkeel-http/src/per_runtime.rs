//! Values that are bound to the runtime that they were made on, such as connections.

use std::sync::{Mutex, OnceLock};

use tokio::{
    runtime::{Handle, Id, RuntimeFlavor},
    sync::oneshot,
};

/// How many current-thread runtimes have their own value at the same time: more than there are cores, since
/// a server may have one on each core.
pub(crate) const MAX_RUNTIMES: usize = 256;

/// The caller's runtime, if it runs its tasks only while a thread blocks on it.
///
/// A task drives each connection. If its current-thread runtime rests, the connection makes no progress, and
/// callers on other runtimes would wait forever.
pub(crate) fn resting_runtime() -> Option<Id> {
    let runtime = Handle::try_current().ok()?;
    (runtime.runtime_flavor() == RuntimeFlavor::CurrentThread).then(|| runtime.id())
}

/// One value for all multi-threaded runtimes, and one for each current-thread runtime.
///
/// If there are more of the latter than [`MAX_RUNTIMES`], those of ended runtimes are dropped, else the one
/// that was used least recently.
pub(crate) struct PerRuntime<T> {
    shared: OnceLock<T>,
    own: Mutex<Owned<T>>,
}

struct Owned<T> {
    values: Vec<Own<T>>,
    /// How often any of the values was used.
    uses: u64,
}

/// The value of one runtime.
struct Own<T> {
    runtime: Id,
    value: T,
    /// The number of its last use, among all uses.
    used: u64,
    /// Its receiver waits in a task of the runtime, and is dropped with that.
    life: oneshot::Sender<()>,
}

impl<T> PerRuntime<T> {
    pub(crate) const fn new() -> Self {
        Self { shared: OnceLock::new(), own: Mutex::new(Owned { values: Vec::new(), uses: 0 }) }
    }

    /// Calls `with` on the value for the caller's runtime. If there is none, `make` makes it.
    pub(crate) fn with<R>(&self, make: impl FnOnce() -> T, with: impl FnOnce(&T) -> R) -> R {
        let Some(runtime) = resting_runtime() else {
            return with(self.shared.get_or_init(make));
        };
        let mut own = self.own.lock().expect("no panic under the lock");
        let Owned { values, uses } = &mut *own;
        *uses += 1;
        if let Some(own) = values.iter_mut().find(|own| own.runtime == runtime) {
            own.used = *uses;
            return with(&own.value);
        }
        if values.len() == MAX_RUNTIMES {
            values.retain(|own| !own.life.is_closed());
        }
        if values.len() == MAX_RUNTIMES {
            let oldest = (0..values.len()).min_by_key(|&at| values[at].used);
            values.swap_remove(oldest.expect("there are as many as may be"));
        }
        let (life, ended) = oneshot::channel::<()>();
        tokio::spawn(ended);
        values.push(Own { runtime, value: make(), used: *uses, life });
        with(&values.last().expect("pushed above").value)
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
        for new in 0..2 * MAX_RUNTIMES {
            value(&current_thread(), new as u32);
        }
        assert_eq!((value(&first, 7), value(&second, 8)), (1, 2), "those that ended went first");
        assert!(values.own.lock().unwrap().values.len() <= MAX_RUNTIMES);
    }

    #[test]
    fn the_least_recently_used_of_too_many_runtimes_is_dropped() {
        let values = PerRuntime::new();
        let value = |runtime: &Runtime, new: usize| {
            let _entered = runtime.enter();
            values.with(|| new, |value| *value)
        };
        let runtimes: Vec<_> = (0..=MAX_RUNTIMES).map(|_| current_thread()).collect();
        for (new, runtime) in runtimes.iter().take(MAX_RUNTIMES).enumerate() {
            assert_eq!(value(runtime, new), new);
        }
        assert_eq!(value(&runtimes[0], usize::MAX), 0);

        assert_eq!(value(&runtimes[MAX_RUNTIMES], 7), 7);

        assert_eq!(value(&runtimes[0], usize::MAX), 0, "it had come again");
        assert_eq!(value(&runtimes[1], 8), 8);
        assert_eq!(values.own.lock().unwrap().values.len(), MAX_RUNTIMES);
    }
}
