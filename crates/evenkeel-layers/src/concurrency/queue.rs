//! Calls that wait for a permit: by priority, and in the order of arrival.

use std::{
    collections::BTreeMap,
    fmt, mem,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
};

use evenkeel_core::limit::{Permits, Priority};

/// The waiting calls, the most important first, and among equals the earlier first.
///
/// A returned permit goes to the first of them, and not to the one that happens to be polled first.
/// A call that is told so has its permit, and passes it on if it gives up afterwards. So the order
/// holds whichever calls give up, and whenever they do. The two sides change and read the counter
/// of waiting calls and that of permits in opposite orders, in one order for all threads, so that
/// no call sleeps while a permit is free.
pub(super) struct Queue {
    max: usize,
    /// How many calls wait, per priority and in total. Changed under the lock.
    levels: Box<[AtomicU32]>,
    waiting: AtomicU32,
    lists: Mutex<Lists>,
}

/// The priority of a call, and its number in the order of arrival.
type Key = (u8, u64);

#[derive(Default)]
struct Lists {
    next: u64,
    /// At most as many as may wait.
    waiting: BTreeMap<Key, Waker>,
    /// The exits of calls that no longer wait and have not asked since: at most one for each permit,
    /// and those of calls that had to give way.
    told: BTreeMap<Key, QueueExit>,
}

/// What has become of a call that waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QueueExit {
    /// It has a permit.
    Admitted,
    /// A more important call took its place.
    Evicted,
}

impl Queue {
    pub(super) fn new(max: u32) -> Self {
        let levels = (0..Priority::COUNT).map(|_| AtomicU32::new(0)).collect();
        Self { max: max as usize, levels, waiting: AtomicU32::new(0), lists: Mutex::default() }
    }

    /// How many calls wait.
    #[inline]
    pub(super) fn len(&self) -> u32 {
        self.waiting.load(SeqCst)
    }

    /// Whether a call waits that is at least as important.
    #[inline]
    pub(super) fn is_behind(&self, priority: Priority) -> bool {
        let before = &self.levels[..=usize::from(priority.level())];
        0 < self.len() && before.iter().any(|level| 0 < level.load(SeqCst))
    }

    /// Takes a place in the queue, if need be that of the last less important call. Free permits
    /// must be [given out](Self::admit) after that.
    pub(super) fn enter(self: &Arc<Self>, priority: Priority, waker: &Waker) -> Option<Place> {
        let waker = waker.clone();
        let mut lists = self.lock();
        let evicted = if lists.waiting.len() < self.max {
            None
        } else {
            let last = lists.waiting.last_entry().filter(|last| priority.level() < last.key().0)?;
            let (key, evicted) = last.remove_entry();
            self.count(key, -1);
            lists.told.insert(key, QueueExit::Evicted);
            Some(evicted)
        };
        let key = (priority.level(), lists.next);
        lists.next += 1;
        lists.waiting.insert(key, waker);
        self.count(key, 1);
        drop(lists);
        evicted.into_iter().for_each(Waker::wake);
        Some(Place { queue: self.clone(), key })
    }

    /// Gives the free permits to the waiting calls, in their order.
    #[inline]
    pub(super) fn admit(&self, permits: &Permits) {
        while 0 < self.len() && self.admit_first(permits) {}
    }

    #[cold]
    fn admit_first(&self, permits: &Permits) -> bool {
        let mut lists = self.lock();
        let Some(first) = lists.waiting.first_entry() else { return false };
        if !permits.acquire() {
            return false;
        }
        let (key, waker) = first.remove_entry();
        self.count(key, -1);
        lists.told.insert(key, QueueExit::Admitted);
        drop(lists);
        waker.wake();
        true
    }

    fn count(&self, (level, _): Key, by: i32) {
        for count in [&self.levels[usize::from(level)], &self.waiting] {
            count.fetch_add(by as u32, SeqCst);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Lists> {
        self.lists.lock().expect("no panic under the lock")
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("max", &self.max).field("waiting", &self.len()).finish()
    }
}

/// A place in the queue. It must be [left](Self::leave).
pub(super) struct Place {
    queue: Arc<Queue>,
    key: Key,
}

impl Place {
    /// Waits for the verdict.
    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<QueueExit> {
        let mut waker = cx.waker().clone();
        let mut lists = self.queue.lock();
        if let Some(verdict) = lists.told.get(&self.key) {
            return Poll::Ready(*verdict);
        }
        let known = lists.waiting.get_mut(&self.key).expect("one that is not told waits");
        // The old waker is dropped outside the lock.
        mem::swap(known, &mut waker);
        drop(lists);
        Poll::Pending
    }

    /// Gives up the place, and returns its verdict. A call that was admitted has a permit.
    pub(super) fn leave(self) -> Option<QueueExit> {
        let mut lists = self.queue.lock();
        let waker = lists.waiting.remove(&self.key);
        if waker.is_some() {
            self.queue.count(self.key, -1);
        }
        let told = lists.told.remove(&self.key);
        drop(lists);
        told
    }
}
