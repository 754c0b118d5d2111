//! Replaces the series in a build without metrics.

use evenkeel_core::{endpoint::Address, node::Gate, observe::Report};

use crate::Client;

/// The metrics of the attempts at one endpoint and of its gates, or of the calls of one client.
/// Empty without the feature `metrics`.
#[derive(Debug)]
pub struct Series(());

impl Series {
    /// The series of an endpoint.
    #[must_use]
    pub const fn of_endpoint(_: Option<&Address>, _: &Client) -> Self {
        Self(())
    }

    /// The series of a client.
    #[must_use]
    pub const fn of_client(_: &Client) -> Self {
        Self(())
    }

    /// Counts the start of an attempt or a call.
    #[inline]
    pub const fn begin(&self) -> Held {
        Held(())
    }

    /// Counts the end of an attempt or a call.
    #[inline]
    pub const fn end(&self, _: &Report) {}

    /// Updates the endpoint's `gate` after it closed or opened.
    #[inline]
    pub fn follow(&self, _: Gate, _: impl Fn() -> bool) {}
}

/// Counted in a gauge until dropped.
#[derive(Debug)]
#[must_use = "it is counted until this is dropped"]
pub struct Held(pub(crate) ());
