//! Who waits for a permit: by priority, and in the order in which they came.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    task::{Context, Poll},
};

use evenkeel_core::limit::Priority;
use tokio::sync::{Notify, futures::OwnedNotified};

/// Those who wait, a list for each priority.
///
/// Whoever gives a permit back wakes one who waits, the most important first; who is woken takes the
/// permit for itself, like anybody. The counter of those who wait and that of permits are changed and read
/// in opposite orders by the two sides, in one order for all threads: nobody falls asleep beside a permit.
pub(super) struct Queue {
    max: u32,
    waiting: AtomicU32,
    levels: Box<[Level]>,
}

#[derive(Default)]
struct Level {
    waiting: AtomicU32,
    /// So many of those who wait here are to give way to what matters more.
    evicted: AtomicU32,
    woken: Arc<Notify>,
}

impl Queue {
    pub(super) fn new(max: u32) -> Self {
        let levels = (0..Priority::COUNT).map(|_| Level::default()).collect();
        Self { max, waiting: AtomicU32::new(0), levels }
    }

    /// How many wait.
    pub(super) fn len(&self) -> u32 {
        self.waiting.load(SeqCst)
    }

    /// Whether somebody waits who matters as much or more.
    #[inline]
    pub(super) fn is_behind(&self, priority: Priority) -> bool {
        let before = &self.levels[..=usize::from(priority.level())];
        0 < self.len() && before.iter().any(|level| 0 < level.waiting.load(SeqCst))
    }

    /// A place in the queue, if need be that of the last who matters less.
    pub(super) fn enter(self: &Arc<Self>, priority: Priority) -> Option<Place> {
        let index = usize::from(priority.level());
        if self.max <= self.waiting.fetch_add(1, SeqCst) && !self.evict(index) {
            self.waiting.fetch_sub(1, SeqCst);
            return None;
        }
        let level = &self.levels[index];
        level.waiting.fetch_add(1, SeqCst);
        let mut woken = Box::pin(level.woken.clone().notified_owned());
        woken.as_mut().enable();
        Some(Place { queue: self.clone(), index, woken })
    }

    /// Sends away the last of those who matter less than `index`, the least first.
    fn evict(&self, index: usize) -> bool {
        self.levels[index + 1..].iter().rev().any(|level| {
            let is_free = |evicted| (evicted < level.waiting.load(SeqCst)).then(|| evicted + 1);
            let is_found = level.evicted.fetch_update(SeqCst, SeqCst, is_free).is_ok();
            if is_found {
                level.woken.notify_last();
            }
            is_found
        })
    }

    /// Wakes one who waits, if anybody does.
    #[inline]
    pub(super) fn wake(&self) {
        if 0 < self.len() {
            self.wake_first();
        }
    }

    #[cold]
    fn wake_first(&self) {
        if let Some(level) = self.levels.iter().find(|level| 0 < level.waiting.load(SeqCst)) {
            level.woken.notify_one();
        }
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("max", &self.max).field("waiting", &self.len()).finish()
    }
}

/// A place in the queue, given up when it is dropped.
pub(super) struct Place {
    queue: Arc<Queue>,
    index: usize,
    woken: Pin<Box<OwnedNotified>>,
}

impl Place {
    /// Whether somebody is in front of this one, which has just come. They wake it when they leave.
    pub(super) fn is_behind(&self) -> bool {
        let (own, before) = (self.level(), &self.queue.levels[..self.index]);
        1 < own.waiting.load(SeqCst) || before.iter().any(|level| 0 < level.waiting.load(SeqCst))
    }

    /// Whether this one has to give way.
    pub(super) fn is_evicted(&self) -> bool {
        let take = |evicted: u32| evicted.checked_sub(1);
        self.level().evicted.fetch_update(SeqCst, SeqCst, take).is_ok()
    }

    /// Waits to be woken; to be asked again after each time.
    pub(super) fn poll_woken(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let woken = self.woken.as_mut().poll(cx);
        if woken.is_ready() {
            let next = self.level().woken.clone().notified_owned();
            self.woken.set(next);
            self.woken.as_mut().enable();
        }
        woken
    }

    fn level(&self) -> &Level {
        &self.queue.levels[self.index]
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.level().waiting.fetch_sub(1, SeqCst);
        self.queue.waiting.fetch_sub(1, SeqCst);
        // An eviction that found nobody else is over.
        let take = |evicted: u32| {
            let waiting = self.level().waiting.load(SeqCst);
            (waiting < evicted).then_some(waiting)
        };
        let _ = self.level().evicted.fetch_update(SeqCst, SeqCst, take);
    }
}
