//! What stands for the series where there are no metrics.

use evenkeel_core::{endpoint::Address, node::Gate, observe::Report};

use crate::Client;

/// What is counted of the attempts at one endpoint and of its gates, or of the calls of one client: nothing,
/// without the feature `metrics`.
#[derive(Debug)]
pub struct Series(());

impl Series {
    /// Those of an endpoint.
    #[must_use]
    pub const fn of_endpoint(_: Option<&Address>, _: &Client) -> Self {
        Self(())
    }

    /// Those of a client.
    #[must_use]
    pub const fn of_client(_: &Client) -> Self {
        Self(())
    }

    /// One was sent.
    #[inline]
    pub const fn begin(&self) -> Held {
        Held(())
    }

    /// One ended.
    #[inline]
    pub const fn ended(&self, _: &Report) {}

    /// The endpoint's `gate` has closed or opened.
    #[inline]
    pub fn follow(&self, _: Gate, _: impl Fn() -> bool) {}
}

/// Counted in a gauge until it is dropped.
#[derive(Debug)]
#[must_use = "it is counted until this is dropped"]
pub struct Held(pub(crate) ());
