//! Our layers, each by itself, and the recommended pipeline.

use std::{sync::Arc, time::Duration};

use evenkeel_core::{
    node::Node,
    quota::Rate,
    retry::{AnyRules, Budget},
};
use evenkeel_layers::{
    admission::{LoadShedLayer, ThrottleLayer},
    balance::BalanceLayer,
    breaker::CircuitBreakerLayer,
    concurrency::ConcurrencyLimitLayer,
    deadline::DeadlineLayer,
    fail_fast::FailFastLayer,
    hedge::HedgeLayer,
    observe::ObserveLayer,
    outlier::OutlierLayer,
    rate_limit::RateLimitLayer,
    retry::RetryLayer,
};
use tower::{Layer, ServiceBuilder};

use crate::{
    contender::{Entry, Shared},
    leaf::{Nothing, endpoints},
};

const DEADLINE: Duration = Duration::from_secs(1);

pub(super) fn deadline() -> Entry {
    Entry::new("DeadlineLayer", |_| Shared(DeadlineLayer::new(DEADLINE).layer(Nothing)))
}

pub(super) fn retry() -> Entry {
    Entry::new("RetryLayer", |_| {
        Shared(RetryLayer::new(Budget::default()).rules(AnyRules::new()).layer(Nothing))
    })
}

pub(super) fn hedge() -> Entry {
    let layer = || HedgeLayer::percentile(95.0, Budget::default()).rules(AnyRules::new());
    Entry::new("HedgeLayer", move |_| Shared(layer().layer(Nothing)))
}

pub(super) fn breaker() -> Entry {
    Entry::new("CircuitBreakerLayer", |_| Shared(CircuitBreakerLayer::new().layer(Nothing)))
}

/// Higher than the rate of any machine.
fn plenty() -> RateLimitLayer {
    RateLimitLayer::new(Rate::new(1_000_000_000, Duration::from_secs(1)))
}

pub(super) fn rate_limit() -> Entry {
    Entry::new("RateLimitLayer", |_| Shared(plenty().layer(Nothing)))
}

pub(super) fn rate_limit_keyed() -> Entry {
    Entry::new("RateLimitLayer, 1,000 keys", |_| {
        let keyed = plenty().keyed(|request: &u64| Some((request % 1_000).to_be_bytes()), 4_096);
        Shared(keyed.layer(Nothing))
    })
}

/// Higher than the number of requests in flight here.
const LIMIT: u32 = 64;

pub(super) fn concurrency_limit() -> Entry {
    let limit = || ConcurrencyLimitLayer::fixed(LIMIT);
    Entry::new("ConcurrencyLimitLayer, fixed", move |_| Shared(limit().layer(Nothing)))
}

pub(super) fn concurrency_vegas() -> Entry {
    Entry::new("ConcurrencyLimitLayer, Vegas", |_| {
        Shared(ConcurrencyLimitLayer::vegas().layer(Nothing))
    })
}

pub(super) fn throttle() -> Entry {
    Entry::new("ThrottleLayer", |_| Shared(ThrottleLayer::new().layer(Nothing)))
}

pub(super) fn load_shed() -> Entry {
    Entry::new("LoadShedLayer", |_| Shared(LoadShedLayer::fixed(LIMIT).layer(Nothing)))
}

pub(super) fn fail_fast() -> Entry {
    Entry::new("FailFastLayer", |_| Shared(FailFastLayer::new(DEADLINE).layer(Nothing)))
}

pub(super) fn observe() -> Entry {
    Entry::new("ObserveLayer, no subscriber", |_| Shared(ObserveLayer::new().layer(Nothing)))
}

/// The pipeline that the README recommends, over ten endpoints.
pub(super) fn pipeline() -> Entry {
    Entry::new("the whole pipeline, 10 endpoints", |count| {
        let client = ServiceBuilder::new()
            .layer(DeadlineLayer::new(DEADLINE))
            .layer(RetryLayer::new(Budget::default()).rules(AnyRules::new()))
            .layer(BalanceLayer::peak_ewma(endpoints(count)))
            .layer(OutlierLayer::new())
            .layer(CircuitBreakerLayer::new())
            .layer(ConcurrencyLimitLayer::fixed(LIMIT))
            .service(|_: &Arc<Node>| Nothing);
        Shared(client)
    })
}
