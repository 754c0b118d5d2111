//! What attempts that are cut off while they wait say of the endpoint.
//!
//! An attempt that is dropped before the head of its response arrives has no outcome. What it still
//! says depends on the cause of the cut and on how long it had waited:
//!
//! | cut off | latency estimates | load | health: outlier detection, breakers, adaptive limits |
//! |---|---|---|---|
//! | by a deadline, after half of it or more | at least that long, and a failure | a failure | a failure without an answer ([`Fault::Local`]) |
//! | by a deadline, sooner: a second attempt shortly before it | at least that long | one more request | nothing |
//! | by its caller's drop, or as the loser of a hedge | at least that long | one more request | nothing |
//! | before it had to wait | nothing | nothing | nothing |
//! | [untimed](crate::attempt::Attempt::set_untimed): a long poll | nothing | nothing | nothing |
//! | after the head of its response | nothing | nothing | what the head says |
//!
//! * **Latency.** [`PeakEwma`](crate::load::PeakEwma) takes the wait as the least time that the
//!   answer would have taken, as tower's `PeakEwma`, linkerd's and Finagle's do. An endpoint that
//!   never answers looks slow, not unmeasured. Unlike in theirs, a short wait never makes it look
//!   quicker.
//! * **Load.** [`Node::penalty`](crate::node::Node::penalty) becomes at least 1, as if the
//!   abandoned request were still in flight, until the endpoint answers one or has been passed over
//!   often enough.
//! * **Health.** A deadline says after which wait an answer is of no use. An endpoint that had at
//!   least half of that time and did not answer has failed, as Envoy counts a timeout. A caller
//!   that goes away says nothing of the kind: it may have lost interest, and a stream that
//!   sends its head with its first message may last for hours.
//!
//! Code that knows a deadline says so with [`by_deadline`] while it drops what was under way. The
//! `DeadlineLayer`, the attempt timeout of the `RetryLayer` and the timeout of the `MirrorLayer` of
//! evenkeel-layers do. tower's `Timeout` and tokio's `timeout` do not, so attempts that they cut
//! off count as dropped by their caller. The same holds for what another thread or task drops, for
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
/// Attempts that it drops on this thread, and that have waited for at least half of `patience`,
/// count as failed without an answer. `patience` is the configured time: a caller that gave less
/// time is impatient, which is not the endpoint's fault. See the [module docs](self).
///
/// ```
/// use std::time::Duration;
/// use evenkeel::core::cut;
///
/// let under_way = Some("a future that holds attempts");
/// cut::by_deadline(Duration::from_secs(2), || drop(under_way));
/// ```
pub fn by_deadline<R>(patience: Duration, end: impl FnOnce() -> R) -> R {
    /// Restores the previous value, even if `end` panics.
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
    // While a thread ends, its deadline is unknown.
    let patience = PATIENCE.try_with(Cell::get).ok().flatten();
    patience.is_some_and(|patience| patience / 2 <= waited && Duration::ZERO < waited)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_attempt_has_failed_only_if_a_deadline_cuts_it_off_after_half_of_its_time() {
        assert!(!is_failure(SECOND * 1_000));
        by_deadline(SECOND * 2, || {
            assert!(is_failure(SECOND));
            assert!(!is_failure(SECOND - Duration::from_nanos(1)));
            by_deadline(SECOND * 8, || assert!(!is_failure(SECOND * 3)));
            assert!(is_failure(SECOND), "the outer deadline holds again");
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
