//! What the layer makes: a service where its inner is one, and a `Connect` where its inner is one.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use evenkeel_core::{attempt::Attempt, connect::Connect, node::Node, traffic::Traffic};
use evenkeel_metrics::Held;
use pin_project_lite::pin_project;
use tower_service::Service;
use tracing::instrument::{Instrument, Instrumented};

use super::monitor::{Monitor, Scope};
use crate::{alone::Alone, attempt_end::poll_end};

/// Counts and traces attempts, or calls if it stands alone. See the [module docs](super).
pub struct Observe<T, X> {
    inner: T,
    traffic: X,
    scope: Arc<Scope>,
    /// Where it stands alone. Set at the first call.
    alone: Arc<OnceLock<Arc<Alone<Monitor>>>>,
}

impl<T, X> Observe<T, X> {
    pub(super) fn new(inner: T, traffic: X, scope: Arc<Scope>) -> Self {
        Self { inner, traffic, scope, alone: Arc::default() }
    }
}

impl<C: Connect, X> Connect for Observe<C, X> {
    type Service = Observed<C::Service>;
    type Traffic = C::Traffic;

    fn connect(&self, node: &Arc<Node>) -> Observed<C::Service> {
        Observed { monitor: self.scope.observe(node), inner: self.inner.connect(node) }
    }

    fn traffic(&self) -> C::Traffic {
        self.inner.traffic()
    }
}

impl<S, X, R> Service<R> for Observe<S, X>
where
    S: Service<R>,
    X: Traffic<R, S::Response, S::Error>,
{
    type Response = X::Response;
    type Error = S::Error;
    type Future = ObserveFuture<S::Future, X, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let alone = self.alone.get_or_init(|| Alone::new(|_| self.scope.monitor_alone()));
        let called = ObservedFuture::new(&alone.monitor, || self.inner.call(request));
        ObserveFuture {
            traffic: self.traffic.clone(),
            attempt: Some(Attempt::new(alone.clone())),
            called,
            request: std::marker::PhantomData,
        }
    }
}

impl<T: Clone, X: Clone> Clone for Observe<T, X> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            traffic: self.traffic.clone(),
            scope: self.scope.clone(),
            alone: self.alone.clone(),
        }
    }
}

impl<T: fmt::Debug, X> fmt::Debug for Observe<T, X> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observe").field("inner", &self.inner).finish_non_exhaustive()
    }
}

pin_project! {
    /// The response of the inner service. See the [module docs](super).
    pub struct ObserveFuture<F, X, R> {
        traffic: X,
        attempt: Option<Attempt<Alone<Monitor>>>,
        #[pin]
        called: ObservedFuture<F>,
        request: std::marker::PhantomData<fn(R)>,
    }
}

impl<F, X, R, Res, E> Future for ObserveFuture<F, X, R>
where
    F: Future<Output = Result<Res, E>>,
    X: Traffic<R, Res, E>,
{
    type Output = Result<X::Response, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        poll_end(this.called, this.attempt, cx, |attempt, result| {
            this.traffic.finish(attempt, result)
        })
    }
}

impl<F, X, R> fmt::Debug for ObserveFuture<F, X, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObserveFuture").finish_non_exhaustive()
    }
}

/// The service of one endpoint. Its attempts are traced and counted. See the [module docs](super).
#[derive(Clone)]
pub struct Observed<S> {
    inner: S,
    monitor: Arc<Monitor>,
}

impl<S, R> Service<R> for Observed<S>
where
    S: Service<R>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ObservedFuture<S::Future>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: R) -> Self::Future {
        ObservedFuture::new(&self.monitor, || self.inner.call(request))
    }
}

impl<S: fmt::Debug> fmt::Debug for Observed<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observed").field("inner", &self.inner).finish_non_exhaustive()
    }
}

pin_project! {
    /// The response of one endpoint, in the span of its attempt. See the [module docs](super).
    pub struct ObservedFuture<F> {
        #[pin]
        inner: Instrumented<F>,
        // `None` when the response is there.
        active: Option<Held>,
    }
}

impl<F> ObservedFuture<F> {
    #[inline]
    fn new(monitor: &Arc<Monitor>, call: impl FnOnce() -> F) -> Self {
        let active = Some(monitor.series.begin());
        let span = monitor.span();
        // The inner service may do much of its work in `call`.
        let inner = span.in_scope(call);
        Self { inner: inner.instrument(span), active }
    }
}

impl<F, T, E> Future for ObservedFuture<F>
where
    F: Future<Output = Result<T, E>>,
{
    type Output = Result<T, E>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T, E>> {
        let mut this = self.project();
        let output = this.inner.as_mut().poll(cx);
        if let Poll::Ready(result) = &output {
            *this.active = None;
            if result.is_err() {
                this.inner.span().record("otel.status_code", "ERROR");
            }
        }
        output
    }
}

impl<F> fmt::Debug for ObservedFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObservedFuture").finish_non_exhaustive()
    }
}
