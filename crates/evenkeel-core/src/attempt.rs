//! One try of a request at one node.

mod marks;

use std::{fmt, sync::Arc, time::Duration};

use self::marks::Marks;
use crate::{
    cut,
    load::LoadReport,
    node::Node,
    observe::{Admission, Fault, Pass, Report},
    outcome::Outcome,
    time::Timestamp,
};

/// Keeps a node's service alive while an attempt is under way, and gives the time.
pub trait Holder {
    /// The node that is tried.
    fn node(&self) -> &Arc<Node>;

    /// The time now.
    fn now(&self) -> Timestamp;

    /// A recent time, cheaper to get than [`Holder::now`].
    fn recently(&self) -> Timestamp;

    /// Whether attempts are counted while they are under way. Default true; false where no policy
    /// reads the count.
    #[inline]
    fn is_counted(&self) -> bool {
        true
    }

    /// A counted attempt begins. By default it becomes in flight at the node.
    #[inline]
    fn enter(&self) {
        self.node().enter();
    }

    /// A counted attempt is over, whether it ended or was cancelled.
    #[inline]
    fn exit(&self) {
        self.node().exit();
    }
}

/// One try of a request at one node, in flight from here until it is finished or dropped.
///
/// An attempt that is dropped without [`finish`](Attempt::finish) was cut off. What that says of
/// the node is explained at [`cut`].
/// Latency runs from the first time that the attempt had to wait until the head of the response, or
/// until the end if no head is reported. An attempt that never waited took no time, so no clock is
/// read for it.
pub struct Attempt<H: Holder + ?Sized = dyn Holder + Send + Sync> {
    /// `None` only while it becomes an attempt of another type.
    holder: Option<Arc<H>>,
    clock: Clock,
    /// Set only at a guarded node.
    trial: Option<Arc<Trial>>,
    marks: Marks,
}

/// The passes that let an attempt in at a guarded node. It is behind a pointer, since hardly any
/// attempt has one. It is an `Arc` with a single owner because dropping `None` of an `Arc` is a
/// comparison without a call, unlike that of a `Box`.
struct Trial {
    passes: Vec<Box<dyn Pass>>,
}

/// How long an attempt has been waiting.
#[derive(Clone, Copy)]
enum Clock {
    NotStarted,
    Since(Timestamp),
    /// In nanoseconds: a `Duration` would make every attempt eight bytes larger.
    Stopped(u64),
}

impl<H: Holder + ?Sized> Attempt<H> {
    /// Counts the attempt in flight at its node.
    #[must_use]
    #[inline]
    pub fn new(holder: Arc<H>) -> Self {
        let is_in_flight = holder.is_counted();
        if is_in_flight {
            holder.enter();
        }
        let marks = Marks::new(holder.node().epoch(), is_in_flight);
        Self { holder: Some(holder), clock: Clock::NotStarted, trial: None, marks }
    }

    /// Whether the attempt may go ahead: its node is open, and no observer refuses it.
    ///
    /// Ask just before the request is sent. A refused attempt has to be dropped.
    #[must_use]
    #[inline]
    pub fn admit(&mut self) -> bool {
        self.node().is_unguarded() || self.node().is_open() && self.admit_guarded(false)
    }

    /// Like [`admit`](Self::admit), for when no node is open. A node that only its
    /// [health](crate::node::Gate::is_of_health) closes is better than none: observers that judge
    /// health are overruled, observers that count are not.
    #[must_use]
    #[cold]
    pub fn admit_failing_open(&mut self) -> bool {
        self.node().is_usable() && self.admit_guarded(true)
    }

    /// If `fails_open`, a refusal counts only if it closes a gate that is not of health.
    #[inline(never)]
    fn admit_guarded(&mut self, fails_open: bool) -> bool {
        let node = self.holder.as_ref().expect("taken only when self is consumed").node();
        let mut passes = Vec::new();
        let mut is_admitted = true;
        for (asked, observer) in (1..).zip(node.observers()) {
            match observer.admit(node) {
                Admission::Free => {}
                Admission::Counted => self.marks.set_counted(asked),
                Admission::Trial(pass) => passes.push(pass),
                Admission::Refused => is_admitted = fails_open && node.is_usable(),
            }
            if !is_admitted {
                break;
            }
        }
        if !is_admitted {
            self.leave();
            return false;
        }
        if !passes.is_empty() {
            self.trial = Some(Arc::new(Trial { passes }));
        }
        true
    }

    /// Tells the observers that count this attempt that it is over.
    #[inline(never)]
    fn leave(&mut self) {
        let counted = usize::from(self.marks.counted());
        self.marks.set_counted(0);
        let node = self.node();
        node.observers().take(counted).for_each(|observer| observer.left(node));
    }

    /// Sets where the fault lies if the attempt fails. Default [`Fault::Server`].
    pub fn blame(&mut self, fault: Fault) {
        self.marks.set_fault(fault);
    }

    /// What keeps the node's service alive.
    #[must_use]
    #[inline]
    pub fn holder(&self) -> &Arc<H> {
        self.holder.as_ref().expect("taken only when self is consumed")
    }

    /// The node that is tried.
    #[must_use]
    #[inline]
    pub fn node(&self) -> &Arc<Node> {
        self.holder().node()
    }

    /// The attempt has to wait. Starts the clock, unless it runs already or its time is not needed.
    #[inline]
    pub fn start_clock(&mut self) {
        if !self.marks.is_waiting() && !self.marks.is_untimed() {
            self.marks.set_waiting(true);
            // Observers of outcomes are also told how long an attempt waited that is cut off.
            if self.node().is_heard() {
                self.clock = Clock::Since(self.holder().now());
            }
        }
    }

    /// Says that the time this attempt takes does not describe the endpoint. It must not have
    /// waited yet.
    ///
    /// A success is then no sample of latency; failures still count. Observers are told a latency
    /// of zero. As a trial it [takes no place](Pass::give_place): its answer may be late by design,
    /// and would keep other requests out for as long.
    #[inline]
    pub fn set_untimed(&mut self) {
        self.marks.set_untimed();
        if self.trial.is_some() {
            self.give_place();
        }
    }

    #[cold]
    fn give_place(&mut self) {
        if let Some(trial) = self.trial.take() {
            let passes = trial.into_passes().filter_map(Pass::give_place).collect::<Vec<_>>();
            if !passes.is_empty() {
                self.trial = Some(Arc::new(Trial { passes }));
            }
        }
        // The trial itself closed the gate.
        self.marks.set_epoch(self.node().epoch());
    }

    /// Says that the endpoint asks for less traffic for `delay`, however the attempt ends. The
    /// delay counts as what its answer costs.
    pub fn record_throttling(&self, delay: Duration) {
        let outcome = Outcome::Throttled(Some(delay));
        self.node().latency().record(outcome, Duration::ZERO, self.holder().now());
    }

    /// Says that the request was not processed, at the endpoint or before it. However the attempt
    /// ends, that counts as load and says nothing of the endpoint's health.
    ///
    /// An endpoint that refuses at once has little in flight and would otherwise draw traffic.
    pub fn turned_away(&self) {
        self.node().penalise();
    }

    /// Stops the clock: the head of the response has arrived. The attempt stays in flight.
    pub fn stop_clock(&mut self) {
        self.marks.set_waiting(false);
        if let Clock::Since(started) = self.clock {
            self.clock = Clock::NotStarted;
            if self.node().is_timed() {
                let took = self.holder().now().since(started);
                self.clock = Clock::Stopped(took.as_nanos() as u64);
            }
        }
    }

    /// Ends its trial, if it is one, with what the head of the response says.
    ///
    /// Call it after [`stop_clock`](Self::stop_clock) if the attempt goes on. A trial that lasts as
    /// long as a download or a stream would keep all other requests out meanwhile. The final
    /// outcome of the attempt then counts like that of any other.
    #[inline]
    pub fn judge_trial(&mut self, known: Outcome) {
        if self.trial.is_some() {
            self.end_trial(known);
        }
    }

    #[cold]
    fn end_trial(&mut self, known: Outcome) {
        let took = match self.clock {
            Clock::Stopped(nanos) => Duration::from_nanos(nanos),
            Clock::NotStarted | Clock::Since(_) => Duration::ZERO,
        };
        let report = Report::new(known, took).fault(self.marks.fault());
        if let Some(trial) = self.trial.take() {
            trial.end(&report);
        }
        // The trial itself closed the gate.
        self.marks.set_epoch(self.node().epoch());
    }

    /// Whether an observer reads what the endpoint reports of its load.
    #[must_use]
    #[inline]
    pub fn wants_report(&self) -> bool {
        self.node().is_reporting()
    }

    /// Passes on what the endpoint has reported of its load, with the head of the response or at
    /// its end.
    pub fn report_load(&self, report: &LoadReport) {
        self.node().report_load(report, self.holder().now());
    }

    /// Ends the attempt with its outcome.
    // Always inline, like everything on the path of each request: otherwise the compiler emits
    // calls if there is more than one kind of holder.
    #[inline(always)]
    pub fn finish(mut self, outcome: Outcome) {
        self.marks.set_waiting(false);
        self.node().record_outcome(outcome);
        if self.node().is_heard() {
            self.report(outcome);
        }
    }

    #[inline(never)]
    fn report(&mut self, outcome: Outcome) {
        let node = self.node();
        let (took, ended) = match self.clock {
            Clock::NotStarted => (Duration::ZERO, None),
            Clock::Stopped(nanos) => (Duration::from_nanos(nanos), None),
            Clock::Since(_) if !node.is_timed() => (Duration::ZERO, None),
            Clock::Since(started) => {
                let now = self.holder().now();
                (now.since(started), Some(now))
            }
        };
        self.report_as(outcome, took, ended);
    }

    fn report_as(&mut self, outcome: Outcome, took: Duration, ended: Option<Timestamp>) {
        let node = self.node();
        let counts = !self.marks.is_untimed() || outcome != Outcome::Success;
        if counts && node.latency().is_measured() {
            let ended = ended.unwrap_or_else(|| self.holder().recently());
            node.latency().record(outcome, took, ended);
        }
        let report = Report::new(outcome, took).fault(self.marks.fault());
        if self.marks.epoch() == node.epoch() {
            node.observers().for_each(|observer| observer.ended(node, &report));
        } else {
            node.observers().for_each(|observer| observer.ended_late(node, &report));
        }
        if let Some(trial) = self.trial.take() {
            trial.end(&report);
        }
    }

    /// The attempt was dropped while it waited for the head of its response: see [`cut`].
    #[cold]
    #[inline(never)]
    fn cut(&mut self) {
        let Clock::Since(started) = self.clock else {
            self.trial = None;
            return self.node().record_unanswered();
        };
        let now = self.holder().now();
        let waited = now.since(started);
        let has_failed = cut::is_failure(waited);
        if !has_failed {
            // Giving a trial back opens its gate, which forgets what is known of the endpoint. So
            // it comes before this wait is noted, or an endpoint that never answers would look
            // unmeasured again.
            self.trial = None;
        }
        let node = self.node();
        node.latency().record_cut(waited, now);
        node.observers().for_each(|observer| observer.cut(node, waited, now));
        if has_failed {
            node.record_outcome(Outcome::Failure);
            self.marks.set_fault(Fault::Local);
            self.report_as(Outcome::Failure, waited, Some(now));
        } else {
            node.record_unanswered();
        }
    }
}

impl Trial {
    fn into_passes(self: Arc<Self>) -> impl Iterator<Item = Box<dyn Pass>> {
        Arc::into_inner(self).expect("it has one owner").passes.into_iter()
    }

    fn end(self: Arc<Self>, report: &Report) {
        self.into_passes().for_each(|pass| pass.ended(report));
    }
}

impl<H: Holder + Send + Sync + 'static> Attempt<H> {
    /// The same attempt, without the type of its holder.
    #[must_use]
    #[inline(always)]
    pub fn erase(mut self) -> Attempt {
        let holder = self.holder.take().map(|holder| holder as Arc<dyn Holder + Send + Sync>);
        Attempt {
            holder,
            clock: self.clock,
            trial: self.trial.take(),
            // The new attempt tells the observers that count.
            marks: self.marks.take(),
        }
    }
}

impl<H: Holder + ?Sized> Drop for Attempt<H> {
    #[inline]
    fn drop(&mut self) {
        if self.marks.is_waiting() {
            self.cut();
        }
        if self.marks.counted() != 0 {
            self.leave();
        }
        if let Some(holder) = &self.holder
            && self.marks.is_in_flight()
        {
            holder.exit();
        }
    }
}

impl<H: Holder + ?Sized> fmt::Debug for Attempt<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt").field("node", &self.holder.as_ref().map(|h| h.node())).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use super::*;
    use crate::{
        endpoint::{Address, Endpoint},
        node::{Access, Gate, Listener},
    };

    struct Held(Arc<Node>, AtomicU64);

    impl Holder for Held {
        fn node(&self) -> &Arc<Node> {
            &self.0
        }
        fn now(&self) -> Timestamp {
            Timestamp::from_nanos(self.1.fetch_add(1_000_000, Relaxed))
        }
        fn recently(&self) -> Timestamp {
            Timestamp::from_nanos(self.1.load(Relaxed))
        }
    }

    struct Deaf;

    impl Listener for Deaf {
        fn opened(&self, _: &Node) {}
        fn closed(&self, _: &Node) {}
        fn unreachable(&self, _: &Node) {}
    }

    fn held() -> Arc<Held> {
        let endpoint = Endpoint::new("10.0.0.1:80".parse::<Address>().unwrap());
        let node = Node::joining(endpoint, Arc::new(Deaf), Some(Duration::from_secs(10)));
        Arc::new(Held(Arc::new(node), AtomicU64::new(1 << 50)))
    }

    #[test]
    fn an_attempt_is_in_flight_until_it_ends_however_it_ends() {
        let held = held();

        let finished = Attempt::new(held.clone());
        let cancelled = Attempt::new(held.clone()).erase();
        assert_eq!(held.0.in_flight(), 2);
        finished.finish(Outcome::Success);
        assert_eq!(held.0.in_flight(), 1);
        drop(cancelled);

        assert_eq!(held.0.in_flight(), 0);
    }

    /// Drops an attempt that has waited for a millisecond.
    fn cut(held: &Arc<Held>) {
        let mut attempt = Attempt::new(held.clone());
        attempt.start_clock();
        drop(attempt.erase());
    }

    #[test]
    fn an_attempt_that_is_cut_off_took_at_least_as_long_as_it_waited() {
        let held = held();
        drop(Attempt::new(held.clone()));
        assert_eq!(held.0.latency().estimate(), None, "it never had to wait");
        assert_eq!(held.0.penalty(), 0);

        cut(&held);
        cut(&held);
        assert_eq!(held.0.latency().estimate(), Some(Duration::from_millis(1)));
        assert_eq!(held.0.penalty(), 1, "no failure: they are not added up");
    }

    #[test]
    fn dropped_long_polls_and_answered_attempts_do_not_count_as_cut_off() {
        let held = held();
        let mut untimed = Attempt::new(held.clone());
        untimed.set_untimed();
        untimed.start_clock();
        drop(untimed);
        let mut answered = Attempt::new(held.clone());
        answered.start_clock();
        answered.stop_clock();
        drop(answered);
        assert_eq!((held.0.latency().estimate(), held.0.penalty()), (None, 0));
    }

    #[test]
    fn an_attempt_that_a_deadline_cuts_off_has_failed_and_one_that_its_caller_drops_has_not() {
        #[derive(Default)]
        struct Ends(std::sync::Mutex<Vec<Report>>);
        impl crate::observe::Observer for Ends {
            fn ended(&self, _: &Node, report: &Report) {
                self.0.lock().unwrap().push(*report);
            }
        }
        let (held, ends) = (held(), Arc::new(Ends::default()));
        held.0.observe(ends.clone());

        cut(&held);
        cut::by_deadline(Duration::from_millis(3), || cut(&held));
        assert_eq!(*ends.0.lock().unwrap(), [], "dropped by its caller, or too early");
        cut::by_deadline(Duration::from_millis(2), || cut(&held));

        let millisecond = Duration::from_millis(1);
        let failed = Report::new(Outcome::Failure, millisecond).fault(Fault::Local);
        assert_eq!(*ends.0.lock().unwrap(), [failed]);
        assert_eq!((held.0.penalty(), held.0.in_flight()), (3, 0));
    }

    /// Lets in one attempt at a time as a trial, and closes the gate meanwhile, as a half-open
    /// breaker does.
    #[derive(Default)]
    struct HalfOpen {
        me: std::sync::Weak<Self>,
        node: std::sync::Weak<Node>,
        told: std::sync::Mutex<Vec<&'static str>>,
    }

    impl HalfOpen {
        fn guard(node: &Arc<Node>) -> Arc<Self> {
            let node_of = Arc::downgrade(node);
            let told = std::sync::Mutex::default();
            let observer = Arc::new_cyclic(|me| Self { me: me.clone(), node: node_of, told });
            node.observe(observer.clone());
            node.open(Gate::Joining);
            node.follow(Gate::Breaker, || Access::Guarded);
            observer
        }

        fn tell(&self, what: &'static str) {
            self.told.lock().unwrap().push(what);
        }

        fn give_back(&self) {
            self.node.upgrade().unwrap().follow(Gate::Breaker, || Access::Guarded);
        }
    }

    impl crate::observe::Observer for HalfOpen {
        fn ended(&self, _: &Node, report: &Report) {
            self.tell(report.outcome.name());
        }
        fn ended_late(&self, _: &Node, _: &Report) {
            self.tell("late");
        }
        fn admit(&self, node: &Node) -> Admission {
            node.follow(Gate::Breaker, || Access::Closed);
            Admission::Trial(Box::new(OneTrial(self.me.upgrade().unwrap())))
        }
    }

    struct OneTrial(Arc<HalfOpen>);

    impl Pass for OneTrial {
        fn ended(self: Box<Self>, _: &Report) {
            self.0.tell("trial ended");
        }
        fn give_place(self: Box<Self>) -> Option<Box<dyn Pass>> {
            self.0.give_back();
            Some(self)
        }
    }

    impl Drop for OneTrial {
        fn drop(&mut self) {
            self.0.give_back();
        }
    }

    #[test]
    fn an_untimed_trial_leaves_its_place_to_others_and_still_reports_its_outcome() {
        let held = held();
        let observer = HalfOpen::guard(&held.0);
        let mut poll = Attempt::new(held.clone());
        assert!(poll.admit());
        assert!(!held.0.is_open());

        poll.set_untimed();
        assert!(held.0.is_open(), "others may go ahead");
        poll.start_clock();
        poll.finish(Outcome::Failure);

        assert_eq!(*observer.told.lock().unwrap(), ["failure", "trial ended"]);
    }

    #[test]
    fn the_time_that_a_dropped_trial_waited_is_recorded_after_its_place_is_free() {
        let held = held();
        let observer = HalfOpen::guard(&held.0);
        let mut trial = Attempt::new(held.clone());
        assert!(trial.admit());
        trial.start_clock();

        drop(trial);

        assert!(held.0.is_open(), "opening forgets what was known before");
        assert_eq!(held.0.latency().estimate(), Some(Duration::from_millis(1)));
        assert_eq!(held.0.penalty(), 1);
        assert_eq!(observer.told.lock().unwrap().len(), 0);
    }

    #[test]
    fn an_untimed_success_gives_no_latency_sample_and_an_untimed_failure_does() {
        let held = held();
        let untimed = || {
            let mut attempt = Attempt::new(held.clone());
            attempt.set_untimed();
            attempt.start_clock();
            attempt.stop_clock();
            attempt
        };
        untimed().finish(Outcome::Success);
        assert_eq!(held.0.latency().estimate(), None);
        let mut timed = Attempt::new(held.clone());
        timed.start_clock();
        timed.finish(Outcome::Success);
        let before = held.0.latency().estimate();
        untimed().erase().finish(Outcome::Success);
        assert_eq!(held.0.latency().estimate(), before);
        untimed().finish(Outcome::Failure);
        assert!(before < held.0.latency().estimate());
    }

    #[test]
    fn a_throttled_answer_costs_its_delay_however_the_attempt_ends() {
        let held = held();
        let attempt = Attempt::new(held.clone());
        attempt.record_throttling(Duration::from_secs(30));
        attempt.finish(Outcome::Failure);
        assert!(29e9 < held.0.latency().cost(0, held.now()));
    }

    #[test]
    fn an_attempt_that_is_turned_away_counts_as_load_and_gives_no_latency_sample() {
        let held = held();
        let attempt = Attempt::new(held.clone());
        attempt.turned_away();
        attempt.finish(Outcome::Ignored);
        assert_eq!((held.0.penalty(), held.0.latency().estimate()), (1, None));
    }

    #[test]
    fn latency_ends_with_the_head_of_the_response() {
        let held = held();
        let mut attempt = Attempt::new(held.clone());
        attempt.start_clock();
        attempt.stop_clock();
        for _ in 0..100 {
            held.now();
        }
        attempt.finish(Outcome::Success);
        assert_eq!(held.0.latency().estimate(), Some(Duration::from_millis(1)));
    }
}
