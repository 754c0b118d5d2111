//! One breaker and the gate that follows it.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, Weak},
    time::Duration,
};

use evenkeel_core::{
    endpoint::Address,
    health::{
        Judge,
        breaker::{self, Breaker, BreakerRules, State, Trial},
    },
    node::{Access, Gate, Node},
    observe::{Admission, Observer, Report},
    rng::Rng,
    time::Timestamp,
};
use evenkeel_metrics::Client;
use tokio::{
    runtime::Handle,
    sync::watch,
    task::AbortHandle,
    time::{Instant, sleep_until},
};

use crate::{alone::Doorkeeper, clock, weak_list::WeakList};

/// All breakers of a layer and its clones.
#[derive(Clone)]
pub struct Breakers(Arc<Known>);

struct Known {
    rng: Mutex<Rng>,
    breakers: WeakList<Monitor>,
}

impl Breakers {
    pub(super) fn new() -> Self {
        let rng = Mutex::new(Rng::from_entropy());
        Self(Arc::new(Known { rng, breakers: WeakList::default() }))
    }

    pub(super) fn seed(&self, seed: u64) {
        *self.rng() = Rng::with_seed(seed);
    }

    /// The breakers in use now, the oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<BreakerHandle> {
        self.0.breakers.living().into_iter().map(BreakerHandle).collect()
    }

    /// Forgets a breaker that will not be used after all.
    pub(super) fn forget(&self, monitor: &Arc<Monitor>) {
        self.0.breakers.remove(monitor);
    }

    fn rng(&self) -> MutexGuard<'_, Rng> {
        self.0.rng.lock().expect("no panic under the lock")
    }
}

impl fmt::Debug for Breakers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.list()).finish()
    }
}

/// One breaker. It can be read, watched and held by hand.
#[derive(Clone)]
pub struct BreakerHandle(Arc<Monitor>);

impl BreakerHandle {
    /// The endpoint's address; `None` where the breaker stands alone.
    #[must_use]
    pub fn address(&self) -> Option<&Address> {
        self.0.address.as_ref()
    }

    /// What it does with calls.
    ///
    /// Alone, a breaker becomes half open with the first call after its time, not by itself.
    #[must_use]
    pub fn state(&self) -> State {
        self.0.breaker.state()
    }

    /// Every change of the state from now on. A slow watcher sees only the last one.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<State> {
        self.0.states.subscribe()
    }

    /// Refuses all calls until it is [reset](Self::reset) or held closed.
    pub fn hold_open(&self) {
        self.0.breaker.hold_open();
        self.0.changed("held open by hand");
    }

    /// Lets all calls through, whatever their outcome, until it is [reset](Self::reset) or held
    /// open.
    pub fn hold_closed(&self) {
        self.0.breaker.hold_closed();
        self.0.changed("held closed by hand");
    }

    /// Closes it and forgets all it has counted.
    pub fn reset(&self) {
        self.0.breaker.reset();
        self.0.changed("reset by hand");
    }
}

impl fmt::Debug for BreakerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BreakerHandle")
            .field("address", &self.0.address)
            .field("state", &self.state())
            .finish()
    }
}

/// One breaker, and the node whose gate follows it.
pub(super) struct Monitor {
    pub(super) breaker: Breaker,
    me: Weak<Self>,
    node: Weak<Node>,
    address: Option<Address>,
    breakers: Breakers,
    states: watch::Sender<State>,
    /// The runtime of the timer that lets a trial in. `None` where the breaker stands alone.
    runtime: Option<Handle>,
    /// When the last timer fires, and the timer.
    timer: Mutex<Option<(Timestamp, AbortHandle)>>,
    pub(super) client: Client,
}

impl Monitor {
    /// The breaker of a service that stands alone. Its `node` is made up.
    pub(super) fn alone(rules: BreakerRules, breakers: &Breakers, node: &Arc<Node>) -> Arc<Self> {
        Self::new(rules, breakers, node, None, None)
    }

    /// Gives an endpoint a breaker. If made outside a runtime it never opens, since nothing would
    /// close it.
    pub(super) fn observe(rules: BreakerRules, breakers: &Breakers, node: &Arc<Node>) {
        let runtime = Handle::try_current().ok();
        let monitor =
            Self::new(rules, breakers, node, Some(node.address().clone()), runtime.clone());
        if runtime.is_none() {
            tracing::warn!(target: "evenkeel::breaker", client = monitor.client.name(), endpoint = %node.address(), "no runtime: its circuit breaker stays closed");
            monitor.breaker.hold_closed();
        }
        node.observe(monitor);
    }

    fn new(
        rules: BreakerRules,
        breakers: &Breakers,
        node: &Arc<Node>,
        address: Option<Address>,
        runtime: Option<Handle>,
    ) -> Arc<Self> {
        let rng = breakers.rng().fork();
        // Not under the lock: it panics if a rule makes no sense.
        let breaker = Breaker::new(rules, rng);
        let monitor = Arc::new_cyclic(|me: &Weak<Self>| Self {
            breaker,
            me: me.clone(),
            node: Arc::downgrade(node),
            address,
            breakers: breakers.clone(),
            states: watch::Sender::new(State::Closed),
            runtime,
            timer: Mutex::default(),
            client: Client::current(),
        });
        breakers.0.breakers.add(&monitor);
        monitor
    }

    /// Whether this breaker belongs to the layer that has `breakers`.
    pub(super) fn is_one_of(&self, breakers: &Breakers) -> bool {
        Arc::ptr_eq(&self.breakers.0, &breakers.0)
    }

    /// Lets a trial in if it is time, or opens again if a trial has had no answer.
    pub(super) fn try_again(&self) {
        if self.breaker.look_after(clock::now()) {
            self.changed("its time is over");
        } else {
            self.start_timer();
        }
    }

    /// Updates the gate and the watchers to the breaker's state.
    fn changed(&self, why: &'static str) {
        if let Some(node) = self.node.upgrade() {
            node.follow(Gate::Breaker, || self.breaker.access());
        }
        let state = self.breaker.state();
        let is_new = self.states.send_if_modified(|known| std::mem::replace(known, state) != state);
        if is_new {
            evenkeel_metrics::count_breaker_transition(&self.client, state.name());
            let client = self.client.name();
            let endpoint = self.address.as_ref().map(tracing::field::display);
            let state = state.name();
            tracing::info!(target: "evenkeel::breaker", client, endpoint, state, why, "circuit breaker");
        }
        self.start_timer();
    }

    /// Starts one timer for each time the breaker opens and for each trial. It ends when it has
    /// fired.
    fn start_timer(&self) {
        let (Some(runtime), Some(until)) = (&self.runtime, self.breaker.due()) else {
            return;
        };
        let mut timer = self.timer.lock().expect("no panic under the lock");
        if timer.as_ref().is_some_and(|(due, _)| *due == until) {
            return;
        }
        let due = clock::after(until.since(clock::now()));
        let started = runtime.spawn(wake(self.me.clone(), due)).abort_handle();
        if let Some((_, before)) = timer.replace((until, started)) {
            before.abort();
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let timer = self.timer.get_mut().expect("no panic under the lock").take();
        if let Some((_, timer)) = timer {
            timer.abort();
        }
    }
}

/// Holds nothing while it sleeps: a node that leaves drops its breaker, and that drops its timer.
async fn wake(monitor: Weak<Monitor>, due: Instant) {
    sleep_until(due).await;
    if let Some(monitor) = monitor.upgrade() {
        monitor.try_again();
    }
}

impl Observer for Monitor {
    fn ended(&self, _: &Node, report: &Report) {
        if self.breaker.record(report.outcome, report.latency, clock::now) {
            self.changed("too many calls failed or were slow");
        }
    }

    fn admit(&self, node: &Node) -> Admission {
        // Called for each request where another gate is guarded, so this reads no clock.
        if self.breaker.access() == Access::Open {
            return Admission::Free;
        }
        let admission = self.breaker.admit(clock::now());
        if !matches!(admission, breaker::BreakerAdmission::Free) {
            node.follow(Gate::Breaker, || self.breaker.access());
        }
        if matches!(admission, breaker::BreakerAdmission::Trial(_)) {
            self.start_timer();
        }
        admission.for_attempt(&self.me)
    }

    fn is_timing(&self) -> bool {
        self.breaker.rules().slow_calls.is_some()
    }
}

impl Judge for Monitor {
    type Trial = Trial;

    fn finish_trial(&self, trial: Trial, report: &Report) {
        self.breaker.finish_trial(trial, report.outcome, report.latency, clock::now());
        self.changed("a trial has ended");
    }

    fn give_place(&self, trial: &mut Trial) {
        self.breaker.give_place(trial);
        self.changed("a trial may take long");
    }

    fn cancel_trial(&self, trial: Trial) {
        self.breaker.cancel_trial(trial);
        self.changed("a trial was cancelled");
    }
}

impl Doorkeeper for Monitor {}

/// The `retry_after` of an open breaker.
pub(super) fn retry_after(breaker: &Breaker) -> Option<Duration> {
    breaker.opens_until().map(|until| until.since(clock::now()))
}
