//! A probe that is due, or when one will be.

use std::sync::Arc;

use crate::{node::Node, time::Timestamp};

/// What to do now.
#[derive(Debug)]
pub enum Next {
    /// Begin this probe.
    Probe(Ticket),
    /// Ask again at this time, or when something has changed.
    At(Timestamp),
    /// Ask again when something has changed.
    Nothing,
}

/// A probe that is under way. Give it to [`Checks::finish`](super::Checks::finish) or [`Checks::abandon`](super::Checks::abandon).
#[derive(Debug)]
#[must_use = "an endpoint whose probe never ends is not probed again"]
pub struct Ticket {
    pub(super) number: u64,
    pub(super) node: Arc<Node>,
}

impl Ticket {
    /// The node that is probed.
    #[must_use]
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }
}
