//! The reports of a node as a weight that counts after the blackout and until it expires.

use std::time::Duration;

use super::rules::WeightRules;
use crate::{
    load::LoadReport,
    node::Node,
    observe::{Observer, Report},
    sync::{AtomicU64, Ordering},
    time::Timestamp,
};

/// Means "never".
const NEVER: u64 = u64::MAX;

/// The weight that follows from the last report of one node.
#[derive(Debug)]
pub(super) struct Reported {
    id: u64,
    error_penalty: f64,
    /// As `f64` bits.
    weight: AtomicU64,
    /// When the first report of an unbroken series came, and the last one.
    since: AtomicU64,
    last: AtomicU64,
}

impl Reported {
    pub(super) fn new(node: &Node, rules: &WeightRules) -> Self {
        Self {
            id: node.id(),
            error_penalty: rules.error_penalty,
            weight: AtomicU64::new(0),
            since: AtomicU64::new(NEVER),
            last: AtomicU64::new(NEVER),
        }
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// The weight, if it counts: reports have come for the blackout, and the last is not too old.
    pub(super) fn weight(&self, rules: &WeightRules, now: Timestamp) -> Option<f64> {
        let last = self.last.load(Ordering::Acquire);
        if last == NEVER {
            return None;
        }
        if rules.expiration <= now.since(Timestamp::from_nanos(last)) {
            // If the node reports again, it starts over with the blackout.
            self.forget();
            return None;
        }
        let since = self.since.load(Ordering::Acquire);
        let is_new = rules.blackout != Duration::ZERO
            && (since == NEVER || now.since(Timestamp::from_nanos(since)) < rules.blackout);
        (!is_new).then(|| f64::from_bits(self.weight.load(Ordering::Relaxed)))
    }

    fn take_in(&self, report: &LoadReport, now: Timestamp) {
        let Some(weight) = report.weight(self.error_penalty) else { return };
        self.weight.store(weight.to_bits(), Ordering::Relaxed);
        let now = now.as_nanos().min(NEVER - 1);
        // Read first: it is written only once in a series of reports.
        if self.since.load(Ordering::Relaxed) == NEVER {
            self.since.store(now, Ordering::Release);
        }
        self.last.store(now, Ordering::Release);
    }

    fn forget(&self) {
        self.since.store(NEVER, Ordering::Release);
    }
}

impl Observer for Reported {
    fn ended(&self, _: &Node, _: &Report) {}

    fn reported(&self, _: &Node, report: &LoadReport, now: Timestamp) {
        self.take_in(report, now);
    }

    fn is_reading_reports(&self) -> bool {
        true
    }

    fn is_hearing(&self) -> bool {
        false
    }

    fn closed(&self, _: &Node) {
        // It may come back as another process. gRPC does the same when a connection is made again.
        self.forget();
    }
}
