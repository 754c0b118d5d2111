//! Attempts that are cut off while they wait, and what that says of the endpoint.
//!
//! An attempt that is dropped before the head of its response is there has no outcome. What it says all the
//! same depends on who cut it off, and after which time:
//!
//! | cut off | latency estimates | load | health: outlier detection, breakers, adaptive limits |
//! |---|---|---|---|
//! | by a deadline, after half of it or more | at least so long, and a failure | a failure | a failure without an answer ([`Fault::Local`]) |
//! | by a deadline, sooner: a second attempt shortly before it | at least so long | one request more | nothing |
//! | by its caller's drop, or as the loser of a hedge | at least so long | one request more | nothing |
//! | before it had to wait | nothing | nothing | nothing |
//! | [untimed](crate::attempt::Attempt::set_untimed): a long poll | nothing | nothing | nothing |
//! | after the head of its response | nothing | nothing | what the head says |
//!
//! * **Latency.** [`PeakEwma`](crate::load::PeakEwma) takes the wait as the least that the answer would have
//!   taken, as tower's `PeakEwma`, linkerd's and Finagle's do: an endpoint that never answers looks slow, not
//!   unmeasured. Other than theirs, a short wait never makes it look quicker.
//! * **Load.** [`Node::penalty`](crate::node::Node::penalty) becomes 1 at least: as if the request that was
//!   given up were in flight still, until the endpoint answers one or has been passed over often enough.
//! * **Health.** Whoever sets a deadline says from which wait on there is no use in an answer; an endpoint that
//!   was given at least half of it and said nothing has failed, as Envoy counts a timeout. A caller that goes
//!   away says nothing of the kind: it may have lost interest, and a stream whose head comes with its first
//!   message may last for hours.
//!
//! What knows a deadline tells it by [`by_deadline`] while it drops what was under way: the `DeadlineLayer`, the
//! attempt timeout of the `RetryLayer` and the timeout of the `MirrorLayer` of evenkeel-layers do. tower's `Timeout` and tokio's `timeout` do not,
//! so what they cut off counts as dropped by its caller. So does what is dropped by another thread or task, for
//! example behind a `Buffer`.
//!
//! [`Fault::Local`]: crate::observe::Fault::Local

use std::{cell::Cell, time::Duration};

thread_local! {
    /// The deadline that is cutting off attempts on this thread.
    static PATIENCE: Cell<Option<Duration>> = const { Cell::new(None) };
}

/// Runs `end`, which drops what is under way, because a deadline of `patience` has passed.
///
/// Attempts that it drops on this thread, and that have waited for at least half of `patience`, count as failed
/// without an answer. `patience` is what is configured: a caller that gave less time is impatient, which is no
/// fault of the endpoint. See the [module docs](self).
///
/// ```
/// use std::time::Duration;
/// use evenkeel_core::cut;
///
/// let under_way = Some("a future that holds attempts");
/// cut::by_deadline(Duration::from_secs(2), || drop(under_way));
/// ```
pub fn by_deadline<R>(patience: Duration, end: impl FnOnce() -> R) -> R {
    /// Sets back what was before, also where `end` panics.
    struct Before(Option<Duration>);

    impl Drop for Before {
        fn drop(&mut self) {
            PATIENCE.set(self.0);
        }
    }

    let _before = Before(PATIENCE.replace(Some(patience)));
    end()
}

/// Whether an attempt that is cut off now after `waited` has failed.
pub(crate) fn is_failure(waited: Duration) -> bool {
    // Where threads end, nothing is known.
    let patience = PATIENCE.try_with(Cell::get).ok().flatten();
    patience.is_some_and(|patience| patience / 2 <= waited && Duration::ZERO < waited)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn only_what_a_deadline_cuts_off_after_half_of_it_has_failed() {
        assert!(!is_failure(SECOND * 1_000));
        by_deadline(SECOND * 2, || {
            assert!(is_failure(SECOND));
            assert!(!is_failure(SECOND - Duration::from_nanos(1)));
            by_deadline(SECOND * 8, || assert!(!is_failure(SECOND * 3)));
            assert!(is_failure(SECOND), "that of before");
        });
        assert!(!is_failure(SECOND * 1_000));
        by_deadline(Duration::ZERO, || {
            assert!(!is_failure(Duration::ZERO), "nothing was waited for");
        });
    }

    #[test]
    fn a_panic_leaves_no_deadline_behind() {
        let panic = || by_deadline(SECOND, || panic!("while it is dropped"));
        std::panic::catch_unwind(panic).unwrap_err();
        assert!(!is_failure(SECOND));
    }
}
