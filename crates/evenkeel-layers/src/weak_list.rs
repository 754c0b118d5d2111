//! A list that keeps nothing alive.

use std::sync::{Arc, Mutex, MutexGuard, Weak};

/// The list has room for at least this many before dead entries are removed.
const MIN_ROOM: usize = 16;

/// A list of what is in use. Dead entries are removed before it grows, so it stays little longer
/// than the living need.
pub(crate) struct WeakList<T>(Mutex<Vec<Weak<T>>>);

impl<T> WeakList<T> {
    /// What is in use now, the oldest first.
    pub(crate) fn living(&self) -> Vec<Arc<T>> {
        self.lock().iter().filter_map(Weak::upgrade).collect()
    }

    pub(crate) fn add(&self, item: &Arc<T>) {
        let mut known = self.lock();
        if known.len() == known.capacity() {
            known.retain(|known| 0 < known.strong_count());
            let room = known.len().max(MIN_ROOM);
            known.reserve(room);
        }
        known.push(Arc::downgrade(item));
    }

    /// Removes what will not be used after all.
    pub(crate) fn remove(&self, item: &Arc<T>) {
        self.lock().retain(|known| !std::ptr::eq(known.as_ptr(), Arc::as_ptr(item)));
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<T>>> {
        self.0.lock().expect("no panic under the lock")
    }
}

impl<T> Default for WeakList<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_grows_with_the_living_alone() {
        let list = WeakList::default();
        let first = Arc::new(0);
        list.add(&first);

        for number in 1..1_000 {
            list.add(&Arc::new(number));
        }

        assert_eq!(list.living(), std::slice::from_ref(&first));
        assert!(list.lock().len() <= 2 * MIN_ROOM);
        list.remove(&first);
        assert_eq!(list.living(), []);
    }
}
