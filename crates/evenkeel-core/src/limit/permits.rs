//! The calls under way, counted against a limit.

use super::Limit;
use crate::sync::{AtomicU32, Ordering};

/// Counts the calls that are under way against a limit, exactly, under any number of threads.
///
/// It is one word, changed by one comparison and exchange: no more calls are let in than the limit
/// allows, and none is refused while there is room. A limit that falls takes nothing back; it lets
/// no call in until enough have left.
// One order for all threads. A thread that finds no permit and notes that it waits, and a thread
// that gives one back and looks for waiters, must not miss each other.
#[derive(Debug)]
pub struct Permits {
    limit: Box<dyn Limit>,
    in_flight: AtomicU32,
}

impl Permits {
    /// Permits for `limit`, all of them free.
    #[must_use]
    pub fn new(limit: impl Limit) -> Self {
        Self::boxed(Box::new(limit))
    }

    /// Permits for `limit`, all of them free.
    #[must_use]
    pub fn boxed(limit: Box<dyn Limit>) -> Self {
        Self { limit, in_flight: AtomicU32::new(0) }
    }

    /// Takes a permit, if there is one.
    #[must_use]
    #[inline]
    pub fn acquire(&self) -> bool {
        let limit = self.limit.limit();
        let take = |in_flight: u32| (in_flight < limit).then(|| in_flight + 1);
        self.in_flight.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok()
    }

    /// Gives a permit back, and returns whether there was none left before.
    ///
    /// # Panics
    /// In debug builds, if none was taken.
    #[inline]
    pub fn release(&self) -> bool {
        let before = self.in_flight.fetch_sub(1, Ordering::SeqCst);
        debug_assert_ne!(before, 0, "a permit came back that was never taken");
        self.limit.limit() <= before
    }

    /// Whether no permit is left.
    #[must_use]
    #[inline]
    pub fn is_full(&self) -> bool {
        self.limit.limit() <= self.in_flight()
    }

    /// How many calls are under way.
    #[must_use]
    #[inline]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// The limit.
    #[must_use]
    #[inline]
    pub fn limit(&self) -> &dyn Limit {
        &*self.limit
    }
}
