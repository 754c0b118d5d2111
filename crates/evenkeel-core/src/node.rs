//! An endpoint while it is in use.

mod failures;

use std::{fmt, sync::Arc, time::Duration};

pub use crate::gate::{Access, Gate};
use crate::{
    endpoint::{Address, Endpoint},
    load::{LoadReport, PeakEwma},
    observe::{Observer, Observers},
    sync::{AtomicU8, AtomicU32, Mutex, Ordering},
    time::Timestamp,
    warming,
};

/// Bits for the closed gates. Above them is one bit for each guarded gate.
const CLOSED: u32 = (1 << Gate::ALL.len()) - 1;

/// Bits of the gates that do not concern health.
const UNUSABLE: u32 = CLOSED & !(Gate::Ejected.bit() | Gate::Breaker.bit() | Gate::Unhealthy.bit());

/// Bits of the gates that make a node unfit. Not among them: gates that only say that the node is
/// busy, and the gate that opens as soon as requests see the node.
const UNFIT: u32 = CLOSED & !(Gate::Joining.bit() | Gate::Limit.bit() | Gate::RateLimit.bit());

/// The remaining bits, above those, count how often an observer closed the node.
const EPOCH: u32 = 1 << (2 * Gate::ALL.len());

// With fewer bits the count would soon repeat.
const _: () = assert!(2 * Gate::ALL.len() <= 20, "there are bits left to count");

/// Set if the attempts at the node are timed.
const TIMED: u8 = 1;

/// Set if the node has observers.
const OBSERVED: u8 = 2;

/// Set if the node has observers that read load reports.
const REPORTING: u8 = 4;

/// Is told of changes to nodes. Called on the request path: it must be short and must not block.
pub trait Listener: Send + Sync {
    /// The last gate that closed `node` has opened.
    fn opened(&self, node: &Node);

    /// The first gate has closed `node`.
    fn closed(&self, node: &Node);

    /// Only gates [of health](Gate::is_of_health) still close `node`: the last other one has opened.
    fn usable(&self, _node: &Node) {}

    /// Connecting to `node` failed.
    fn unreachable(&self, node: &Node);
}

struct NoListener;

impl Listener for NoListener {
    fn opened(&self, _: &Node) {}
    fn closed(&self, _: &Node) {}
    fn unreachable(&self, _: &Node) {}
}

/// An endpoint while it is in use: its requests in flight, its latency estimate, its gates.
///
/// A node keeps what was learnt of it when its endpoint's weight or metadata change.
// Whole cache lines, so that neighbours never contend for counters. The order of the fields lets a pick
// read one line of each node that it looks at: with 100,000 nodes every line has to be fetched.
#[repr(C, align(64))]
pub struct Node {
    in_flight: AtomicU32,
    gates: AtomicU32,
    weight: AtomicU32,
    /// Since when the node warms up: see `warming`.
    warming: AtomicU32,
    latency: PeakEwma,
    hearing: AtomicU8,
    /// Extra load, in requests, added because attempts failed.
    penalty: AtomicU32,
    observers: Observers,
    id: u64,
    listener: Arc<dyn Listener>,
    address: Address,
    endpoint: Mutex<Arc<Endpoint>>,
}

impl Node {
    /// A node without a listener and without a latency estimate, open unless it is drained.
    #[must_use]
    pub fn new(endpoint: Endpoint) -> Self {
        let node = Self::joining(endpoint, Arc::new(NoListener), None);
        node.open(Gate::Joining);
        node
    }

    /// A node that is still closed by [`Gate::Joining`].
    ///
    /// The latency estimate decays with `latency_decay`; with `None`, latency is not measured.
    #[must_use]
    pub fn joining(
        endpoint: Endpoint,
        listener: Arc<dyn Listener>,
        latency_decay: Option<Duration>,
    ) -> Self {
        let draining = if endpoint.weight == 0 { Gate::Draining.bit() } else { 0 };
        let latency = PeakEwma::new(latency_decay);
        Self {
            in_flight: AtomicU32::new(0),
            gates: AtomicU32::new(Gate::Joining.bit() | draining),
            weight: AtomicU32::new(endpoint.weight),
            penalty: AtomicU32::new(0),
            warming: AtomicU32::new(warming::BEGINS),
            hearing: AtomicU8::new(if latency.is_measured() { TIMED } else { 0 }),
            latency,
            observers: Observers::default(),
            id: next_id(),
            listener,
            address: endpoint.address.clone(),
            endpoint: Mutex::new(Arc::new(endpoint)),
        }
    }

    /// A number that no other node of this process has.
    #[must_use]
    #[inline]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Where it listens.
    #[must_use]
    #[inline]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The endpoint as discovery last named it.
    ///
    /// # Panics
    /// Never: nothing panics while the lock is held.
    #[must_use]
    pub fn endpoint(&self) -> Arc<Endpoint> {
        self.endpoint.lock().expect("no panic under the lock").clone()
    }

    /// Its endpoint's weight. A node of weight 0 is closed.
    #[must_use]
    #[inline]
    pub fn weight(&self) -> u32 {
        self.weight.load(Ordering::Relaxed)
    }

    /// Takes over what discovery now says of this address.
    ///
    /// # Panics
    /// If `endpoint` has another address.
    pub fn update(&self, endpoint: Endpoint) {
        assert_eq!(endpoint.address, self.address, "a node keeps its address");
        let weight = endpoint.weight;
        *self.endpoint.lock().expect("no panic under the lock") = Arc::new(endpoint);
        self.weight.store(weight, Ordering::Relaxed);
        if weight == 0 {
            self.close(Gate::Draining);
        } else {
            self.open(Gate::Draining);
        }
    }

    /// Whether it may be given requests.
    #[must_use]
    #[inline]
    pub fn is_open(&self) -> bool {
        self.gates.load(Ordering::Acquire) & CLOSED == 0
    }

    /// Whether only gates of [health](Gate::is_of_health) close it, or none. While no node is open,
    /// usable nodes get requests, since health must not make things worse.
    #[must_use]
    #[inline]
    pub fn is_usable(&self) -> bool {
        self.gates.load(Ordering::Acquire) & UNUSABLE == 0
    }

    /// Whether nothing closes it except being busy. Then it counts as able to carry load.
    pub(crate) fn is_fit(&self) -> bool {
        self.gates.load(Ordering::Acquire) & UNFIT == 0
    }

    /// Whether it is open and no observer has to be asked.
    #[inline]
    pub(crate) fn is_unguarded(&self) -> bool {
        // All bits below the epoch: closed gates and guarded ones.
        self.gates.load(Ordering::Acquire) & (EPOCH - 1) == 0
    }

    /// How often an observer has closed it, modulo 2¹².
    #[inline]
    pub(crate) fn epoch(&self) -> u16 {
        (self.gates.load(Ordering::Relaxed) / EPOCH) as u16
    }

    /// Whether `gate` is among the reasons for which it is closed.
    #[must_use]
    pub fn is_closed_by(&self, gate: Gate) -> bool {
        self.gates.load(Ordering::Acquire) & gate.bit() != 0
    }

    /// The reasons for which it is closed.
    pub fn closed_by(&self) -> impl Iterator<Item = Gate> {
        let gates = self.gates.load(Ordering::Acquire);
        Gate::ALL.into_iter().filter(move |gate| gates & gate.bit() != 0)
    }

    /// Closes it for one more reason, and returns whether that reason is new.
    pub fn close(&self, gate: Gate) -> bool {
        let before = self.gates.fetch_or(gate.bit(), Ordering::AcqRel);
        if before & CLOSED == 0 {
            self.listener.closed(self);
        }
        if gate != Gate::Limit && before & CLOSED & !Gate::Limit.bit() == 0 {
            self.observers.iter().for_each(|observer| observer.closed(self));
        }
        self.changed(gate, before & gate.bit() == 0)
    }

    /// Removes one reason to be closed, and returns whether it was there.
    pub fn open(&self, gate: Gate) -> bool {
        debug_assert_ne!(gate, Gate::Retired, "a retired node stays closed");
        let before = self.gates.fetch_and(!gate.bit(), Ordering::AcqRel);
        if gate.is_of_health() && before & gate.bit() != 0 {
            self.warming.store(warming::BEGINS, Ordering::Relaxed);
        }
        if before & CLOSED == gate.bit() {
            if gate.is_of_health() {
                self.latency.forget();
                self.penalty.store(0, Ordering::Relaxed);
            }
            self.listener.opened(self);
        } else if before & UNUSABLE == gate.bit() {
            self.listener.usable(self);
        }
        self.changed(gate, before & gate.bit() != 0)
    }

    /// Tells observers that `gate` has changed, if it has.
    fn changed(&self, gate: Gate, has_changed: bool) -> bool {
        if has_changed {
            self.observers.iter().for_each(|observer| observer.gate_changed(self, gate));
        }
        has_changed
    }

    /// Makes `gate` follow the `access` that an observer keeps, until both agree.
    ///
    /// Call it after each change of the access. It reads the access again after setting the gate: if two
    /// threads change it at the same time, the later change holds, whichever sets the gate last.
    pub fn follow(&self, gate: Gate, access: impl Fn() -> Access) {
        let mut wanted = access();
        loop {
            self.set(gate, wanted);
            let now = access();
            if now == wanted {
                return;
            }
            wanted = now;
        }
    }

    fn set(&self, gate: Gate, access: Access) {
        match access {
            Access::Open => {
                self.gates.fetch_and(!gate.guard_bit(), Ordering::AcqRel);
                self.open(gate);
            }
            Access::Guarded => {
                self.gates.fetch_or(gate.guard_bit(), Ordering::AcqRel);
                self.open(gate);
            }
            Access::Closed => {
                // A node that is full has not changed: attempts under way still describe it.
                if self.close(gate) && gate != Gate::Limit {
                    // Attempts that are under way say nothing of the node as it will be.
                    self.gates.fetch_add(EPOCH, Ordering::AcqRel);
                }
            }
        }
    }

    /// Tells `observer` from now on how attempts end. An observer stays as long as the node.
    pub fn observe(&self, observer: Arc<dyn Observer>) {
        let timed = if observer.is_timing() { TIMED } else { 0 };
        let heard = if observer.is_hearing() { OBSERVED } else { 0 };
        let reporting = if observer.is_reading_reports() { REPORTING } else { 0 };
        self.observers.push(observer);
        self.hearing.fetch_or(heard | timed | reporting, Ordering::Release);
    }

    /// The observers, in the order in which they were added.
    pub fn observers(&self) -> impl Iterator<Item = &Arc<dyn Observer>> {
        self.observers.iter()
    }

    /// Whether the policy or an observer needs to know how long attempts take.
    #[must_use]
    #[inline]
    pub fn is_timed(&self) -> bool {
        self.hearing.load(Ordering::Relaxed) & TIMED != 0
    }

    /// Whether an observer reads the [load reports](Self::report_load) of the endpoint.
    #[must_use]
    #[inline]
    pub fn is_reporting(&self) -> bool {
        self.hearing.load(Ordering::Relaxed) & REPORTING != 0
    }

    /// Tells observers what the endpoint has reported of its load, with a response or separately.
    pub fn report_load(&self, report: &LoadReport, now: Timestamp) {
        self.observers.iter().for_each(|observer| observer.reported(self, report, now));
    }

    /// Whether the policy or an observer needs to know how attempts end.
    #[must_use]
    #[inline]
    pub(crate) fn is_heard(&self) -> bool {
        self.hearing.load(Ordering::Acquire) & (TIMED | OBSERVED) != 0
    }

    /// How many attempts are under way.
    #[must_use]
    #[inline]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Counts one more attempt in flight. [`Attempt`](crate::attempt::Attempt) does this, and counts its end.
    #[inline]
    pub fn enter(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one attempt fewer in flight.
    #[inline]
    pub fn exit(&self) {
        let before = self.in_flight.fetch_sub(1, Ordering::Relaxed);
        debug_assert_ne!(before, 0, "an attempt ended that never began");
    }

    /// Its latency estimate.
    #[must_use]
    #[inline]
    pub fn latency(&self) -> &PeakEwma {
        &self.latency
    }

    /// Whether slow start is over: see [`SlowStart`](crate::policy::SlowStart).
    #[inline]
    pub(crate) fn is_warm(&self) -> bool {
        self.warming.load(Ordering::Relaxed) == warming::WARM
    }

    /// How long it has been warming up, from the first time that this is asked; `None` if it is
    /// warm.
    pub(crate) fn warming_for(&self, now: Timestamp) -> Option<Duration> {
        match self.warming.load(Ordering::Relaxed) {
            warming::WARM => None,
            warming::BEGINS => {
                self.warming.store(warming::since(now), Ordering::Relaxed);
                Some(Duration::ZERO)
            }
            since => Some(warming::elapsed(since, now)),
        }
    }

    /// Ends its warming up.
    pub(crate) fn warmed_up(&self) {
        self.warming.store(warming::WARM, Ordering::Relaxed);
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("address", &self.address)
            .field("weight", &self.weight())
            .field("in_flight", &self.in_flight())
            .field("closed_by", &self.closed_by().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

fn next_id() -> u64 {
    // Not loom's: this counter orders nothing.
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI32, Ordering::SeqCst};

    use super::*;

    #[derive(Default)]
    struct OpenNodes(AtomicI32);

    impl Listener for OpenNodes {
        fn opened(&self, _: &Node) {
            self.0.fetch_add(1, SeqCst);
        }
        fn closed(&self, _: &Node) {
            self.0.fetch_sub(1, SeqCst);
        }
        fn unreachable(&self, _: &Node) {}
    }

    fn endpoint(weight: u32) -> Endpoint {
        Endpoint::new("10.0.0.1:80".parse::<Address>().unwrap()).weight(weight)
    }

    #[test]
    fn a_node_opens_when_its_last_gate_does() {
        let open = Arc::new(OpenNodes::default());
        let node = Node::joining(endpoint(1), open.clone(), None);

        assert!(node.close(Gate::Ejected));
        assert!(node.open(Gate::Joining));
        assert!(!node.is_open());
        assert!(node.open(Gate::Ejected));

        assert!(node.is_open());
        assert_eq!(open.0.load(SeqCst), 1);
    }

    #[test]
    fn the_same_gate_twice_counts_once() {
        let open = Arc::new(OpenNodes::default());
        let node = Node::joining(endpoint(1), open.clone(), None);
        node.open(Gate::Joining);

        assert!(node.close(Gate::Breaker));
        assert!(!node.close(Gate::Breaker));
        assert_eq!(open.0.load(SeqCst), 0);
        assert!(node.open(Gate::Breaker));
        assert!(!node.open(Gate::Breaker));

        assert_eq!(open.0.load(SeqCst), 1);
    }

    #[test]
    fn weight_zero_drains_a_node_and_another_weight_ends_the_drain() {
        let node = Node::new(endpoint(0));
        assert_eq!(node.closed_by().collect::<Vec<_>>(), [Gate::Draining]);

        node.update(endpoint(3));
        assert!(node.is_open());
        assert_eq!(node.weight(), 3);

        node.update(endpoint(0));
        assert!(!node.is_open());
    }

    #[test]
    fn a_node_that_comes_back_is_measured_again_and_one_that_was_only_drained_is_not() {
        let decay = Some(std::time::Duration::from_secs(10));
        let node = Node::joining(endpoint(1), Arc::new(NoListener), decay);
        node.open(Gate::Joining);
        let slow = std::time::Duration::from_millis(300);
        let now = crate::time::Timestamp::from_nanos(1 << 50);
        node.latency().record(crate::outcome::Outcome::Success, slow, now);

        node.update(endpoint(0));
        node.update(endpoint(1));
        assert!(node.latency().estimate().is_some());
        node.close(Gate::Ejected);
        node.open(Gate::Ejected);

        assert_eq!(node.latency().estimate(), None);
    }

    #[test]
    fn hot_counters_share_no_cache_line_with_a_neighbour() {
        assert_eq!(align_of::<Node>(), 64);
        assert!(size_of::<Node>() <= 128, "{} bytes", size_of::<Node>());
        assert!(std::mem::offset_of!(Node, observers) <= 64, "a pick reads one line");
    }
}
