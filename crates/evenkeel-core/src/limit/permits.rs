//! The calls that are under way, and how many may be.

use super::Limit;
use crate::sync::{AtomicU32, Ordering};

/// Counts the calls that are under way against a limit, exactly, under any number of threads.
///
/// One word, changed by one comparison and exchange: no more are let in than the limit says, and none is
/// refused while there is room. A limit that falls takes nothing back; it lets nobody in until so many
/// have left.
// In one order for all threads: who found no permit and says that it waits, and who gives one back and looks
// for somebody who waits, must not miss each other.
#[derive(Debug)]
pub struct Permits {
    limit: Box<dyn Limit>,
    in_flight: AtomicU32,
}

impl Permits {
    /// All of `limit` is free.
    #[must_use]
    pub fn new(limit: impl Limit) -> Self {
        Self::boxed(Box::new(limit))
    }

    /// All of `limit` is free.
    #[must_use]
    pub fn boxed(limit: Box<dyn Limit>) -> Self {
        Self { limit, in_flight: AtomicU32::new(0) }
    }

    /// Takes a permit if there is one.
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

    /// How many are under way.
    #[must_use]
    #[inline]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// What says how many may be.
    #[must_use]
    #[inline]
    pub fn limit(&self) -> &dyn Limit {
        &*self.limit
    }
}
