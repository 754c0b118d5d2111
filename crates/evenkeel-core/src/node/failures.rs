//! How failed attempts count as load at a node.

use std::time::Duration;

use super::Node;
use crate::{
    observe::{Fault, Report},
    outcome::Outcome,
    rng::Rng,
    sync::Ordering,
    time::Timestamp,
};

/// Hardly any client has more than this in flight at one endpoint.
const MAX_PENALTY: u32 = 1_023;

impl Node {
    /// Extra load, in requests for each unit of its weight, because attempts at it have failed. It
    /// is added to the requests in flight.
    ///
    /// An endpoint that fails at once has little in flight, and would look idle to a policy that
    /// compares that. So each failure doubles the penalty and adds one, and each success takes a
    /// quarter away. A node that is passed over because of its penalty loses it gradually, by
    /// halves. An attempt that was [cut off](crate::cut) raises the penalty to at least one.
    #[must_use]
    #[inline]
    pub fn penalty(&self) -> u32 {
        self.penalty.load(Ordering::Relaxed)
    }

    /// Requests in flight plus the penalty, for a weight of 1.
    #[inline]
    pub(crate) fn load(&self) -> u32 {
        self.in_flight().wrapping_add(self.penalty())
    }

    /// Takes in the outcome of an attempt.
    #[inline]
    pub(crate) fn record_outcome(&self, outcome: Outcome) {
        match outcome {
            Outcome::Success if self.penalty() == 0 => {}
            Outcome::Success => self.reduce_penalty(|penalty| penalty - penalty.div_ceil(4)),
            Outcome::Failure | Outcome::Throttled(_) => self.penalise(),
            Outcome::Ignored => {}
        }
    }

    #[cold]
    pub(crate) fn penalise(&self) {
        let more = |penalty: u32| Some((2 * penalty + 1).min(MAX_PENALTY));
        // The closure always returns `Some`.
        let _ = self.penalty.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// An attempt was given up without an answer: it counts as if it were still in flight. At most
    /// one such attempt counts: callers that give up often do so at every endpoint, and must not
    /// hide what is in flight.
    pub(crate) fn record_unanswered(&self) {
        self.penalty.fetch_max(1, Ordering::Relaxed);
    }

    /// The node was passed over because of its penalty: halves the penalty, one time in `times`.
    #[cold]
    pub(crate) fn forgive(&self, rng: &mut Rng, times: usize) {
        if rng.below(times) == 0 {
            self.reduce_penalty(|penalty| penalty / 2);
        }
    }

    #[cold]
    fn reduce_penalty(&self, less: impl Fn(u32) -> u32) {
        // The closure always returns `Some`.
        let _ = self.penalty.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |p| Some(less(p)));
    }

    /// Tells the listener that connecting to it failed, so that discovery is asked again.
    pub fn unreachable(&self) {
        self.listener.unreachable(self);
    }

    /// Says that it cannot be connected to any more, before any attempt has found out.
    ///
    /// It counts as [unreachable](Self::unreachable), and as if an attempt had got no answer.
    pub fn mark_lost(&self, now: Timestamp) {
        self.unreachable();
        if self.is_open() {
            self.penalise();
            self.latency.record(Outcome::Failure, Duration::ZERO, now);
            let report = Report::new(Outcome::Failure, Duration::ZERO).fault(Fault::Local);
            self.observers.iter().for_each(|observer| observer.ended(self, &report));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicI32, Ordering::SeqCst},
    };

    use super::*;
    use crate::{
        node::{Access, Gate},
        observe::Observer,
    };

    #[test]
    fn a_lost_node_counts_as_failed_if_it_is_open_or_guarded() {
        struct Ends(AtomicI32);
        impl Observer for Ends {
            fn ended(&self, _: &Node, report: &Report) {
                assert_eq!((report.outcome, report.fault), (Outcome::Failure, Fault::Local));
                self.0.fetch_add(1, SeqCst);
            }
        }
        let (node, ends) =
            (Node::new("10.0.0.1:80".parse().unwrap()), Arc::new(Ends(AtomicI32::new(0))));
        node.observe(ends.clone());

        node.mark_lost(Timestamp::from_nanos(1 << 40));
        node.follow(Gate::Limit, || Access::Guarded);
        node.mark_lost(Timestamp::from_nanos(1 << 40));
        assert_eq!((ends.0.load(SeqCst), node.penalty()), (2, 3));

        node.close(Gate::Retired);
        node.mark_lost(Timestamp::from_nanos(1 << 40));
        assert_eq!(ends.0.load(SeqCst), 2, "a retired node is not used any more");
    }
}
