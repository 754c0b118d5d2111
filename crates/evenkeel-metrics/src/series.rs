//! Metrics per endpoint or per client, with handles that are made once.

use std::sync::{
    OnceLock,
    atomic::{AtomicU32, Ordering},
};

use evenkeel_core::{
    endpoint::Address,
    node::Gate,
    observe::{Fault, Report},
    outcome::Outcome,
};
use metrics::{Counter, Gauge, Histogram, Label, counter, gauge, histogram};

use crate::Client;

/// The metrics of the attempts at one endpoint and of its gates, or of the calls of one client.
#[derive(Debug)]
pub struct Series {
    succeeded: Counter,
    throttled: Counter,
    ignored: Counter,
    failed_server: Counter,
    failed_gateway: Counter,
    failed_local: Counter,
    duration: Histogram,
    active: Gauge,
    gates: Gates,
}

impl Series {
    /// The series of the endpoint at `address`, and of `client` if it has a name. Without an
    /// address, the series shared by all endpoints that have none of their own.
    #[must_use]
    pub fn of_endpoint(address: Option<&Address>, client: &Client) -> Self {
        let names = ["evenkeel.attempts", "evenkeel.attempt.duration", "evenkeel.attempt.active"];
        Self::new(names, endpoint_labels(address, client))
    }

    /// The series of the calls of `client`, or of all clients without a name.
    #[must_use]
    pub fn of_client(client: &Client) -> Self {
        let names = ["evenkeel.calls", "evenkeel.call.duration", "evenkeel.call.active"];
        Self::new(names, client.label().into_iter().collect())
    }

    fn new([count, duration, active]: [&'static str; 3], labels: Vec<Label>) -> Self {
        let counter = |outcome: Outcome, error_type: Option<Fault>| {
            let mut labels = labels.clone();
            labels.push(Label::from_static_parts("outcome", outcome.name()));
            let error_type = error_type.map(Fault::name);
            labels.extend(error_type.map(|fault| Label::from_static_parts("error.type", fault)));
            counter!(count, labels)
        };
        Self {
            succeeded: counter(Outcome::Success, None),
            throttled: counter(Outcome::Throttled(None), None),
            ignored: counter(Outcome::Ignored, None),
            failed_server: counter(Outcome::Failure, Some(Fault::Server)),
            failed_gateway: counter(Outcome::Failure, Some(Fault::Gateway)),
            failed_local: counter(Outcome::Failure, Some(Fault::Local)),
            duration: histogram!(duration, labels.clone()),
            active: gauge!(active, labels.clone()),
            gates: Gates { closed: AtomicU32::new(0), series: Default::default(), labels },
        }
    }

    /// Counts the start of an attempt or a call. It is active until the returned value is dropped.
    #[inline]
    pub fn begin(&self) -> Held {
        Held::new(self.active.clone())
    }

    /// Counts the end of an attempt or a call.
    #[inline]
    pub fn end(&self, report: &Report) {
        let counter = match (report.outcome, report.fault) {
            (Outcome::Success, _) => &self.succeeded,
            (Outcome::Throttled(_), _) => &self.throttled,
            (Outcome::Failure, Fault::Gateway) => &self.failed_gateway,
            (Outcome::Failure, Fault::Local) => &self.failed_local,
            (Outcome::Failure, _) => &self.failed_server,
            _ => &self.ignored,
        };
        counter.increment(1);
        self.duration.record(report.latency.as_secs_f64());
    }

    /// Updates the endpoint's `gate` after it closed or opened. `is_closed` is asked until its
    /// answer is the same after the update, so that of two concurrent changes the later one wins.
    pub fn follow(&self, gate: Gate, is_closed: impl Fn() -> bool) {
        if gate == Gate::Retired {
            self.gates.open_all();
            return;
        }
        let mut wanted = is_closed();
        loop {
            self.gates.set(gate, wanted);
            let now = is_closed();
            if now == wanted {
                return;
            }
            wanted = now;
        }
    }
}

/// Counted in a gauge until dropped.
#[derive(Debug)]
#[must_use = "it is counted until this is dropped"]
pub struct Held(Gauge);

impl Held {
    #[inline]
    pub(crate) fn new(gauge: Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for Held {
    #[inline]
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

impl Drop for Series {
    fn drop(&mut self) {
        self.gates.open_all();
    }
}

/// The gates of one endpoint, as its gauges show them.
#[derive(Debug)]
struct Gates {
    /// One bit for each gate. The bit of [`Gate::Retired`] says that the endpoint has left, and
    /// that nothing more is shown.
    closed: AtomicU32,
    series: [OnceLock<(Gauge, Counter)>; Gate::ALL.len()],
    labels: Vec<Label>,
}

const LEFT: u32 = bit(Gate::Retired);

const fn bit(gate: Gate) -> u32 {
    1 << gate as u8
}

impl Gates {
    fn set(&self, gate: Gate, is_closed: bool) {
        if gate == Gate::Joining {
            // Every endpoint joins, so the gate of joining tells nothing.
            return;
        }
        let bit = bit(gate);
        if is_closed {
            let before = self.closed.fetch_or(bit, Ordering::AcqRel);
            if before & (bit | LEFT) == 0 {
                let (closed, closings) = self.of(gate);
                closed.increment(1.0);
                closings.increment(1);
            }
        } else {
            let before = self.closed.fetch_and(!bit, Ordering::AcqRel);
            if before & (bit | LEFT) == bit {
                self.of(gate).0.decrement(1.0);
            }
        }
    }

    fn open_all(&self) {
        let before = self.closed.swap(LEFT, Ordering::AcqRel);
        if before & LEFT == 0 {
            let closed = Gate::ALL.into_iter().filter(|&gate| before & bit(gate) != 0);
            closed.for_each(|gate| self.of(gate).0.decrement(1.0));
        }
    }

    /// Made when the gate closes for the first time, because most gates never close.
    fn of(&self, gate: Gate) -> &(Gauge, Counter) {
        self.series[gate as usize].get_or_init(|| {
            let mut labels = self.labels.clone();
            labels.push(Label::from_static_parts("gate", gate.name()));
            let closed = gauge!("evenkeel.endpoint.closed", labels.clone());
            (closed, counter!("evenkeel.endpoint.closings", labels))
        })
    }
}

fn endpoint_labels(address: Option<&Address>, client: &Client) -> Vec<Label> {
    let (host, port) = match address {
        Some(Address::Socket(address)) => (address.ip().to_string(), Some(address.port())),
        Some(Address::Name { host, port }) => (host.to_string(), Some(*port)),
        Some(Address::Unix(path)) => (path.display().to_string(), None),
        _ => ("_OTHER".to_owned(), None),
    };
    let mut labels = vec![Label::new("server.address", host)];
    labels.extend(port.map(|port| Label::new("server.port", port.to_string())));
    labels.extend(client.label());
    labels
}
