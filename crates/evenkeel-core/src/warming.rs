//! Since when a node warms up, in one word: zero while it is warm.

use std::time::Duration;

use crate::time::Timestamp;

/// The node is warm.
pub(crate) const WARM: u32 = 0;

/// Warming up begins when the node is first looked at.
pub(crate) const BEGINS: u32 = 1;

/// A tick is 2^20 ns, about a millisecond: 32 bits of them last 52 days before they wrap.
const TICK_BITS: u32 = 20;

/// The word for a beginning at `now`.
pub(crate) fn since(now: Timestamp) -> u32 {
    // Avoids the values that mean something else: two milliseconds do no harm.
    ((now.as_nanos() >> TICK_BITS) as u32).max(2)
}

/// The time since then; zero if that point lies ahead.
pub(crate) fn elapsed(word: u32, now: Timestamp) -> Duration {
    let ticks = since(now).wrapping_sub(word);
    if u32::MAX / 4 * 3 < ticks {
        return Duration::ZERO;
    }
    Duration::from_nanos(u64::from(ticks) << TICK_BITS)
}
