//! The rate limit of one endpoint, which closes and opens its gate.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use evenkeel_core::{
    node::{Access, Gate, Node},
    observe::{Admission, Observer, Report},
    outcome::Outcome,
    time::Timestamp,
};
use evenkeel_metrics::Client;
use tokio::{
    runtime::Handle,
    time::{Instant, sleep_until},
};

use super::{
    RateLimiter,
    limiter::{TARGET, log_refusal},
};
use crate::{clock, observers::observers_of};

/// The limiter of one endpoint. Each attempt asks it. The last one allowed closes the gate.
pub(super) struct Monitor {
    limiter: RateLimiter,
    /// The limiter of the layer, which identifies the layer's monitors.
    of: RateLimiter,
    max_throttle: Duration,
    client: Client,
    me: Weak<Self>,
    node: Weak<Node>,
    runtime: Handle,
    /// The time until which the gate has to stay closed.
    closed_until: AtomicU64,
}

impl Monitor {
    /// Gives `node` a limiter of its own, unless it has one of this layer. Requests that were spent
    /// stay spent when its service is made again.
    pub(super) fn watch(of: &RateLimiter, max_throttle: Duration, node: &Arc<Node>) {
        if observers_of::<Self>(node).any(|monitor| monitor.of.is(of)) {
            return;
        }
        let Ok(runtime) = Handle::try_current() else {
            tracing::warn!(target: TARGET, client = Client::current().name(), endpoint = %node.address(), "no runtime: its rate is not limited");
            return;
        };
        let monitor = Arc::new_cyclic(|me| Self {
            limiter: RateLimiter::new(of.rate()),
            of: of.clone(),
            max_throttle,
            client: Client::current(),
            me: Weak::clone(me),
            node: Arc::downgrade(node),
            runtime,
            closed_until: AtomicU64::new(0),
        });
        node.observe(monitor);
        node.follow(Gate::RateLimit, || Access::Guarded);
    }

    /// Closes the gate for `wait`, without affecting attempts under way.
    fn close(&self, node: &Node, wait: Duration) {
        let until = (clock::now() + wait).as_nanos();
        let before = self.closed_until.fetch_max(until, Ordering::AcqRel);
        if node.close(Gate::RateLimit) {
            tracing::debug!(target: TARGET, client = self.client.name(), endpoint = %node.address(), ?wait, "rate limit used up");
        }
        // A timer is started only for a time later than all before it. For any other time a timer
        // runs already. If that has fired, only this call can open the gate.
        if before < until {
            self.runtime.spawn(wake(self.me.clone(), clock::after(wait)));
        } else {
            self.open_in_time(node);
        }
    }

    fn open_in_time(&self, node: &Node) {
        if Timestamp::from_nanos(self.closed_until.load(Ordering::Acquire)) <= clock::now() {
            node.open(Gate::RateLimit);
        }
    }
}

/// Holds nothing while it sleeps.
async fn wake(monitor: Weak<Monitor>, due: Instant) {
    sleep_until(due).await;
    if let Some(monitor) = monitor.upgrade()
        && let Some(node) = monitor.node.upgrade()
    {
        monitor.open_in_time(&node);
    }
}

impl Observer for Monitor {
    fn ended(&self, node: &Node, report: &Report) {
        if let Outcome::Throttled(Some(wait)) = report.outcome
            && !self.max_throttle.is_zero()
            && !wait.is_zero()
        {
            self.close(node, wait.min(self.max_throttle));
        }
    }

    fn admit(&self, node: &Node) -> Admission {
        match self.limiter.check() {
            Ok(state) if state.remaining == 0 => {
                // Closed so that the endpoint is not picked only to refuse. What was refilled since
                // the last whole request is kept, so the rate is kept too.
                self.close(node, self.limiter.rate().interval());
                Admission::Free
            }
            Ok(_) => Admission::Free,
            Err(limited) => {
                log_refusal(&self.client, "endpoint", &limited);
                self.close(node, limited.retry_after);
                Admission::Refused
            }
        }
    }
}
