//! How much may be under way at the same time, and what is let in: state machines that are told the
//! time.
//!
//! A [`Limit`] says how many calls may be under way, and learns from those that end; [`Permits`]
//! counts them. [`AdaptiveThrottle`] keeps a client from sending requests that would be refused. [`Shed`]
//! keeps a server from work that it cannot finish in time.
//!
//! | limit | follows | use it when |
//! |---|---|---|
//! | [`Fixed`] | nothing | the number is known |
//! | [`Aimd`] | failures alone | overload shows as refusals and timeouts, not as latency |
//! | [`Gradient2`] | latency against its baseline, with a tolerance | latency varies by nature; some queueing is fine |
//! | [`Vegas`] | the queue that latency shows | the queue has to stay short |

use std::{fmt::Debug, time::Duration};

use crate::time::Timestamp;

mod admission;
mod aimd;
mod bounds;
mod gradient;
mod permits;
mod shed;
mod tally;
mod vegas;
mod window;
mod windowed;

pub use self::{
    admission::AdaptiveThrottle,
    aimd::Aimd,
    gradient::Gradient2,
    permits::Permits,
    shed::{AllAlike, Priority, ReadPriority, Shed},
    vegas::Vegas,
};

/// What an ended call says about a limit. A cancelled call says nothing and gives no sample; a call
/// that a [deadline](crate::cut) has cut off counts as dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// How long the call took; zero if it was answered without waiting.
    pub latency: Duration,
    /// How many calls were under way with it, itself included.
    pub in_flight: u32,
    /// Whether it was refused, failed or timed out. Its latency then says nothing.
    pub is_dropped: bool,
}

/// How many calls may be under way at the same time.
pub trait Limit: Debug + Send + Sync + 'static {
    /// The current limit, at least 1.
    fn limit(&self) -> u32;

    /// A call has ended. Any number of threads may call this at the same time; it must be short.
    fn sample(&self, sample: Sample, now: Timestamp);

    /// Whether it uses samples at all. Asked once.
    fn is_adaptive(&self) -> bool {
        true
    }
}

/// A limit that never changes.
///
/// ```
/// use evenkeel::core::limit::{Fixed, Permits};
///
/// let permits = Permits::new(Fixed::new(2));
/// assert!(permits.acquire() && permits.acquire());
/// assert!(!permits.acquire());
/// permits.release();
/// assert!(permits.acquire());
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Fixed(u32);

impl Fixed {
    /// At most `limit` calls at the same time.
    ///
    /// # Panics
    /// If `limit` is zero: no call would ever be let in.
    #[must_use]
    pub const fn new(limit: u32) -> Self {
        assert!(0 < limit, "a limit of 0");
        Self(limit)
    }
}

impl Limit for Fixed {
    #[inline]
    fn limit(&self) -> u32 {
        self.0
    }

    fn sample(&self, _: Sample, _: Timestamp) {}

    fn is_adaptive(&self) -> bool {
        false
    }
}
