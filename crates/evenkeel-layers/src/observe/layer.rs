//! How observation is configured.

use std::sync::Arc;

use evenkeel_core::traffic::AnyTraffic;
use evenkeel_metrics::Client;
use tower_layer::Layer;

use super::{Observe, monitor::Scope};

/// Counts and traces attempts, or calls if it stands alone. See the [module docs](super).
#[derive(Clone, Debug)]
pub struct ObserveLayer<X = AnyTraffic> {
    client: Option<Arc<str>>,
    max_endpoints: usize,
    traffic: X,
}

impl ObserveLayer {
    /// Observes without a name.
    #[must_use]
    pub fn new() -> Self {
        Self { client: None, max_endpoints: 1_000, traffic: AnyTraffic }
    }
}

impl Default for ObserveLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<X> ObserveLayer<X> {
    /// Names the client that makes these calls, for this layer only: the label `client`. Default:
    /// the name given to the whole stack by [`evenkeel_metrics::named`].
    #[must_use]
    pub fn client(mut self, name: impl Into<Arc<str>>) -> Self {
        self.client = Some(name.into());
        self
    }

    /// Sets how many endpoints have series of their own, including those that left. Default 1,000.
    ///
    /// All later endpoints share the series of `server.address` `_OTHER`. A recorder keeps about
    /// eight series for each endpoint. Only an exporter that drops idle series removes them.
    #[must_use]
    pub fn max_endpoints(mut self, endpoints: usize) -> Self {
        self.max_endpoints = endpoints;
        self
    }

    /// Sets what tells success from failure where the layer stands alone. By default every error is
    /// a failure.
    ///
    /// Below a balancer the traffic of the innermost `Connect` decides.
    #[must_use]
    pub fn traffic<Y>(self, traffic: Y) -> ObserveLayer<Y> {
        ObserveLayer { client: self.client, max_endpoints: self.max_endpoints, traffic }
    }
}

impl<T, X: Clone> Layer<T> for ObserveLayer<X> {
    type Service = Observe<T, X>;

    fn layer(&self, inner: T) -> Observe<T, X> {
        let named = self.client.clone().map(|name| Client::from(Some(name)));
        let client = named.unwrap_or_else(Client::current);
        let scope = Scope::new(client, self.max_endpoints);
        Observe::new(inner, self.traffic.clone(), Arc::new(scope))
    }
}
