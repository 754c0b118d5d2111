//! Puts any tower layer below a balancer: one instance of it per endpoint.
//!
//! A layer that keeps state, such as a concurrency limit, then keeps it for each endpoint
//! separately. The balancer sees such a layer only through its readiness: while it is not ready,
//! another endpoint is chosen.
//!
//! Without it, a tower layer directly below the balancer does not compile: what it makes is no
//! `Connect`.
//!
//! ```
//! use std::{convert::Infallible, sync::Arc};
//! use evenkeel::core::{endpoint::Endpoint, node::Node};
//! use evenkeel::{balance::BalanceLayer, per_endpoint::PerEndpoint};
//! use tower::{ServiceBuilder, ServiceExt, limit::ConcurrencyLimitLayer, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! let endpoints: Vec<Endpoint> = vec!["10.0.0.1:80".parse()?];
//! let client = ServiceBuilder::new()
//!     .layer(BalanceLayer::p2c(endpoints))
//!     .layer(PerEndpoint::new(ConcurrencyLimitLayer::new(64)))
//!     .service(|_: &Arc<Node>| service_fn(|n: u32| async move { Ok::<_, Infallible>(n + 1) }));
//!
//! assert_eq!(client.oneshot(1).await?, 2);
//! # Ok(())
//! # }
//! ```

use std::sync::Arc;

use evenkeel_core::{connect::Connect, node::Node};
use tower_layer::Layer;

/// Puts the layer `L` below a balancer. See the [module docs](self).
#[derive(Clone, Copy, Debug)]
pub struct PerEndpoint<L> {
    layer: L,
}

impl<L> PerEndpoint<L> {
    /// Makes one instance of what `layer` makes, per endpoint.
    #[must_use]
    pub const fn new(layer: L) -> Self {
        Self { layer }
    }
}

impl<L: Clone, C> Layer<C> for PerEndpoint<L> {
    type Service = PerEndpointConnect<L, C>;

    fn layer(&self, inner: C) -> Self::Service {
        PerEndpointConnect { layer: self.layer.clone(), inner }
    }
}

/// Connects, and puts a layer around the result. See the [module docs](self).
#[derive(Clone, Copy, Debug)]
pub struct PerEndpointConnect<L, C> {
    layer: L,
    inner: C,
}

impl<L, C> Connect for PerEndpointConnect<L, C>
where
    L: Layer<C::Service>,
    C: Connect,
{
    type Service = L::Service;
    type Traffic = C::Traffic;

    fn connect(&self, node: &Arc<Node>) -> Self::Service {
        self.layer.layer(self.inner.connect(node))
    }

    fn traffic(&self) -> Self::Traffic {
        self.inner.traffic()
    }
}
