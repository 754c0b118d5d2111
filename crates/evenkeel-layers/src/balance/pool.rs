//! The background task: follows discovery, connects and drops nodes, publishes snapshots.

use std::{
    collections::HashSet,
    panic::{AssertUnwindSafe, resume_unwind},
    sync::Arc,
};

use evenkeel_core::{
    BoxError,
    connect::Connect,
    discover::{Discovery, Update, Watch},
    endpoint::{Address, Endpoint},
    error::SharedError,
    node::{Gate, Node},
    policy::Policy,
};
use futures_util::{FutureExt, StreamExt};

use super::{
    repair::Repairs,
    running::Running,
    settings::Settings,
    shared::{Shared, Slot, Snapshot},
};

/// The target of what is traced.
const TARGET: &str = "evenkeel::balance";

/// The most updates that are applied before a snapshot is published.
const MAX_BATCH: usize = 1_024;

/// Why a batch of updates is over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Batch {
    /// There are no more updates for now.
    Drained,
    /// It has reached its maximum length.
    Cut,
    /// No more updates will come.
    Ended,
}

/// The nodes of one balancer, and what keeps them up to date.
pub(super) struct Pool<C: Connect> {
    discovery: Arc<dyn Discovery>,
    policy: Arc<dyn Policy>,
    connect: Arc<C>,
    shared: Arc<Shared<C::Service>>,
    running: Running,
    /// In the order in which discovery names them.
    slots: Vec<Arc<Slot<C::Service>>>,
    /// Left the set since the last snapshot.
    retired: Vec<Arc<Slot<C::Service>>>,
    /// Joined the set since the last snapshot.
    joining: Vec<Arc<Node>>,
    /// Got a new service since the last snapshot.
    repaired: Vec<Arc<Node>>,
    /// The snapshot before the current one.
    previous: Option<Arc<Snapshot<C::Service>>>,
    repairs: Repairs,
    is_changed: bool,
    has_panicked: bool,
}

impl<C> Pool<C>
where
    C: Connect + Send + Sync + 'static,
    C::Service: Send + Sync + 'static,
{
    pub(super) fn new(
        settings: &Settings,
        connect: &Arc<C>,
        shared: &Arc<Shared<C::Service>>,
        running: Running,
    ) -> Self {
        retire_all(shared, &*settings.policy);
        Self {
            discovery: settings.discovery.clone(),
            policy: settings.policy.clone(),
            connect: connect.clone(),
            repairs: Repairs::new(shared.rng()),
            shared: shared.clone(),
            running,
            slots: Vec::new(),
            retired: Vec::new(),
            joining: Vec::new(),
            previous: None,
            repaired: Vec::new(),
            is_changed: false,
            has_panicked: false,
        }
    }

    /// Runs until it is aborted.
    pub(super) async fn run(mut self) {
        if let Err(panic) = AssertUnwindSafe(self.follow()).catch_unwind().await {
            // The panic is in the user's code. Started again it would only panic again. No node can
            // be repaired any more: requests are refused at their deadline.
            self.has_panicked = true;
            let left = self.shared.snapshots.current();
            left.nodes.iter().for_each(|node| _ = node.close(Gate::Retired));
            resume_unwind(panic);
        }
    }

    async fn follow(&mut self) {
        let mut watch = self.discovery.watch();
        let mut batch = Batch::Drained;
        let signals = self.shared.signals.clone();
        loop {
            tokio::select! {
                // In this order, so that a run can be repeated, and so that what ends soon comes
                // first.
                biased;
                () = signals.attention.notified() => {
                    signals.pulse.beat();
                    if signals.take_unreachable() {
                        self.discovery.refresh();
                    }
                    self.schedule_repairs();
                }
                () = self.repairs.due() => self.repair(),
                update = watch.next(), if batch != Batch::Ended => {
                    batch = self.apply_batch(update, &mut watch);
                }
            }
            if !self.running.is_current() {
                // Another task manages the nodes by now; this one is about to be dropped.
                return std::future::pending().await;
            }
            self.publish();
            if batch == Batch::Cut {
                // A stream that always has news must leave room for other tasks.
                tokio::task::yield_now().await;
            }
        }
    }

    /// Applies the updates that are available.
    fn apply_batch(&mut self, first: Option<Result<Update, BoxError>>, watch: &mut Watch) -> Batch {
        let mut next = Some(first);
        let mut applied = 0;
        while let Some(update) = next {
            match update {
                Some(Ok(update)) => self.apply(update),
                Some(Err(error)) => self.note_discovery(Some(error)),
                None => {
                    tracing::debug!(target: TARGET, client = self.shared.client.name(), "discovery ended; its last endpoints stay");
                    return Batch::Ended;
                }
            }
            applied += 1;
            if applied == MAX_BATCH {
                return Batch::Cut;
            }
            next = watch.next().now_or_never();
        }
        Batch::Drained
    }

    fn apply(&mut self, update: Update) {
        self.note_discovery(None);
        match update {
            Update::Set(endpoints) => self.replace(endpoints),
            Update::Insert(endpoint) => self.insert(endpoint),
            Update::Remove(address) => self.remove(&address),
            _ => {
                tracing::warn!(target: TARGET, client = self.shared.client.name(), "an update of an unknown kind was passed over");
            }
        }
    }

    /// Keeps the last error of discovery for requests that are refused, and logs when it comes and
    /// goes.
    fn note_discovery(&self, error: Option<BoxError>) {
        if error.is_some() {
            evenkeel_metrics::count_discovery_failure(&self.shared.client);
        }
        let error = error.map(SharedError::new);
        let mut known = self.shared.discovery_error.lock().expect("no panic under the lock");
        let before = std::mem::replace(&mut *known, error.clone());
        drop(known);
        match (before, error) {
            (None, Some(error)) => {
                tracing::warn!(target: TARGET, client = self.shared.client.name(), %error, "discovery fails; its last endpoints stay");
            }
            (Some(_), None) => {
                tracing::info!(target: TARGET, client = self.shared.client.name(), "discovery works again");
            }
            _ => {}
        }
    }

    fn replace(&mut self, endpoints: Vec<Endpoint>) {
        let before = std::mem::take(&mut self.slots);
        let mut left: HashSet<u64> = before.iter().map(|slot| slot.node.id()).collect();
        for endpoint in endpoints {
            match self.slot_at(&endpoint.address) {
                Some(slot) => {
                    self.update(&slot.node, endpoint);
                    // An endpoint named twice in one set is already there.
                    if left.remove(&slot.node.id()) {
                        self.slots.push(slot);
                    }
                }
                None => self.join(endpoint),
            }
        }
        self.is_changed |= before.len() != self.slots.len()
            || before.iter().zip(&self.slots).any(|(old, new)| !Arc::ptr_eq(old, new));
        for slot in before {
            if left.contains(&slot.node.id()) {
                self.retire(slot);
            }
        }
    }

    fn insert(&mut self, endpoint: Endpoint) {
        match self.slot_at(&endpoint.address) {
            Some(slot) => self.update(&slot.node, endpoint),
            None => self.join(endpoint),
        }
    }

    fn remove(&mut self, address: &Address) {
        if let Some(slot) = self.slot_at(address) {
            self.slots.retain(|other| !Arc::ptr_eq(other, &slot));
            self.retire(slot);
        }
    }

    fn slot_at(&self, address: &Address) -> Option<Arc<Slot<C::Service>>> {
        let by_address = self.shared.by_address.read().expect("no panic under the lock");
        by_address.get(address)?.upgrade()
    }

    /// Takes over what is new about an endpoint. An unchanged endpoint is not touched.
    fn update(&mut self, node: &Node, endpoint: Endpoint) {
        if *node.endpoint() != endpoint {
            tracing::debug!(target: TARGET, client = self.shared.client.name(), endpoint = %endpoint.address, weight = endpoint.weight, "endpoint changed");
            node.update(endpoint);
            self.is_changed = true;
        }
    }

    fn join(&mut self, endpoint: Endpoint) {
        tracing::debug!(target: TARGET, client = self.shared.client.name(), endpoint = %endpoint.address, weight = endpoint.weight, "endpoint joined");
        let listener = self.shared.signals.clone();
        let node = Arc::new(Node::joining(endpoint, listener, self.policy.latency_decay()));
        self.joining.push(node.clone());
        let slot = self.connect(node);
        self.slots.push(slot);
        self.is_changed = true;
    }

    /// Makes a slot for `node` with a new service, and registers it by its address.
    fn connect(&self, node: Arc<Node>) -> Arc<Slot<C::Service>> {
        // What is made for an endpoint names the client too.
        let service = self.shared.client.scope(|| self.connect.connect(&node));
        let slot = Arc::new(Slot { node, service, shared: self.shared.clone() });
        let mut by_address = self.shared.by_address.write().expect("no panic under the lock");
        // If another pool has taken over from this one, nothing uses the nodes it makes.
        if self.running.is_current() {
            by_address.insert(slot.node.address().clone(), Arc::downgrade(&slot));
        }
        slot
    }

    fn retire(&mut self, slot: Arc<Slot<C::Service>>) {
        tracing::debug!(target: TARGET, client = self.shared.client.name(), endpoint = %slot.node.address(), "endpoint left");
        let mut by_address = self.shared.by_address.write().expect("no panic under the lock");
        // After a takeover the address may lead to the slot of another pool.
        let known = by_address.get(slot.node.address());
        if known.is_some_and(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(&slot))) {
            by_address.remove(slot.node.address());
        }
        drop(by_address);
        self.repairs.forget(slot.node.id());
        if slot.node.is_closed_by(Gate::Joining) {
            // A node that came and went within one batch must not open for a moment.
            slot.node.close(Gate::Retired);
        }
        self.retired.push(slot);
        self.is_changed = true;
    }

    fn schedule_repairs(&mut self) {
        for slot in &self.slots {
            if slot.node.is_closed_by(Gate::Broken) {
                self.repairs.schedule(slot.node.id());
            }
        }
    }

    /// Makes the services again for which it is time. Their nodes keep what was learnt.
    fn repair(&mut self) {
        let due = self.repairs.take_due();
        for index in 0..self.slots.len() {
            let node = self.slots[index].node.clone();
            if due.contains(&node.id()) {
                tracing::debug!(target: TARGET, client = self.shared.client.name(), endpoint = %node.address(), "endpoint connected again after its service failed");
                self.slots[index] = self.connect(node.clone());
                self.repaired.push(node);
                self.is_changed = true;
            }
        }
    }

    /// Shows requests what has changed, all of it at once.
    fn publish(&mut self) {
        if !std::mem::take(&mut self.is_changed) {
            return;
        }
        let nodes: Box<[_]> = self.slots.iter().map(|slot| slot.node.clone()).collect();
        let slots = self.slots.iter().map(Arc::downgrade).collect();
        let previous = self.shared.snapshots.current();
        let picker = self.policy.build(&nodes, Some(&*previous.picker));
        let change = nodes.len() as isize - previous.nodes.len() as isize;
        // Kept until the next change: a large snapshot takes milliseconds to drop, and the last
        // clone that still reads it would do so inside a request.
        self.previous = Some(previous);

        // A node opens only when a request can find it: callers that saw it open look for it.
        // Joining nodes open before leaving nodes close, so there is no moment without any.
        let snapshot = Snapshot { nodes, slots, picker };
        if !self.shared.snapshots.publish_if(snapshot, || self.running.is_current()) {
            // Another task has started while the picker was built, and has closed this pool's
            // nodes.
            return;
        }
        evenkeel_metrics::count_snapshot(&self.shared.client, change);
        self.joining.drain(..).for_each(|node| _ = node.open(Gate::Joining));
        self.repaired.drain(..).for_each(|node| _ = node.open(Gate::Broken));
        self.retired.drain(..).for_each(|slot| _ = slot.node.close(Gate::Retired));
        self.shared.signals.changed.notify_waiters();
        self.shared.signals.probes.notify_one();
    }
}

/// Cleans up after a pool whose runtime has ended.
fn retire_all<S>(shared: &Shared<S>, policy: &dyn Policy) {
    // A request that outlives its runtime keeps its slot, which must not be taken for one of the
    // new set.
    shared.by_address.write().expect("no panic under the lock").clear();
    let left = shared.snapshots.current();
    if !left.nodes.is_empty() {
        left.nodes.iter().for_each(|node| _ = node.close(Gate::Retired));
        let picker = policy.build(&[], Some(&*left.picker));
        let empty = Snapshot { nodes: Box::default(), slots: Box::default(), picker };
        shared.snapshots.publish(empty);
    }
}

impl<C: Connect> Drop for Pool<C> {
    fn drop(&mut self) {
        if !self.running.is_current() {
            // Another pool has taken over, and has counted what was left.
            return;
        }
        let left = self.shared.snapshots.current().nodes.len();
        evenkeel_metrics::add_endpoints(&self.shared.client, -(left as isize));
        if !self.has_panicked {
            self.running.end();
        }
    }
}
