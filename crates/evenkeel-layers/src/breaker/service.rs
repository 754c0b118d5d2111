//! What the layer makes: a service where its inner is one, and a `Connect` where its inner is one.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Once},
    task::{Context, Poll, ready},
};

use evenkeel_core::{
    BoxError,
    attempt::{Attempt, Holder},
    connect::Connect,
    endpoint::{Address, Endpoint},
    error::CircuitOpen,
    health::breaker::BreakerRules,
    node::Node,
    time::Timestamp,
    traffic::Traffic,
};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::monitor::{Breakers, Monitor, has_breaker, retry_after};
use crate::clock;

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
    alone: Arc<Alone>,
    connects: Once,
}

/// The made-up node of a service that stands alone. Its attempts are counted there.
struct Alone {
    node: Arc<Node>,
    monitor: Arc<Monitor>,
}

impl<T, X> CircuitBreaker<T, X> {
    pub(super) fn new(rules: BreakerRules, breakers: &Breakers, traffic: X, inner: T) -> Self {
        let address = Address::Name { host: "alone".into(), port: 1 };
        let node = Arc::new(Node::new(Endpoint::new(address)));
        let monitor = Monitor::alone(rules.clone(), breakers, &node);
        let shared = Shared {
            rules,
            breakers: breakers.clone(),
            alone: Arc::new(Alone { node, monitor }),
            connects: Once::new(),
        };
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
        if !has_breaker(node, breakers) {
            Monitor::of(rules.clone(), breakers, node);
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
        let Alone { node, monitor } = &*self.shared.alone;
        if !node.is_open() {
            monitor.try_again();
            if !node.is_open() {
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
            evenkeel_metrics::breaker_refused(client);
            tracing::debug!(target: "evenkeel::breaker", client = client.name(), retry_after = ?refused.retry_after, "call refused");
            let state = State::Refused { refused };
            return CircuitBreakerFuture { traffic, attempt: None, state };
        }
        let state = State::Called { future: self.inner.call(request) };
        CircuitBreakerFuture { traffic, attempt: Some(attempt), state }
    }
}

impl Holder for Alone {
    #[inline]
    fn node(&self) -> &Arc<Node> {
        &self.node
    }

    fn now(&self) -> Timestamp {
        clock::now()
    }

    fn recently(&self) -> Timestamp {
        // Only latency estimates need it, and there are none here.
        Timestamp::default()
    }

    #[inline]
    fn is_counted(&self) -> bool {
        false
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
        attempt: Option<Attempt<Alone>>,
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
                let Poll::Ready(result) = future.poll(cx) else {
                    this.attempt.as_mut().expect("under way").waits();
                    return Poll::Pending;
                };
                let attempt = this.attempt.take().expect("a future is not polled after its end");
                let result = this.traffic.finish(attempt.erase(), result);
                Poll::Ready(result.map_err(Into::into))
            }
        }
    }
}

impl<S: Service<R>, X, R> fmt::Debug for CircuitBreakerFuture<S, X, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreakerFuture").finish_non_exhaustive()
    }
}
