//! One limit, the gate that follows it, and the calls that wait for it.

use std::{fmt, sync::Arc, time::Duration};

use evenkeel_core::{
    BoxError,
    endpoint::Address,
    error::{LimitReached, Overloaded},
    limit::{Limit, Permits, Priority, Sample, Shed},
    node::{Access, Gate, Node},
    observe::{Admission, Observer, Report},
    outcome::Outcome,
    rng::Seeds,
    time::Timestamp,
};
use evenkeel_metrics::Client;

use super::queue::Queue;
use crate::{alone::Doorkeeper, clock, weak_list::WeakList};

/// All limits of a layer and its clones.
#[derive(Clone, Default)]
pub struct Limits(Arc<WeakList<Monitor>>);

impl Limits {
    /// The limits in use now, the oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<LimitHandle> {
        self.0.living().into_iter().map(LimitHandle).collect()
    }
}

impl fmt::Debug for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.list()).finish()
    }
}

/// One limit. It can be read.
#[derive(Clone)]
pub struct LimitHandle(Arc<Monitor>);

impl LimitHandle {
    /// The endpoint's address; `None` where the limit stands alone.
    #[must_use]
    pub fn address(&self) -> Option<&Address> {
        self.0.address.as_ref()
    }

    /// How many calls may be in flight at the same time, as of now.
    #[must_use]
    pub fn limit(&self) -> u32 {
        self.0.permits.limit().limit()
    }

    /// How many calls are in flight.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.0.permits.in_flight()
    }

    /// How many calls wait; zero below a balancer.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.0.waiting.as_ref().map_or(0, |waiting| waiting.queue.len())
    }
}

impl fmt::Debug for LimitHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LimitHandle")
            .field("address", &self.address().map(ToString::to_string))
            .field("limit", &self.limit())
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

/// One limit.
pub(crate) struct Monitor {
    pub(super) permits: Permits,
    pub(super) waiting: Option<Waiting>,
    limits: Limits,
    address: Option<Address>,
    is_adaptive: bool,
    client: Client,
}

/// Which calls may wait where the limit stands alone, and for how long.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) queue: Arc<Queue>,
    pub(super) patience: Patience,
}

#[derive(Debug)]
pub(super) enum Patience {
    Fixed(Duration),
    Shed { shed: Shed, seeds: Seeds },
}

/// What becomes of a call that arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Admitted,
    Waits,
    Refused,
}

impl Monitor {
    /// The limit of a service that stands alone.
    pub(super) fn alone(
        limit: Box<dyn Limit>,
        limits: &Limits,
        waiting: Option<Waiting>,
    ) -> Arc<Self> {
        Self::new(limit, limits, waiting, None)
    }

    /// Gives an endpoint a limit. The node's gate follows it from now on.
    pub(super) fn observe(limit: Box<dyn Limit>, limits: &Limits, node: &Arc<Node>) {
        let monitor = Self::new(limit, limits, None, Some(node.address().clone()));
        node.observe(monitor.clone());
        monitor.follow(node);
    }

    fn new(
        limit: Box<dyn Limit>,
        limits: &Limits,
        waiting: Option<Waiting>,
        address: Option<Address>,
    ) -> Arc<Self> {
        let is_adaptive = limit.is_adaptive();
        let permits = Permits::boxed(limit);
        let client = Client::current();
        let limits = limits.clone();
        let monitor = Arc::new(Self { permits, waiting, limits, address, is_adaptive, client });
        monitor.limits.0.add(&monitor);
        monitor
    }

    /// Whether this limit belongs to the layer that has `limits`.
    pub(super) fn is_one_of(&self, limits: &Limits) -> bool {
        Arc::ptr_eq(&self.limits.0, &limits.0)
    }

    /// Makes the gate follow the permits. Each attempt asks for one.
    fn follow(&self, node: &Node) {
        node.follow(Gate::Limit, || {
            if self.permits.is_full() { Access::Closed } else { Access::Guarded }
        });
    }

    fn has_gate(&self) -> bool {
        self.address.is_some()
    }

    /// Decides on a call that arrives. A call that is admitted has a permit.
    ///
    /// While the limit has room and no other call waits, none is refused, whatever happened before:
    /// an idle server is not overloaded.
    #[inline]
    pub(super) fn enter(&self, priority: Priority) -> Entry {
        let Some(waiting) = &self.waiting else {
            return if self.permits.acquire() { Entry::Admitted } else { Entry::Refused };
        };
        let has_room = waiting.queue.len() == 0 && self.permits.acquire();
        let is_let_in = match &waiting.patience {
            Patience::Shed { shed, .. } if has_room => {
                shed.let_in(priority, clock::now);
                true
            }
            Patience::Shed { shed, seeds } => {
                shed.admit(priority, || seeds.rng().unit(), clock::now)
            }
            Patience::Fixed(_) => true,
        };
        if has_room {
            Entry::Admitted
        } else if !is_let_in {
            Entry::Refused
        } else if !waiting.queue.is_behind(priority) && self.permits.acquire() {
            Entry::Admitted
        } else {
            Entry::Waits
        }
    }

    /// The error for a refused request of this priority. Called once for each, since it counts.
    #[cold]
    pub(super) fn refusal(&self, priority: Priority, waited: Duration) -> BoxError {
        let client = self.client.name();
        match self.waiting.as_ref().map(|waiting| &waiting.patience) {
            Some(Patience::Shed { .. }) => {
                let priority = priority.level();
                evenkeel_metrics::count_shed(&self.client);
                tracing::debug!(target: "evenkeel::admission", client, priority, ?waited, "request shed");
                Overloaded::new(priority, waited).into()
            }
            Some(Patience::Fixed(_)) | None => {
                let limit = self.permits.limit().limit();
                evenkeel_metrics::count_limit_refusal(&self.client);
                tracing::debug!(target: "evenkeel::concurrency", client, limit, ?waited, "limit reached");
                LimitReached::new(limit, waited).into()
            }
        }
    }
}

impl Waiting {
    pub(super) fn max_wait(&self) -> Duration {
        match &self.patience {
            Patience::Fixed(max) => *max,
            Patience::Shed { shed, .. } => shed.max_wait(clock::now()),
        }
    }

    /// The service of a request begins.
    #[inline]
    pub(super) fn record_start(&self, waited: Duration) {
        if let Patience::Shed { shed, .. } = &self.patience {
            shed.record_start(waited, clock::now);
        }
    }

    /// Records a request that has waited too long.
    pub(super) fn record_refusal(&self, waited: Duration) {
        if let Patience::Shed { shed, .. } = &self.patience {
            shed.record_refusal(waited, clock::now());
        }
    }
}

impl Observer for Monitor {
    fn ended(&self, node: &Node, report: &Report) {
        if !self.is_adaptive {
            return;
        }
        let is_dropped = match report.outcome {
            Outcome::Success => false,
            Outcome::Failure | Outcome::Throttled(_) => true,
            _ => return,
        };
        let Report { latency, .. } = *report;
        // For a call that was answered at once the clock is not read.
        let is_dated = is_dropped || !latency.is_zero();
        let now = if is_dated { clock::now() } else { Timestamp::default() };
        let in_flight = self.permits.in_flight();
        let before = self.permits.limit().limit();
        self.permits.limit().sample(Sample { latency, in_flight, is_dropped }, now);
        let limit = self.permits.limit().limit();
        if limit == before {
            return;
        }
        let endpoint = self.address.as_ref().map(tracing::field::display);
        tracing::debug!(target: "evenkeel::concurrency", client = self.client.name(), endpoint, limit, before, "limit changed");
        if self.has_gate() {
            self.follow(node);
        }
    }

    #[inline]
    fn admit(&self, node: &Node) -> Admission {
        let is_admitted = self.permits.acquire();
        if self.permits.is_full() {
            self.follow(node);
        }
        if is_admitted { Admission::Counted } else { Admission::Refused }
    }

    #[inline]
    fn left(&self, node: &Node) {
        let was_full = self.permits.release();
        if was_full || node.is_closed_by(Gate::Limit) {
            self.follow(node);
        }
    }

    fn is_hearing(&self) -> bool {
        self.is_adaptive
    }

    fn is_timing(&self) -> bool {
        self.is_adaptive
    }
}

/// Alone it is asked for permits in `call`, where there may be a queue.
impl Doorkeeper for Monitor {
    const IS_COUNTING: bool = true;

    #[inline]
    fn exit(&self) {
        self.permits.release();
        if let Some(waiting) = &self.waiting {
            waiting.queue.admit(&self.permits);
        }
    }
}
