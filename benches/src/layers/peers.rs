//! Layers of peers that do the same as ours, with their recommended defaults.

use std::{
    future::{Ready, ready},
    sync::Arc,
    time::Duration,
};

use failsafe::futures::CircuitBreaker;
use tower::{
    Layer, Service, ServiceBuilder,
    hedge::Hedge,
    limit::ConcurrencyLimitLayer,
    retry::{
        Policy, RetryLayer,
        budget::{Budget, TpsBudget},
    },
    service_fn,
    timeout::TimeoutLayer,
};
use tower_resilience::{
    bulkhead::BulkheadLayer, circuitbreaker::CircuitBreakerLayer, ratelimiter::RateLimiterLayer,
};

use crate::{
    contender::{Entry, Shared, Unshared},
    leaf::Nothing,
};

const LONG: Duration = Duration::from_secs(1);

/// Higher than the rate of any contender here.
const PLENTY: usize = 1 << 40;

pub(super) fn tower_timeout() -> Entry {
    Entry::new("  tower Timeout", |_| Shared(TimeoutLayer::new(LONG).layer(Nothing)))
}

pub(super) fn tower_retry() -> Entry {
    let retry = || RetryLayer::new(Budgeted(Arc::default()));
    Entry::new("  tower Retry, TpsBudget", move |_| Shared(retry().layer(Nothing)))
}

pub(super) fn resilience_retry() -> Entry {
    Entry::new("  tower-resilience Retry", |_| {
        let retry = tower_resilience::retry::RetryLayer::exponential_backoff().build();
        Shared(retry.layer(Nothing))
    })
}

pub(super) fn tower_hedge() -> Entry {
    Entry::new("  tower Hedge", |_| Unshared::new(|| Hedge::new(Nothing, Always, 10, 0.95, LONG)))
}

pub(super) fn resilience_breaker() -> Entry {
    Entry::new("  tower-resilience CircuitBreaker", |_| {
        Shared(CircuitBreakerLayer::standard().build().expect("sound").layer(Nothing))
    })
}

pub(super) fn failsafe_breaker() -> Entry {
    Entry::new("  failsafe", |_| {
        // It guards futures, so this is the shortest service around it.
        let breaker = failsafe::Config::new().build();
        Shared(service_fn(move |request: u64| breaker.call(Nothing.call(request))))
    })
}

pub(super) fn tower_concurrency_limit() -> Entry {
    Entry::new("  tower ConcurrencyLimit", |_| {
        Shared(ServiceBuilder::new().layer(ConcurrencyLimitLayer::new(64)).service(Nothing))
    })
}

pub(super) fn resilience_bulkhead() -> Entry {
    Entry::new("  tower-resilience Bulkhead", |_| {
        Shared(BulkheadLayer::medium().build().expect("sound").layer(Nothing))
    })
}

pub(super) fn resilience_rate_limit() -> Entry {
    Entry::new("  tower-resilience RateLimiter", |_| {
        Shared(RateLimiterLayer::per_second(PLENTY).build().expect("sound").layer(Nothing))
    })
}

/// Retries errors while tower's budget allows it.
#[derive(Clone)]
struct Budgeted(Arc<TpsBudget>);

impl<Res, E> Policy<u64, Res, E> for Budgeted {
    type Future = Ready<()>;

    fn retry(&mut self, _: &mut u64, result: &mut Result<Res, E>) -> Option<Ready<()>> {
        if result.is_ok() {
            self.0.deposit();
            return None;
        }
        self.0.withdraw().then(|| ready(()))
    }

    fn clone_request(&mut self, request: &u64) -> Option<u64> {
        Some(*request)
    }
}

/// Every request may be sent twice.
#[derive(Clone)]
struct Always;

impl tower::hedge::Policy<u64> for Always {
    fn clone_request(&self, request: &u64) -> Option<u64> {
        Some(*request)
    }

    fn can_retry(&self, _: &u64) -> bool {
        true
    }
}
