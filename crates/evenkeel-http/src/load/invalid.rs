//! What a report of load must not be.

/// The most metrics of a report.
pub(super) const MAX_METRICS: usize = 128;

/// A report that cannot be read, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid load report: {reason}")]
#[non_exhaustive]
pub struct InvalidReport {
    /// What is wrong with it.
    pub reason: &'static str,
}

impl InvalidReport {
    pub(super) const fn new(reason: &'static str) -> Self {
        Self { reason }
    }
}
