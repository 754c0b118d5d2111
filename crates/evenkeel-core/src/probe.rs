//! How to ask a server for its load.

use std::{future::Future, sync::Arc};

use crate::{BoxError, load::ServerLoad, node::Node};

/// Asks a server how loaded it is.
///
/// An async closure that takes a node and returns a [`ServerLoad`] is a probe:
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use evenkeel::core::{BoxError, load::ServerLoad, node::Node, probe::LoadProbe};
///
/// fn is_probe(_: impl LoadProbe) {}
///
/// is_probe(|_: Arc<Node>| async { Ok::<_, BoxError>(ServerLoad::new(3.0, Duration::ZERO)) });
/// ```
pub trait LoadProbe: Send + Sync + 'static {
    /// Asks once. It is dropped if it takes too long. It must not block.
    ///
    /// # Errors
    /// The reason why there is no answer. Nothing is then known about the server's load.
    fn probe(&self, node: &Arc<Node>) -> impl Future<Output = Result<ServerLoad, BoxError>> + Send;

    /// Asks on behalf of one request, with its hash if it has one, so that a server can answer what
    /// that request would cost it. Default: the same as [`probe`](Self::probe).
    ///
    /// # Errors
    /// As for `probe`.
    fn probe_for(
        &self,
        node: &Arc<Node>,
        _hash: Option<u64>,
    ) -> impl Future<Output = Result<ServerLoad, BoxError>> + Send {
        self.probe(node)
    }
}

impl<F, A, E> LoadProbe for F
where
    F: Fn(Arc<Node>) -> A + Send + Sync + 'static,
    A: Future<Output = Result<ServerLoad, E>> + Send,
    E: Into<BoxError>,
{
    fn probe(&self, node: &Arc<Node>) -> impl Future<Output = Result<ServerLoad, BoxError>> + Send {
        let answer = self(node.clone());
        async move { answer.await.map_err(Into::into) }
    }
}
