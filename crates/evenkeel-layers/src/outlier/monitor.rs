//! What observes the nodes of one set, and the task that sweeps.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, Weak},
};

use evenkeel_core::{
    endpoint::Address,
    health::{
        Judge,
        outlier::{self, Cause, Change, Host, Outlier, OutlierRules, Trial},
    },
    node::{Access, Gate, Node},
    observe::{Admission, Observer, Report},
    rng::Rng,
    time::Timestamp,
};
use evenkeel_metrics::Client;
use tokio::{
    runtime::Handle,
    sync::Notify,
    time::{Instant, sleep_until},
};

use crate::{
    background::{self, Task},
    clock,
    observers::observers_of,
    weak_list::WeakList,
};

/// The endpoints ejected now, over all that a layer and its clones have made.
#[derive(Clone, Default)]
pub struct Ejected(Arc<WeakList<Watch>>);

impl Ejected {
    /// The endpoints that are ejected, and why.
    #[must_use]
    pub fn list(&self) -> Vec<(Address, Cause)> {
        let watches = self.0.living();
        let ejected = watches.iter().flat_map(|watch| watch.outlier.ejected());
        ejected.map(|(address, cause, _)| (address, cause)).collect()
    }

    /// Reports that a health check of this endpoint has passed. That ends its ejection, or the
    /// probation after it, unless the rules say otherwise.
    pub fn passed_check(&self, address: &Address) {
        for watch in self.0.living() {
            watch.tell(watch.outlier.passed_check(address, clock::now()));
        }
    }

    pub(super) fn add(&self, watch: &Arc<Watch>) {
        self.0.add(watch);
    }
}

impl fmt::Debug for Ejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.list()).finish()
    }
}

/// Tells the outlier monitors of `node` that enough of its health checks have passed.
pub(crate) fn passed_check(node: &Node) {
    for monitor in observers_of::<Monitor>(node) {
        let Monitor { watch, address, .. } = &*monitor;
        watch.tell(watch.outlier.passed_check(address, clock::now()));
    }
}

/// Observes the nodes of one set. Its task ends with the `Connect`, or with the last node.
pub(super) struct Watch {
    outlier: Outlier,
    /// Something may have to be done before the planned sweep.
    attention: Arc<Notify>,
    sweeper: Mutex<Option<Task>>,
    client: Client,
}

impl Watch {
    pub(super) fn new(rules: OutlierRules, seed: Option<u64>) -> Arc<Self> {
        let rng = seed.map_or_else(Rng::from_entropy, Rng::with_seed);
        Arc::new(Self {
            outlier: Outlier::new(rules, rng),
            attention: Arc::default(),
            sweeper: Mutex::default(),
            client: Client::current(),
        })
    }

    /// Observes `node`, once: a service that is made again changes nothing.
    pub(super) fn add(self: &Arc<Self>, node: &Arc<Node>) {
        if observers_of::<Monitor>(node).any(|known| Arc::ptr_eq(&known.watch, self)) {
            return;
        }
        let Ok(runtime) = Handle::try_current() else {
            // If it were ejected, it would never come back.
            tracing::warn!(target: "evenkeel::outlier", client = self.client.name(), endpoint = %node.address(), "no runtime: it is not watched for outliers");
            return;
        };
        let host = self.outlier.join(node, clock::now());
        node.observe(Arc::new_cyclic(|me| Monitor {
            me: me.clone(),
            node: Arc::downgrade(node),
            watch: self.clone(),
            host: host.clone(),
            address: node.address().clone(),
        }));
        if !matches!(host.access(), Access::Open) {
            // It was ejected when it left, and may be needed now. Other nodes change nothing here.
            self.attention.notify_one();
        }
        self.start(&runtime);
    }

    /// Starts the task that sweeps. Starts it again if it has ended for lack of nodes or of a
    /// runtime, or if its runtime may rest.
    fn start(self: &Arc<Self>, runtime: &Handle) {
        background::start(&mut self.sweeper(), runtime, || {
            sweep(Arc::downgrade(self), self.attention.clone())
        });
    }

    /// Ends the task: no requests are sent to the nodes any more, though some of them may be kept.
    pub(super) fn stop(&self) {
        if let Some(sweeper) = self.sweeper().take() {
            sweeper.abort();
        }
    }

    /// Sweeps, and returns when the next sweep is due. `None` if there are no more nodes.
    fn sweep(&self) -> Option<Instant> {
        let now = clock::now();
        self.tell(self.outlier.sweep(now));
        // Under the lock, so that a node that joins meanwhile starts another task.
        let mut sweeper = self.sweeper();
        match self.outlier.due() {
            Some(due) => Some(clock::after(due.since(now))),
            None => {
                *sweeper = None;
                None
            }
        }
    }

    fn sweeper(&self) -> MutexGuard<'_, Option<Task>> {
        self.sweeper.lock().expect("no panic under the lock")
    }

    fn eject(&self, address: &Address, cause: Cause, now: Timestamp) {
        let changes = self.outlier.eject(address, cause, now);
        if !changes.is_empty() {
            // It may have to come back before the planned sweep.
            self.attention.notify_one();
        }
        self.tell(changes);
    }

    fn tell(&self, changes: Vec<Change>) {
        let client = self.client.name();
        for change in changes {
            match change {
                Change::Ejected(endpoint, cause, _) => {
                    let cause = cause.name();
                    evenkeel_metrics::count_ejection(&self.client, cause);
                    tracing::info!(target: "evenkeel::outlier", client, %endpoint, cause, "endpoint ejected");
                }
                Change::OnProbation(endpoint) => {
                    tracing::info!(target: "evenkeel::outlier", client, %endpoint, "endpoint on probation");
                }
                Change::Returned(endpoint) => {
                    evenkeel_metrics::count_return(&self.client);
                    tracing::info!(target: "evenkeel::outlier", client, %endpoint, "ejection over");
                }
                _ => {}
            }
        }
    }
}

/// Sweeps when it is time or something has changed, until there are no more nodes.
async fn sweep(watch: Weak<Watch>, attention: Arc<Notify>) {
    loop {
        let Some(due) = watch.upgrade().and_then(|watch| watch.sweep()) else { return };
        tokio::select! {
            () = sleep_until(due) => {}
            () = attention.notified() => {}
        }
    }
}

/// Observes one node.
struct Monitor {
    me: Weak<Self>,
    node: Weak<Node>,
    watch: Arc<Watch>,
    host: Arc<Host>,
    address: Address,
}

impl Monitor {
    fn follow(&self) {
        if let Some(node) = self.node.upgrade() {
            node.follow(Gate::Ejected, || self.host.access());
        }
    }
}

impl Observer for Monitor {
    fn ended(&self, _: &Node, report: &Report) {
        if let Some(cause) = self.watch.outlier.record(&self.host, report) {
            self.watch.eject(&self.address, cause, clock::now());
        }
    }

    fn admit(&self, _: &Node) -> Admission {
        // Called for each request where another gate is guarded, so this reads no clock.
        if self.host.access() == Access::Open {
            return Admission::Free;
        }
        let admission = self.watch.outlier.admit(&self.address, &self.host, clock::now());
        if !matches!(admission, outlier::OutlierAdmission::Free) {
            self.follow();
        }
        if matches!(admission, outlier::OutlierAdmission::Trial(_)) {
            // Its time may be over before the planned sweep.
            self.watch.attention.notify_one();
        }
        admission.for_attempt(&self.me)
    }

    fn closed(&self, _: &Node) {
        // Ejected endpoints may be needed now.
        self.watch.attention.notify_one();
    }

    fn is_timing(&self) -> bool {
        self.watch.outlier.rules().latency.is_some()
    }
}

impl Judge for Monitor {
    type Trial = Trial;

    fn finish_trial(&self, trial: Trial, report: &Report) {
        let Self { watch, address, .. } = self;
        let changes = watch.outlier.finish_trial(trial, address, report.outcome, clock::now());
        self.follow();
        watch.attention.notify_one();
        watch.tell(changes);
    }

    fn give_place(&self, trial: &mut Trial) {
        self.watch.outlier.give_place(trial, &self.address);
        self.follow();
    }

    fn cancel_trial(&self, trial: Trial) {
        self.watch.outlier.cancel_trial(trial, &self.address);
        self.follow();
    }
}
