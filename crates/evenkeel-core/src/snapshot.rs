//! A value that one writer replaces and many readers read, at the cost of one shared load for each
//! read.
//!
//! Each reader keeps the value that it saw last and looks only at a generation counter: a cache
//! line that changes only when the value does. Readers never see half an update and never wait for
//! each other. Each reader takes the lock once for each new value. `ArcSwap::load` has more to do,
//! since it protects a value that no reader keeps.

use std::sync::Arc;

use crate::sync::{AtomicU64, Mutex, Ordering};

/// The writer's side: the current value.
#[derive(Debug)]
pub struct Publisher<T> {
    generation: AtomicU64,
    current: Mutex<Arc<T>>,
}

impl<T> Publisher<T> {
    /// Publishes a first value.
    #[must_use]
    pub fn new(value: T) -> Self {
        Self { generation: AtomicU64::new(0), current: Mutex::new(Arc::new(value)) }
    }

    /// Replaces the value. Readers see it from their next read on.
    ///
    /// # Panics
    /// Never: nothing panics while the lock is held.
    pub fn publish(&self, value: T) {
        self.publish_if(value, || true);
    }

    /// Replaces the value if `may_publish` says so under the lock, and returns whether it did.
    ///
    /// If `may_publish` becomes false before another value is published, this older value never
    /// overtakes that one. `may_publish` must be short and must not panic.
    ///
    /// # Panics
    /// Never: nothing panics while the lock is held.
    pub fn publish_if(&self, value: T, may_publish: impl FnOnce() -> bool) -> bool {
        let value = Arc::new(value);
        let mut current = self.current.lock().expect("no panic under the lock");
        if !may_publish() {
            drop(current);
            return false;
        }
        let old = std::mem::replace(&mut *current, value);
        self.generation.fetch_add(1, Ordering::Release);
        drop(current);
        // The old value may be large: it is dropped outside the lock.
        drop(old);
        true
    }

    /// A reader that has the current value.
    #[must_use]
    pub fn reader(&self) -> Reader<T> {
        let (generation, value) = self.load();
        Reader { generation, value }
    }

    /// The current value itself.
    #[must_use]
    pub fn current(&self) -> Arc<T> {
        self.load().1
    }

    fn load(&self) -> (u64, Arc<T>) {
        let current = self.current.lock().expect("no panic under the lock");
        (self.generation.load(Ordering::Relaxed), current.clone())
    }
}

/// A reader's side: the value that it saw last. Clone it together with its owner.
#[derive(Debug)]
pub struct Reader<T> {
    generation: u64,
    value: Arc<T>,
}

impl<T> Reader<T> {
    /// The current value of `publisher`, which must be the one that made this reader.
    #[inline]
    pub fn read(&mut self, publisher: &Publisher<T>) -> &Arc<T> {
        if self.generation != publisher.generation.load(Ordering::Acquire) {
            self.refresh(publisher);
        }
        &self.value
    }

    #[cold]
    fn refresh(&mut self, publisher: &Publisher<T>) {
        (self.generation, self.value) = publisher.load();
    }
}

impl<T> Clone for Reader<T> {
    fn clone(&self) -> Self {
        Self { generation: self.generation, value: self.value.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_sees_what_was_published_last() {
        let publisher = Publisher::new(1);
        let mut reader = publisher.reader();
        let mut other = reader.clone();
        assert_eq!(**reader.read(&publisher), 1);

        publisher.publish(2);

        assert_eq!(**reader.read(&publisher), 2);
        assert_eq!(**other.read(&publisher), 2);
        assert_eq!(*publisher.current(), 2);
    }
}
