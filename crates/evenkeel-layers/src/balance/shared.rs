//! What all clones of a balancer share: the snapshot of the nodes, and news about them.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, OnceLock, RwLock, Weak,
        atomic::{AtomicBool, AtomicIsize, AtomicU64, Ordering},
    },
    time::Duration,
};

use evenkeel_core::{
    BoxError,
    attempt::Holder,
    endpoint::Address,
    error::{AllEndpointsClosed, NoEndpoints, SharedError},
    node::{Listener, Node},
    policy::{PickContext, Picker},
    rng::{Rng, Seeds},
    snapshot::Publisher,
    time::Timestamp,
    traffic::{Hints, Tried},
    why::{Recorder, Why},
};
use evenkeel_metrics::Client;
use tokio::sync::Notify;

use super::{
    running::{Own, Pulse},
    settings::{AskFirst, Settings},
};
use crate::clock;

/// What the clones of one balancer share.
pub(super) struct Shared<S> {
    pub(super) snapshots: Publisher<Snapshot<S>>,
    pub(super) signals: Arc<Signals>,
    /// The slot of each address, for requests that name a preferred endpoint.
    pub(super) by_address: RwLock<HashMap<Address, Weak<Slot<S>>>>,
    pub(super) discovery_error: Mutex<Option<SharedError>>,
    pub(super) max_wait: Duration,
    fail_open: bool,
    pub(super) ask_first: Option<AskFirst>,
    /// Whether the policy has to know the time.
    reads_time: bool,
    pub(super) policy: &'static str,
    pub(super) client: Client,
    /// What the clones own together. Discovery is followed as long as it lives.
    owner: OnceLock<Weak<dyn Own>>,
    seeds: Seeds,
    /// The last reading of the clock, for uses where a few milliseconds do not matter.
    recently: AtomicU64,
}

/// The nodes as requests see them, with the picker that was built for them.
///
/// Services are held weakly, so an idle clone with an old snapshot keeps no connection open.
pub(super) struct Snapshot<S> {
    pub(super) nodes: Box<[Arc<Node>]>,
    pub(super) slots: Box<[Weak<Slot<S>>]>,
    pub(super) picker: Box<dyn Picker>,
}

/// A node and the service that speaks to it. It lives while discovery names it or a request uses
/// it.
// In cache lines of its own: each request is counted here, and slots are allocated one after
// another.
#[repr(align(64))]
pub(super) struct Slot<S> {
    pub(super) node: Arc<Node>,
    pub(super) service: S,
    pub(super) shared: Arc<Shared<S>>,
}

/// News about the nodes of one balancer.
#[derive(Default)]
pub(super) struct Signals {
    open: AtomicIsize,
    /// A node opened or closed, or a snapshot was published.
    pub(super) changed: Notify,
    /// The pool has work to do.
    pub(super) attention: Notify,
    /// Probes are to be sent.
    pub(super) probes: Notify,
    unreachable: AtomicBool,
    /// Whether the background task is driven.
    pub(super) pulse: Pulse,
}

impl<S> Shared<S> {
    pub(super) fn new(picker: Box<dyn Picker>, settings: &Settings) -> Self {
        let empty = Snapshot { nodes: Box::default(), slots: Box::default(), picker };
        Self {
            snapshots: Publisher::new(empty),
            signals: Arc::default(),
            by_address: RwLock::default(),
            discovery_error: Mutex::default(),
            max_wait: settings.max_wait,
            fail_open: settings.fail_open,
            ask_first: settings.ask_first.clone(),
            reads_time: settings.policy.reads_time(),
            policy: settings.policy.name(),
            client: Client::current(),
            owner: OnceLock::new(),
            seeds: settings.seed.map_or_else(Seeds::from_entropy, Seeds::new),
            recently: AtomicU64::new(0),
        }
    }

    /// Sets the `owner`, once.
    pub(super) fn set_owner(&self, owner: Weak<dyn Own>) {
        assert!(self.owner.set(owner).is_ok(), "one balancer, one owner");
    }

    /// Keeps discovery followed for a request that looks for another endpoint, even if the last
    /// clone is dropped meanwhile. `None` if it was dropped before.
    pub(super) fn owner(&self) -> Option<Arc<dyn Own>> {
        self.owner.get()?.upgrade()
    }

    /// A generator whose numbers differ from those of earlier generators.
    pub(super) fn rng(&self) -> Rng {
        self.seeds.rng()
    }

    #[inline]
    pub(super) fn recently(&self) -> Timestamp {
        Timestamp::from_nanos(self.recently.load(Ordering::Relaxed))
    }

    fn now(&self) -> Timestamp {
        const MILLISECOND_BITS: u32 = 20;
        let now = clock::now();
        // Written once a millisecond, so that the cache line stays shared.
        let recently = self.recently.load(Ordering::Relaxed);
        if now.as_nanos() >> MILLISECOND_BITS != recently >> MILLISECOND_BITS {
            self.recently.store(now.as_nanos(), Ordering::Relaxed);
        }
        now
    }

    /// Picks a node for a request: none of `avoid`, and preferably none that the call has tried.
    // Always inlined, so that hints cost nothing where the traffic gives none.
    #[inline(always)]
    pub(super) fn pick(
        &self,
        snapshot: &Snapshot<S>,
        rng: &mut Rng,
        hints: &Hints<'_>,
        avoid: &[u64],
    ) -> Option<Arc<Slot<S>>> {
        match hints.why {
            None => self.pick_untold(snapshot, rng, hints, avoid, None),
            Some(why) => self.pick_and_tell(snapshot, rng, hints, avoid, why),
        }
    }

    /// Traces why the node was chosen.
    #[cold]
    fn pick_and_tell(
        &self,
        snapshot: &Snapshot<S>,
        rng: &mut Rng,
        hints: &Hints<'_>,
        avoid: &[u64],
        why: &Why,
    ) -> Option<Arc<Slot<S>>> {
        let recorder = Recorder::default();
        let picked = self.pick_untold(snapshot, rng, hints, avoid, Some(&recorder));
        why.add(recorder.decision(self.policy, picked.as_ref().map(|slot| &*slot.node)));
        picked
    }

    #[inline(always)]
    fn pick_untold(
        &self,
        snapshot: &Snapshot<S>,
        rng: &mut Rng,
        hints: &Hints<'_>,
        avoid: &[u64],
        why: Option<&Recorder>,
    ) -> Option<Arc<Slot<S>>> {
        let mut cx = PickContext::new(rng);
        cx.why = why;
        cx.now = if self.reads_time { self.now() } else { self.recently() };
        cx.hash = hints.hash;
        cx.subset = hints.subset;
        cx.exclude = hints.exclude;
        cx.avoid = avoid;
        match hints.tried {
            None if hints.prefer.is_empty() => match pick_once(snapshot, &mut cx) {
                None => self.pick_closed(snapshot, &mut cx, hints, avoid),
                picked => picked,
            },
            _ => match self.pick_by_wish(snapshot, &mut cx, hints, avoid) {
                None => self.pick_closed(snapshot, &mut cx, hints, avoid),
                picked => picked,
            },
        }
    }

    /// If no node is open, one that only its health closes is better than none.
    #[cold]
    fn pick_closed<'a>(
        &self,
        snapshot: &Snapshot<S>,
        cx: &mut PickContext<'a>,
        hints: &Hints<'_>,
        avoid: &'a [u64],
    ) -> Option<Arc<Slot<S>>> {
        if !self.fails_open() {
            return None;
        }
        cx.tell(|| "no endpoint is open: those are used that only their health closes".into());
        cx.fails_open = true;
        let picked = self.pick_by_wish(snapshot, cx, hints, avoid)?;
        evenkeel_metrics::count_fail_open(&self.client);
        let (client, endpoint) = (self.client.name(), picked.node.address());
        tracing::debug!(target: "evenkeel::balance", client, %endpoint, "closed, but no other is open");
        Some(picked)
    }

    /// Whether nodes closed only by their health are used now, because no other is open.
    pub(super) fn fails_open(&self) -> bool {
        self.fail_open && !self.signals.any_open()
    }

    /// Whether `node` may be given a request now.
    #[inline]
    pub(super) fn is_available(&self, node: &Node) -> bool {
        node.is_open() || self.is_last_resort(node)
    }

    /// Whether `node` is used though its health closes it: no other is open, or too few are for the
    /// policy.
    #[cold]
    pub(super) fn is_last_resort(&self, node: &Node) -> bool {
        node.is_usable() && (self.fails_open() || self.snapshots.current().picker.panics(node))
    }

    /// Whether any node may be given a request now.
    pub(super) fn any_available(&self) -> bool {
        self.signals.any_open()
            || self.fail_open && self.snapshots.current().nodes.iter().any(|node| node.is_usable())
    }

    #[inline(never)]
    fn pick_by_wish<'a>(
        &self,
        snapshot: &Snapshot<S>,
        cx: &mut PickContext<'a>,
        hints: &Hints<'_>,
        avoid: &'a [u64],
    ) -> Option<Arc<Slot<S>>> {
        let mut untried = [0; MAX_TRIED];
        let tried = hints.tried.map(Tried::ids).unwrap_or_default();
        let count = tried.len() + avoid.len();
        untried[..tried.len()].copy_from_slice(&tried);
        untried[tried.len()..count].copy_from_slice(avoid);

        let mut first = PickContext { rng: &mut *cx.rng, avoid: &untried[..count], ..*cx };
        let slot = self.preferred(&first, hints.prefer).or_else(|| pick_once(snapshot, &mut first));
        slot.or_else(|| pick_once(snapshot, cx))
    }

    fn preferred(&self, cx: &PickContext<'_>, prefer: &[Address]) -> Option<Arc<Slot<S>>> {
        if prefer.is_empty() {
            return None;
        }
        let by_address = self.by_address.read().expect("no panic under the lock");
        let preferred = prefer
            .iter()
            .filter_map(|address| by_address.get(address)?.upgrade())
            .find(|slot| cx.admits(&slot.node));
        if preferred.is_some() {
            cx.tell(|| "the request prefers it".into());
        }
        preferred
    }

    /// Whether `slot` is the current slot of its node: it was not replaced, and its endpoint has
    /// not left.
    pub(super) fn is_current(&self, slot: &Slot<S>) -> bool {
        let by_address = self.by_address.read().expect("no panic under the lock");
        by_address
            .get(slot.node.address())
            .is_some_and(|current| std::ptr::eq(current.as_ptr(), slot))
    }

    /// The error for a request that waited too long.
    pub(super) fn refusal(&self) -> BoxError {
        let endpoints = self.snapshots.current().nodes.len();
        if 0 < endpoints {
            let closed = AllEndpointsClosed::new(endpoints, self.max_wait);
            return self.log_refusal("all_endpoints_closed", closed.into());
        }
        let error = self.discovery_error.lock().expect("no panic under the lock").clone();
        self.log_refusal("no_endpoints", NoEndpoints::new(self.max_wait, error).into())
    }

    /// Logs that a request is refused, and why.
    #[cold]
    pub(super) fn log_refusal(&self, error_type: &'static str, error: BoxError) -> BoxError {
        evenkeel_metrics::count_balancer_refusal(&self.client, error_type);
        let client = self.client.name();
        tracing::debug!(target: "evenkeel::balance", client, %error, "error.type" = error_type, "refused");
        error
    }

    /// Logs that no endpoint is open and a request begins to wait.
    #[cold]
    pub(super) fn log_wait(&self) {
        evenkeel_metrics::count_balancer_wait(&self.client);
        let client = self.client.name();
        tracing::debug!(target: "evenkeel::balance", client, "waits for an open endpoint");
    }
}

/// How many nodes a pick may have to avoid besides those that were tried.
pub(super) const MAX_AVOIDED: usize = 8;

/// Room for the endpoints that a call has tried, and those it avoids besides.
const MAX_TRIED: usize = Tried::MAX + MAX_AVOIDED;

#[inline]
fn pick_once<S>(snapshot: &Snapshot<S>, cx: &mut PickContext<'_>) -> Option<Arc<Slot<S>>> {
    let index = snapshot.picker.pick(&snapshot.nodes, cx)?;
    snapshot.slots[index].upgrade().or_else(|| pick_again(snapshot, cx))
}

/// A slot that is gone belongs to a node that was closed before: the next pick avoids it.
#[cold]
fn pick_again<S>(snapshot: &Snapshot<S>, cx: &mut PickContext<'_>) -> Option<Arc<Slot<S>>> {
    const PICKS: usize = 2;
    (0..PICKS).find_map(|_| {
        let index = snapshot.picker.pick(&snapshot.nodes, cx)?;
        snapshot.slots[index].upgrade()
    })
}

impl<S> Holder for Slot<S> {
    #[inline]
    fn node(&self) -> &Arc<Node> {
        &self.node
    }

    fn now(&self) -> Timestamp {
        self.shared.now()
    }

    fn recently(&self) -> Timestamp {
        self.shared.recently()
    }
}

impl Signals {
    /// Whether a node is open.
    #[inline]
    pub(super) fn any_open(&self) -> bool {
        0 < self.open.load(Ordering::Acquire)
    }

    /// Whether a node was unreachable since this was last called.
    pub(super) fn take_unreachable(&self) -> bool {
        self.unreachable.swap(false, Ordering::AcqRel)
    }
}

impl Listener for Signals {
    fn opened(&self, _: &Node) {
        self.open.fetch_add(1, Ordering::AcqRel);
        self.changed.notify_waiters();
    }

    fn closed(&self, _: &Node) {
        self.open.fetch_sub(1, Ordering::AcqRel);
        self.changed.notify_waiters();
    }

    fn usable(&self, _: &Node) {
        self.changed.notify_waiters();
    }

    fn unreachable(&self, _: &Node) {
        if !self.unreachable.swap(true, Ordering::AcqRel) {
            self.attention.notify_one();
        }
    }
}
