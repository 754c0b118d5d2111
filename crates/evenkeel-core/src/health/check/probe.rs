//! How to find out whether an endpoint is healthy.

use std::{future::Future, pin::Pin, sync::Arc};

use futures_core::Stream;

use crate::{BoxError, node::Node};

/// A stream of what an endpoint reports of itself.
pub type News = Pin<Box<dyn Stream<Item = Result<(), BoxError>> + Send>>;

/// Finds out whether an endpoint is healthy.
///
/// An async closure that takes a node is a probe. Any error that it returns says that the endpoint
/// is not healthy:
///
/// ```
/// use std::sync::Arc;
/// use evenkeel::core::{BoxError, health::check::Probe, node::Node};
///
/// fn is_probe(_: impl Probe) {}
///
/// is_probe(|node: Arc<Node>| async move {
///     if node.address().port() == Some(80) { Ok(()) } else { Err("the port is closed") }
/// });
/// ```
pub trait Probe: Send + Sync + 'static {
    /// Asks once. Is dropped when it takes too long; it must not block.
    ///
    /// # Errors
    /// Why the endpoint is not healthy. If a [`NotServing`] is among the causes, no further probe
    /// has to confirm that.
    fn probe(&self, node: &Arc<Node>) -> impl Future<Output = Result<(), BoxError>> + Send;

    /// Follows what the endpoint reports of itself, in addition to the probes. Default `None`.
    ///
    /// Each item counts at once, without a threshold. The end of the stream says nothing of the
    /// endpoint's health; the stream is opened again after a passing probe, with growing delays. If
    /// an endpoint offers nothing to follow, end the stream without an item.
    fn follow(&self, node: &Arc<Node>) -> Option<News> {
        let _ = node;
        None
    }
}

impl<F, A, E> Probe for F
where
    F: Fn(Arc<Node>) -> A + Send + Sync + 'static,
    A: Future<Output = Result<(), E>> + Send,
    E: Into<BoxError>,
{
    fn probe(&self, node: &Arc<Node>) -> impl Future<Output = Result<(), BoxError>> + Send {
        let answer = self(node.clone());
        async move { answer.await.map_err(Into::into) }
    }
}

/// The endpoint itself says that it must not be used: no further probe has to confirm that.
///
/// An answer or a connection that is only missing or late may be there the next time. But what an
/// endpoint says of itself can be believed (Envoy: a status that is not expected ignores the
/// threshold).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the endpoint reports that it is unhealthy: {reason}")]
#[non_exhaustive]
pub struct NotServing {
    /// What the endpoint said.
    pub reason: String,
}

impl NotServing {
    /// The endpoint said `reason`.
    #[must_use]
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }
}
