//! Who hears how the attempts at a node end, and may let in only some of them.
//!
//! Circuit breakers and outlier detection stand below the balancer, but what an outcome is, only the
//! protocol knows, and sometimes only at the end of a body. So they wrap no service: they observe the
//! node, and each attempt tells all observers once how it ended.
//!
//! An observer that lets a closed node be tried again holds one of its gates at
//! [`Access::Guarded`](crate::node::Access): then it is asked for each attempt, and gives a [`Pass`].

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
    /// The endpoint answered with a failure of its own, or nobody knows.
    #[default]
    Server,
    /// The endpoint answered that what stands behind it failed: 502, 503, 504.
    Gateway,
    /// There was no answer: no connection, a reset, a timeout, or a [deadline](crate::cut) that has passed.
    Local,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// What became of it.
    pub outcome: Outcome,
    /// Where the fault lies, if it failed.
    pub fault: Fault,
    /// How long the head of the response took, or how long was waited for one that did not come in time; zero
    /// where it was there at once or nobody [is timing](Observer::is_timing).
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
    /// An attempt that ended so after `latency`; a failure is the server's fault.
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
    /// It may, for all this observer cares.
    #[default]
    Free,
    /// It may, and this observer is told [when it has left](Observer::left), however it ends.
    Counted,
    /// It may, as a trial.
    Trial(Box<dyn Pass>),
    /// It may not. The gate is closed by now, so that nobody is refused again and again.
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

/// The permission for one attempt to go ahead as a trial. Dropped before its end it was cancelled.
pub trait Pass: Send + Sync {
    /// The attempt has ended, or [is judged](crate::attempt::Attempt::judge_trial) by the head of its response.
    fn ended(self: Box<Self>, report: &Report);

    /// The answer [may be late by design](crate::attempt::Attempt::set_untimed): another attempt may go ahead in
    /// its place. What is given back is told how this one ends all the same. By default the trial is cancelled.
    #[must_use]
    fn give_place(self: Box<Self>) -> Option<Box<dyn Pass>> {
        None
    }
}

/// Hears how the attempts at a node end. Called on the request path: short, and it must not block.
pub trait Observer: Any + Send + Sync {
    /// An attempt has ended, or a [deadline](crate::cut) has cut it off. Others that were cancelled, and those
    /// that began before the node was last closed by an observer, say nothing and are not told.
    fn ended(&self, node: &Node, report: &Report);

    /// An attempt has ended that began before the node was last closed by an observer: for those who
    /// only count. It says nothing of the node as it is now.
    fn ended_late(&self, _node: &Node, _report: &Report) {}

    /// An attempt was cut off after it had `waited` without an answer, by a deadline or by its caller: its
    /// answer would have taken at least as long. Where that [is a failure](crate::cut), it is told as its end
    /// as well.
    fn cut(&self, _node: &Node, _waited: Duration, _now: Timestamp) {}

    /// Whether an attempt may go ahead, asked while a gate of the node is guarded.
    fn admit(&self, _node: &Node) -> Admission {
        Admission::Free
    }

    /// An attempt that it [counted](Admission::Counted), or an observer after it did, is over: it has
    /// ended or was cancelled. All observers up to the last that counted it are told.
    fn left(&self, _node: &Node) {}

    /// The first gate has closed the node. One that is full for the moment is not closed in this sense.
    fn closed(&self, _node: &Node) {}

    /// A gate has closed or opened. Which of them, [`Node::is_closed_by`] tells: two changes at the same
    /// time may be told in any order.
    fn gate_changed(&self, _node: &Node, _gate: Gate) {}

    /// The endpoint has reported its load, with a response or beside. Only those that
    /// [read reports](Self::is_reading_reports) are sure to be told.
    fn reported(&self, _node: &Node, _report: &LoadReport, _now: Timestamp) {}

    /// Whether it goes by what endpoints report of their load, which costs reading it. Asked once.
    fn is_reading_reports(&self) -> bool {
        false
    }

    /// Whether it wants to know how attempts end, and not only how gates change. Asked once.
    fn is_hearing(&self) -> bool {
        true
    }

    /// Whether it needs to know how long attempts take, for two clock reads each. Asked once.
    fn is_timing(&self) -> bool {
        false
    }
}

/// The observers of one node: added to, never taken from, read without a lock.
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
    fn an_observer_hears_of_every_gate_once_a_change() {
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
    fn an_attempt_from_before_the_node_was_closed_is_told_as_late() {
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
