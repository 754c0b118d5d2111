//! The counts of one node, without a lock.

use super::rules::OutlierRules;
use crate::{
    node::Access,
    observe::{Fault, Report},
    outcome::Outcome,
    sync::{AtomicU8, AtomicU32, AtomicU64, Ordering},
};

/// Why a node is ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// Failed answers in a row.
    ConsecutiveErrors,
    /// Answers in a row that a server behind the endpoint failed.
    ConsecutiveGatewayErrors,
    /// Attempts in a row without an answer.
    ConsecutiveLocalErrors,
    /// Its success rate lies far below that of the others.
    SuccessRate,
    /// Too many of its calls failed.
    FailurePercentage,
    /// It is much slower than the others.
    Latency,
    /// It came back, and a trial request failed.
    Probation,
}

impl Cause {
    /// Its name in metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ConsecutiveErrors => "consecutive_errors",
            Self::ConsecutiveGatewayErrors => "consecutive_gateway_errors",
            Self::ConsecutiveLocalErrors => "consecutive_local_errors",
            Self::SuccessRate => "success_rate",
            Self::FailurePercentage => "failure_percentage",
            Self::Latency => "latency",
            Self::Probation => "probation",
        }
    }
}

/// The counts of one node. They are kept while the node is remembered.
#[derive(Debug, Default)]
pub struct Host {
    errors: AtomicU32,
    gateway_errors: AtomicU32,
    local_errors: AtomicU32,
    /// Calls of this interval; the lower half counts those that failed.
    calls: AtomicU64,
    /// The latencies of this interval's successes, added up.
    nanos: AtomicU64,
    access: AtomicU8,
}

/// The counts of a node in one interval.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Interval {
    pub(super) calls: u32,
    pub(super) failed: u32,
    pub(super) nanos: u64,
}

const OPEN: u8 = 0;
const GUARDED: u8 = 1;
const CLOSED: u8 = 2;

impl Host {
    /// How far the gate of its node is open.
    #[must_use]
    pub fn access(&self) -> Access {
        match self.access.load(Ordering::Acquire) {
            OPEN => Access::Open,
            GUARDED => Access::Guarded,
            _ => Access::Closed,
        }
    }

    pub(super) fn set_access(&self, access: Access) {
        let access = match access {
            Access::Open => OPEN,
            Access::Guarded => GUARDED,
            Access::Closed => CLOSED,
        };
        self.access.store(access, Ordering::Release);
    }

    /// Counts how an attempt ended. If the node should be ejected, returns why.
    ///
    /// A throttled attempt is an answer without a failure: ejecting nodes that shed load would move
    /// that load to nodes that do not shed any yet.
    pub(super) fn record(&self, report: &Report, rules: &OutlierRules) -> Option<Cause> {
        let is_timing = rules.latency.is_some();
        match report.outcome {
            Outcome::Success | Outcome::Throttled(_) => {
                self.calls.fetch_add(1 << 32, Ordering::Relaxed);
                if is_timing {
                    let nanos = u64::try_from(report.latency.as_nanos()).unwrap_or(u64::MAX);
                    self.nanos.fetch_add(nanos, Ordering::Relaxed);
                }
                if report.outcome == Outcome::Success {
                    clear(&self.errors);
                    clear(&self.gateway_errors);
                }
                clear(&self.local_errors);
                None
            }
            Outcome::Failure => {
                self.calls.fetch_add((1 << 32) + 1, Ordering::Relaxed);
                self.failed(report.fault, rules)
            }
            Outcome::Ignored => None,
        }
    }

    fn failed(&self, fault: Fault, rules: &OutlierRules) -> Option<Cause> {
        let reaches = |errors: &AtomicU32, max: Option<u32>| {
            let row = errors.fetch_add(1, Ordering::Relaxed) + 1;
            max.is_some_and(|max| max <= row)
        };
        if fault == Fault::Local {
            let is_over = reaches(&self.local_errors, rules.consecutive_local_errors);
            return is_over.then_some(Cause::ConsecutiveLocalErrors);
        }
        // There was an answer, so it is not a local failure.
        clear(&self.local_errors);
        let is_over_gateway = if fault == Fault::Gateway {
            reaches(&self.gateway_errors, rules.consecutive_gateway_errors)
        } else {
            clear(&self.gateway_errors);
            false
        };
        if reaches(&self.errors, rules.consecutive_errors) {
            Some(Cause::ConsecutiveErrors)
        } else {
            is_over_gateway.then_some(Cause::ConsecutiveGatewayErrors)
        }
    }

    /// Restarts the counts of failures in a row.
    pub(super) fn clear_rows(&self) {
        clear(&self.errors);
        clear(&self.gateway_errors);
        clear(&self.local_errors);
    }

    /// Takes the counts since the last call of this.
    pub(super) fn take_interval(&self) -> Interval {
        let calls = self.calls.swap(0, Ordering::Relaxed);
        let nanos = self.nanos.swap(0, Ordering::Relaxed);
        Interval { calls: (calls >> 32) as u32, failed: calls as u32, nanos }
    }
}

fn clear(counter: &AtomicU32) {
    // Most often it is zero. Only reading it keeps its cache line shared.
    if counter.load(Ordering::Relaxed) != 0 {
        counter.store(0, Ordering::Relaxed);
    }
}
