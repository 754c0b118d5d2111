//! Observers of a node: they are told how attempts end, and may let in only some of them.
//!
//! Circuit breakers and outlier detection stand below the balancer. But only the protocol knows
//! what an outcome is, and sometimes only at the end of a body. So they wrap no service. They
//! observe the node, and each attempt tells all observers once how it ended.
//!
//! An observer that lets a closed node be tried again keeps one of its gates at
//! [`Access::Guarded`](crate::node::Access). Then it is asked before each attempt, and gives a
//! [`Pass`].

use std::{
    any::Any,
    sync::{Arc, OnceLock},
    time::Duration,
};

use crate::{
    load::LoadReport,
    node::{Gate, Node},
    outcome::Outcome,
    time::Timestamp,
};

/// Where the fault lies when an attempt fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// The endpoint answered with a failure of its own, or the cause is unknown.
    #[default]
    Server,
    /// The endpoint answered that a server behind it failed: 502, 503, 504.
    Gateway,
    /// There was no answer: no connection, a reset, a timeout, or a [deadline](crate::cut) that has passed.
    Local,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// The outcome.
    pub outcome: Outcome,
    /// Where the fault lies, if it failed.
    pub fault: Fault,
    /// How long the head of the response took, or how long the attempt waited for one that did not
    /// come in time. Zero if it was there at once or no observer [is timing](Observer::is_timing).
    pub latency: Duration,
}

impl Fault {
    /// Its name in metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Gateway => "gateway",
            Self::Local => "local",
        }
    }
}

impl Report {
    /// An attempt that ended with `outcome` after `latency`. A failure is the server's fault.
    #[must_use]
    pub fn new(outcome: Outcome, latency: Duration) -> Self {
        Self { outcome, fault: Fault::Server, latency }
    }

    /// Sets where the fault lies. Default [`Fault::Server`].
    #[must_use]
    pub fn fault(mut self, fault: Fault) -> Self {
        self.fault = fault;
        self
    }
}

/// Whether an attempt may go ahead at a node that is guarded.
#[derive(Default)]
pub enum Admission {
    /// It may: this observer does not object.
    #[default]
    Free,
    /// It may, and this observer is told [when it has left](Observer::left), however it ends.
    Counted,
    /// It may, as a trial.
    Trial(Box<dyn Pass>),
    /// It may not. The gate is closed by now, so that further attempts do not come to be refused.
    Refused,
}

impl std::fmt::Debug for Admission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Free => "Free",
            Self::Counted => "Counted",
            Self::Trial(_) => "Trial",
            Self::Refused => "Refused",
        })
    }
}

/// The permission for one attempt to go ahead as a trial. Dropping it without its end cancels the
/// trial.
pub trait Pass: Send + Sync {
    /// The attempt has ended, or [is judged](crate::attempt::Attempt::judge_trial) by the head of its response.
    fn ended(self: Box<Self>, report: &Report);

    /// The answer [may be late by design](crate::attempt::Attempt::set_untimed): another attempt
    /// may go ahead in its place. A pass that is returned is still told how this attempt ends. By
    /// default the trial is cancelled.
    #[must_use]
    fn give_place(self: Box<Self>) -> Option<Box<dyn Pass>> {
        None
    }
}

/// Is told how the attempts at a node end. Called on the request path: it must be short and must
/// not block.
pub trait Observer: Any + Send + Sync {
    /// An attempt has ended, or a [deadline](crate::cut) has cut it off. Not called for other
    /// cancelled attempts, nor for attempts that began before an observer last closed the node:
    /// they say nothing.
    fn ended(&self, node: &Node, report: &Report);

    /// An attempt has ended that began before an observer last closed the node. It says nothing of
    /// the node as it is now, and matters only to observers that count.
    fn ended_late(&self, _node: &Node, _report: &Report) {}

    /// An attempt was cut off, by a deadline or by its caller, after it had `waited` without an
    /// answer. Its answer would have taken at least as long. If that [is a failure](crate::cut), it
    /// is also told as the attempt's end.
    fn cut(&self, _node: &Node, _waited: Duration, _now: Timestamp) {}

    /// Whether an attempt may go ahead, asked while a gate of the node is guarded.
    fn admit(&self, _node: &Node) -> Admission {
        Admission::Free
    }

    /// An attempt that this observer, or one after it, [counted](Admission::Counted) is over: it
    /// ended or was cancelled. All observers up to the last one that counted it are told.
    fn left(&self, _node: &Node) {}

    /// The first gate has closed the node. A node that is only full for the moment is not closed in
    /// this sense.
    fn closed(&self, _node: &Node) {}

    /// A gate has closed or opened. [`Node::is_closed_by`] tells which: two changes at the same
    /// time may be told in any order.
    fn gate_changed(&self, _node: &Node, _gate: Gate) {}

    /// The endpoint has reported its load, with a response or separately. Only observers that [read
    /// reports](Self::is_reading_reports) are certain to be told.
    fn reported(&self, _node: &Node, _report: &LoadReport, _now: Timestamp) {}

    /// Whether it uses the load reports of endpoints, which cost time to read. Asked once.
    fn is_reading_reports(&self) -> bool {
        false
    }

    /// Whether it needs to know how attempts end, and not only how gates change. Asked once.
    fn is_hearing(&self) -> bool {
        true
    }

    /// Whether it needs to know how long attempts take, which costs two clock reads each. Asked
    /// once.
    fn is_timing(&self) -> bool {
        false
    }
}

/// The observers of one node. The list only grows, and is read without a lock.
#[derive(Default)]
pub(crate) struct Observers(OnceLock<Box<Link>>);

struct Link {
    observer: Arc<dyn Observer>,
    next: Observers,
}

impl Observers {
    pub(crate) fn push(&self, observer: Arc<dyn Observer>) {
        let mut link = Box::new(Link { observer, next: Self::default() });
        let mut end = self;
        loop {
            match end.0.get() {
                Some(link) => end = &link.next,
                None => match end.0.set(link) {
                    Ok(()) => return,
                    Err(late) => link = late,
                },
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<dyn Observer>> {
        let links = std::iter::successors(self.0.get(), |link| link.next.0.get());
        links.map(|link| &link.observer)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::{
        attempt::{Attempt, Holder},
        node::Access,
    };

    #[derive(Default)]
    struct Diary(Mutex<Vec<String>>);

    impl Diary {
        fn note(&self, text: String) {
            self.0.lock().unwrap().push(text);
        }

        fn read(&self) -> Vec<String> {
            std::mem::take(&mut *self.0.lock().unwrap())
        }
    }

    impl Observer for Diary {
        fn ended(&self, _: &Node, report: &Report) {
            self.note(report.outcome.name().into());
        }
        fn ended_late(&self, _: &Node, report: &Report) {
            self.note(format!("late {}", report.outcome.name()));
        }
        fn gate_changed(&self, node: &Node, gate: Gate) {
            self.note(format!("{} {}", gate.name(), node.is_closed_by(gate)));
        }
    }

    struct Held(Arc<Node>);

    impl Holder for Held {
        fn node(&self) -> &Arc<Node> {
            &self.0
        }
        fn now(&self) -> Timestamp {
            Timestamp::default()
        }
        fn recently(&self) -> Timestamp {
            Timestamp::default()
        }
    }

    #[test]
    fn an_observer_hears_of_each_change_of_a_gate_once() {
        let node = Node::new("10.0.0.1:80".parse().unwrap());
        let diary = Arc::new(Diary::default());
        node.observe(diary.clone());

        node.close(Gate::Limit);
        node.close(Gate::Limit);
        node.close(Gate::Unhealthy);
        node.open(Gate::Limit);
        node.open(Gate::Limit);

        assert_eq!(diary.read(), ["limit true", "unhealthy true", "limit false"]);
    }

    #[test]
    fn an_attempt_that_began_before_the_node_closed_is_reported_as_late() {
        let node = Arc::new(Node::new("10.0.0.1:80".parse().unwrap()));
        let diary = Arc::new(Diary::default());
        node.observe(diary.clone());
        let held = Arc::new(Held(node.clone()));
        let (before, cancelled) = (Attempt::new(held.clone()), Attempt::new(held.clone()));

        node.follow(Gate::Breaker, || Access::Closed);
        node.follow(Gate::Breaker, || Access::Open);
        Attempt::new(held).finish(Outcome::Success);
        before.finish(Outcome::Failure);
        drop(cancelled);

        let expected = ["breaker true", "breaker false", "success", "late failure"];
        assert_eq!(diary.read(), expected);
    }

    #[test]
    fn every_gate_has_a_name_of_its_own() {
        let names = Gate::ALL.map(Gate::name);
        assert_eq!(names.iter().collect::<std::collections::BTreeSet<_>>().len(), names.len());
        assert_eq!((Gate::Joining.name(), Gate::Limit.name()), ("joining", "limit"));
    }
}
