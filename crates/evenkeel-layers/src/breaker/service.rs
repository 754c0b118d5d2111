//! What the layer makes: a service where its inner is one, and a `Connect` where its inner is one.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Once},
    task::{Context, Poll, ready},
};

use evenkeel_core::{
    BoxError, attempt::Attempt, connect::Connect, error::CircuitOpen,
    health::breaker::BreakerRules, node::Node, traffic::Traffic,
};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::monitor::{Breakers, Monitor, retry_after};
use crate::{alone::Alone, attempt_end::poll_end, observers::observers_of};

/// Stops sending calls to what keeps failing. See the [module docs](super).
pub struct CircuitBreaker<T, X> {
    inner: T,
    traffic: X,
    shared: Arc<Shared>,
    /// Whether the inner service is ready, and the breaker let calls through when it was asked.
    is_ready: bool,
}

/// What the clones share.
struct Shared {
    rules: BreakerRules,
    breakers: Breakers,
    /// Where the breaker stands alone.
    alone: Arc<Alone<Monitor>>,
    connects: Once,
}

impl<T, X> CircuitBreaker<T, X> {
    pub(super) fn new(rules: BreakerRules, breakers: &Breakers, traffic: X, inner: T) -> Self {
        let alone = Alone::new(|node| Monitor::alone(rules.clone(), breakers, node));
        let shared = Shared { rules, breakers: breakers.clone(), alone, connects: Once::new() };
        Self { inner, traffic, shared: Arc::new(shared), is_ready: false }
    }
}

impl<C: Connect, X> Connect for CircuitBreaker<C, X> {
    type Service = C::Service;
    type Traffic = C::Traffic;

    fn connect(&self, node: &Arc<Node>) -> C::Service {
        let Shared { rules, breakers, alone, connects } = &*self.shared;
        connects.call_once(|| breakers.forget(&alone.monitor));
        // A service that is made again keeps what was learnt of its node.
        if !observers_of::<Monitor>(node).any(|monitor| monitor.is_one_of(breakers)) {
            Monitor::observe(rules.clone(), breakers, node);
        }
        self.inner.connect(node)
    }

    fn traffic(&self) -> C::Traffic {
        self.inner.traffic()
    }
}

impl<S, X, R> Service<R> for CircuitBreaker<S, X>
where
    S: Service<R>,
    S::Error: Into<BoxError>,
    X: Traffic<R, S::Response, S::Error>,
{
    type Response = X::Response;
    type Error = BoxError;
    type Future = CircuitBreakerFuture<S, X, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let alone = &*self.shared.alone;
        if !alone.is_open() {
            alone.monitor.try_again();
            if !alone.is_open() {
                // Refused in `call`. The inner service is not asked, since it might reserve
                // something for a call that will not come.
                self.is_ready = false;
                return Poll::Ready(Ok(()));
            }
        }
        ready!(self.inner.poll_ready(cx)).map_err(Into::into)?;
        self.is_ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: R) -> Self::Future {
        let alone = &self.shared.alone;
        let traffic = self.traffic.clone();
        let mut attempt = Attempt::new(alone.clone());
        if !std::mem::take(&mut self.is_ready) || !attempt.admit() {
            let refused = CircuitOpen::new(retry_after(&alone.monitor.breaker));
            let client = &alone.monitor.client;
            evenkeel_metrics::count_breaker_refusal(client);
            tracing::debug!(target: "evenkeel::breaker", client = client.name(), retry_after = ?refused.retry_after, "call refused");
            let state = State::Refused { refused };
            return CircuitBreakerFuture { traffic, attempt: None, state };
        }
        let state = State::Called { future: self.inner.call(request) };
        CircuitBreakerFuture { traffic, attempt: Some(attempt), state }
    }
}

impl<T: Clone, X: Clone> Clone for CircuitBreaker<T, X> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            traffic: self.traffic.clone(),
            shared: self.shared.clone(),
            // A clone of a service is not ready because its original is.
            is_ready: false,
        }
    }
}

impl<T: fmt::Debug, X> fmt::Debug for CircuitBreaker<T, X> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreaker")
            .field("inner", &self.inner)
            .field("rules", &self.shared.rules)
            .finish_non_exhaustive()
    }
}

pin_project! {
    /// The response of the inner service, or a refusal. See the [module docs](super).
    pub struct CircuitBreakerFuture<S, X, R>
    where
        S: Service<R>,
    {
        traffic: X,
        // Counts the call, until it ends or is dropped; `None` where it was refused.
        attempt: Option<Attempt<Alone<Monitor>>>,
        #[pin]
        state: State<S::Future>,
    }
}

pin_project! {
    #[project = StateProject]
    enum State<F> {
        Refused { refused: CircuitOpen },
        Called { #[pin] future: F },
    }
}

impl<S, X, R> Future for CircuitBreakerFuture<S, X, R>
where
    S: Service<R>,
    S::Error: Into<BoxError>,
    X: Traffic<R, S::Response, S::Error>,
{
    type Output = Result<X::Response, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match this.state.project() {
            StateProject::Refused { refused } => Poll::Ready(Err((*refused).into())),
            StateProject::Called { future } => {
                poll_end(future, this.attempt, cx, |attempt, result| {
                    this.traffic.finish(attempt, result).map_err(Into::into)
                })
            }
        }
    }
}

impl<S: Service<R>, X, R> fmt::Debug for CircuitBreakerFuture<S, X, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreakerFuture").finish_non_exhaustive()
    }
}
