//! Our layers, each alone, and the recommended pipeline.

use std::{sync::Arc, time::Duration};

use evenkeel_core::{node::Node, retry::Budget};
use evenkeel_layers::{
    balance::BalanceLayer, breaker::CircuitBreakerLayer, deadline::DeadlineLayer,
    hedge::HedgeLayer, outlier::OutlierLayer, per_endpoint::PerEndpoint, retry::RetryLayer,
};
use tower::{Layer, ServiceBuilder, limit::ConcurrencyLimitLayer};

use crate::{
    contender::{Entry, Shared},
    leaf::{Nothing, endpoints},
};

const DEADLINE: Duration = Duration::from_secs(1);

pub(super) fn deadline() -> Entry {
    Entry::new("DeadlineLayer", |_| Shared(DeadlineLayer::new(DEADLINE).layer(Nothing)))
}

pub(super) fn retry() -> Entry {
    Entry::new("RetryLayer", |_| Shared(RetryLayer::new(Budget::default()).layer(Nothing)))
}

pub(super) fn hedge() -> Entry {
    let layer = || HedgeLayer::percentile(95.0, Budget::default());
    Entry::new("HedgeLayer", move |_| Shared(layer().layer(Nothing)))
}

pub(super) fn breaker() -> Entry {
    Entry::new("CircuitBreakerLayer", |_| Shared(CircuitBreakerLayer::new().layer(Nothing)))
}

/// What the README recommends, over ten endpoints.
pub(super) fn pipeline() -> Entry {
    Entry::new("the whole pipeline, 10 endpoints", |count| {
        let client = ServiceBuilder::new()
            .layer(DeadlineLayer::new(DEADLINE))
            .layer(RetryLayer::new(Budget::default()))
            .layer(BalanceLayer::peak_ewma(endpoints(count)))
            .layer(OutlierLayer::new())
            .layer(CircuitBreakerLayer::new())
            .layer(PerEndpoint::new(ConcurrencyLimitLayer::new(64)))
            .service(|_: &Arc<Node>| Nothing);
        Shared(client)
    })
}
